"""`berth models`: the open models that Berth knows, smallest first, and one of them in full."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from sizing.hardware.types import InstanceType
    from sizing.models.catalogue import Catalogue, Entry
    from sizing.models.facts import ModelFacts, Stack

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SHORT = {"encoder-only": "encoder", "decoder-only": "decoder", "encoder-decoder": "enc-dec"}
_LICENCE = {"business-friendly": "business"}
_NONE = "–"
_WIDE = 100
"""Columns below which names stand without their organisation, which `berth` understands as well."""
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@app.command(epilog="Smallest first: start with the smallest model that may do, and go up only if it does not.")
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this one in full: a catalogue name, org/name, or a folder with a config.json."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="Made for this: summarization, qa, translation, sentiment, classification, chat, code."
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", metavar="WORD", help="business, conditions, non-commercial or closed."),
    ] = None,
    min_context: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="A context window of at least this: 4096, 8K, 128K (K is 1,024)."),
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="COUNT", help="At most this many parameters: 770M, 3B, 7e9.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="WORD", help="encoder-only, decoder-only or encoder-decoder.")
    ] = None,
    fits: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="Serves one request on this instance type, e.g. g4dn.2xlarge, as `berth size` counts."
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Open models: parameters, shape, context window, licence and what it allows a business.

    Without NAME, a table of those that pass every filter given; with NAME, that model in full with its sources.
    """
    from sizing.errors import UserError
    from sizing.models.catalogue import load_catalogue
    from sizing.models.describe import Filter, entry_json, facts_json, listed
    from sizing.models.tasks import TASKS

    catalogue = load_catalogue()
    if name is not None:
        given = [o for o in (task, licence, min_context, max_params, architecture, fits) if o is not None]
        if given:
            raise UserError(f"'{name}' is one model; the filters are for the table: leave out the one or the others")
        facts = _one(catalogue, name)
        if json_output:
            print_json(facts_json(facts))
        else:
            _show(facts, catalogue)
        return
    wanted = Filter(
        task=task,
        licence=licence,
        min_context=None if min_context is None else _tokens(min_context),
        max_params=None if max_params is None else _count(max_params),
        architecture=architecture,
    )
    entries = listed(catalogue, wanted)
    instance = None if fits is None else _instance(fits)
    fitting = None if instance is None else _fitting(catalogue, entries, instance, wanted.task or "")
    if fitting is not None:
        entries = [e for e in entries if e.name in fitting]
    if json_output:
        print_json(
            {
                "task": None if wanted.task is None else _task_json(wanted.task),
                "fits": None if instance is None else instance.name,
                "models": [entry_json(e) | ({"fit": fitting[e.name]} if fitting is not None else {}) for e in entries],
            }
        )
        return
    _print_table(entries, fitting, instance)
    out = console()
    if wanted.task is not None:
        mapped = TASKS[wanted.task]
        out.print(f"{mapped.name} wants {' or '.join(mapped.architectures)}: {mapped.why}.")
        if any(e.architecture not in mapped.architectures for e in entries):
            out.print("Other architectures are listed where their publishers name the task.")
    rest = "berth models NAME shows one in full; berth size NAME finds its machine."
    out.print(f"{len(entries)} of {len(catalogue)} models. {rest}" if entries else f"No model passes. {rest}")


def _count(text: str) -> int:
    """`3B`, `770M`, `7e9` as a number."""
    from sizing.errors import UserError

    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[0-9]{1,2})?)\s*([kmbt]?)", text.strip().lower().replace(",", ""))
    if found is None or not 0 < float(found[1]) * _SIZES[found[2]] < 1e18:
        raise UserError(f"max-params is '{text}'; it must be a number of parameters above 0, such as 770M or 3B")
    return int(float(found[1]) * _SIZES[found[2]])


def _tokens(text: str) -> int:
    """`4096`, `8K` as a number of tokens."""
    from sizing.errors import UserError

    found = re.fullmatch(r"([0-9]{1,12})\s*(k?)", text.strip().lower().replace(",", ""))
    if found is None or int(found[1]) < 1:
        raise UserError(f"min-context is '{text}'; it must be a number of tokens of at least 1, such as 4096 or 8K")
    return int(found[1]) * (1024 if found[2] else 1)


def _one(catalogue: Catalogue, name: str) -> ModelFacts:
    """A model of the catalogue, closed ones too; else whatever the name means to `berth size`."""
    found = catalogue.find(name)
    if found is not None:
        return found
    from berth.hub import find_model

    return find_model(name)


def _instance(name: str) -> InstanceType:
    from sizing.hardware.load import load_hardware

    return load_hardware().instance(name)


def _fitting(
    catalogue: Catalogue, entries: list[Entry], instance: InstanceType, task: str
) -> dict[str, dict[str, Any]]:
    """Of `entries` those that `instance` serves, one request at a time, with dtype and bytes; as `berth size` does."""
    from sizing.choosing.serving import Planner, Serving
    from sizing.choosing.wishes import Wishes
    from sizing.dtypes import DTYPES
    from sizing.errors import UserError
    from sizing.workload import Workload, default_tokens

    gpu = instance.gpu
    if gpu is None or gpu.vendor != "nvidia":
        what = f"has {gpu.name}" if gpu else "has no GPU"
        raise UserError(f"{instance.name} {what}; models are served on NVIDIA GPUs: `berth catalog types` lists them")
    # No dtype makes a weight smaller than this, so a model above it needs no estimate.
    smallest = min(d.weight_bytes for d in DTYPES.values())
    wishes = Wishes(max_gpus=min(64, instance.gpus))
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if not entry.deployable or entry.params * smallest > gpu.memory_bytes * instance.gpus:
            continue
        model = catalogue[entry.name]
        inputs, outputs = default_tokens(model, task, None, None)
        planner = Planner(model, Workload(input_tokens=inputs, output_tokens=outputs, task=task), wishes)
        served = planner.serve(instance)
        if isinstance(served, Serving):
            memory = planner.memories.estimate(served.dtype, served.gpus_per_copy, served.batch)
            found[entry.name] = {
                "dtype": served.dtype,
                "gpus": served.gpus_per_copy,
                "device_bytes": memory.device.total_bytes,
                "gpu_memory_bytes": gpu.memory_bytes,
            }
    return found


def _task_json(name: str) -> dict[str, Any]:
    from sizing.models.tasks import TASKS

    task = TASKS[name]
    return {"name": task.name, "architectures": list(task.architectures), "why": task.why}


def _params(entry: Entry) -> str:
    from sizing.units import count

    return count(entry.params) if entry.deployable else "unknown"


def _print_table(
    entries: list[Entry], fitting: dict[str, dict[str, Any]] | None, instance: InstanceType | None
) -> None:
    from sizing.units import GIB

    if not entries:
        return
    out = console()
    narrow = out.width < _WIDE
    place = f"on {instance.name}" if instance is not None else ""
    rows = []
    for entry in entries:
        row = {
            "model": entry.short_name if narrow else entry.name,
            "params": _params(entry),
            "type": _SHORT[entry.architecture],
            "context": f"{entry.context_window:,}" if entry.context_window else _NONE,
            "dtype": entry.published_dtype,
            "licence": _LICENCE.get(entry.verdict, entry.verdict),
        }
        if fitting is not None:
            fit = fitting[entry.name]
            each = f" × {fit['gpus']}" if fit["gpus"] > 1 else ""
            row[place] = f"{fit['dtype']} {fit['device_bytes'] / GIB:.1f} GiB{each}"
            del row["dtype"]
            if narrow:
                del row["context"]
        rows.append(row)
    drawn = table(*rows[0], right=("params", "context"), wrap=("model",))
    drawn.columns[0].overflow = "fold"  # a name that is cut cannot be typed
    for row in rows:
        drawn.add_row(*row.values())
    out.print(drawn)


def _shape(stack: Stack, name: str) -> str:
    """A stack in a line."""
    heads = f"{stack.heads} heads of {stack.head_dim}"
    if stack.kv_heads != stack.heads:
        heads += f" ({stack.kv_heads} key-value)"
    experts = f", {stack.experts} experts, {stack.experts_per_token} a token" if stack.experts else ""
    gate = "gated " if stack.gated else ""
    return (
        f"{name}: {stack.layers} layers, hidden size {stack.hidden_size:,}, {heads}, {gate}{stack.activation} MLP of"
        f" {stack.intermediate_size:,}{experts}, {stack.norm}, {stack.position} positions"
    )


def _windows(stack: Stack) -> str:
    """How its layers attend, where not all see everything."""
    parts = [
        f"{a.layers} layers see {f'a window of {a.window:,} tokens' if a.window else 'the whole context'}"
        for a in stack.attention
    ]
    return ", ".join(parts) if any(a.window for a in stack.attention) else ""


def _lines(facts: ModelFacts) -> list[tuple[str, str]]:
    """What there is to say of a model, heading by heading."""
    from sizing.units import count

    lines = [("family", f"{facts.family} ({facts.architecture})")]
    if facts.deployable:
        lines.append(("parameters", f"{facts.params:,} ({count(facts.params)})"))
        if facts.active_params != facts.params:
            lines.append(("", f"{facts.active_params:,} of them for one token ({count(facts.active_params)})"))
        if facts.class_params is not None:
            lines.append(("", f"transformers' class: {facts.class_params:,}. {facts.params_note}"))
        lines.append(
            ("weights", f"{facts.params * 4 / 1e9:,.2f} GB in fp32, {facts.params * 2 / 1e9:,.2f} GB in 16 bits")
        )
        if facts.stored_bytes is not None:
            lines.append(("", f"{facts.stored_bytes / 1e9:,.2f} GB as stored"))
        for name, stack in (("encoder", facts.encoder), ("decoder", facts.decoder)):
            if stack is not None:
                lines.append(("shape" if lines[-1][0] != "shape" else "", _shape(stack, name)))
                if windows := _windows(stack):
                    lines.append(("", windows))
        tied = "tied to the output layer" if facts.tied_embeddings else "apart from the output layer"
        lines.append(("vocabulary", f"{facts.vocab_size:,} tokens, embeddings {tied}"))
    else:
        lines.append(("parameters", "unknown: not published"))
    context = f"{facts.context_window:,} tokens" if facts.context_window else "not limited by the model"
    lines += [("context", context), ("published as", facts.published_dtype)]
    verdict = facts.licence_verdict
    judged = f": {verdict}" if verdict != "unknown" else "; read it where the model comes from"
    lines.append(("licence", facts.licence + judged))
    if facts.licence_reason:
        lines.append(("", facts.licence_reason))
    if facts.tasks:
        lines.append(("made for", ", ".join(facts.tasks)))
    if facts.languages:
        lines.append(("languages", facts.languages))
    lines += [("notes" if i == 0 else "", note) for i, note in enumerate(facts.notes)]
    lines.append(("source", facts.source + (f" ({facts.as_of})" if facts.as_of else "")))
    return lines


def _show(facts: ModelFacts, catalogue: Catalogue) -> None:
    from rich.table import Table

    out = console()
    out.print(facts.name)
    entry = catalogue.entries.get(facts.name)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    if entry is not None and len(entry.names) > 1:
        grid.add_row("also called", ", ".join(entry.names[1:]))
    for heading, text in _lines(facts):
        grid.add_row(heading, text)
    out.print(grid)
    if facts.deployable:
        out.print(f"Next: berth size {facts.name if entry is not None else facts.source}")
