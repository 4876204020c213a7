"""`make oracle`: plays training steps of many models without allocating them and writes what they keep and need.

    python scripts/oracle.py            the whole sweep (half an hour on one core), into oracle.csv beside the estimates
    python scripts/oracle.py --check    no run: the committed rows against today's estimates, term by term

Two oracles, `oracle_runs.saved` and `oracle_runs.peak`; each row says which, with the versions it was made with.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import itertools
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from oracle_runs import Case, Result, config_of, peak, saved

from sizing.memory.training.estimate import estimate_training, kept_bytes
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.models.read import facts_from_config

DATA = Path(__file__).parents[1] / "sizing" / "memory" / "training" / "data" / "oracle.csv"
MIB = 1 << 20

FAMILIES: tuple[tuple[str, int], ...] = (
    # (model, tokens of the target: 0 for all but encoder-decoders)
    ("google/flan-t5-base", 64),
    ("google-t5/t5-base", 64),
    ("facebook/bart-base", 64),
    ("google/pegasus-xsum", 64),
    ("google-bert/bert-base-uncased", 0),
    ("FacebookAI/roberta-base", 0),
    ("distilbert/distilbert-base-uncased", 0),
    ("microsoft/deberta-v3-base", 0),
    ("openai-community/gpt2", 0),
    ("EleutherAI/gpt-j-6b", 0),
    ("EleutherAI/pythia-410m", 0),
    ("facebook/opt-1.3b", 0),
    ("bigscience/bloom-560m", 0),
    ("tiiuae/falcon-7b", 0),
    ("tiiuae/falcon-40b", 0),
    ("mosaicml/mpt-7b", 0),
    ("microsoft/phi-1_5", 0),
    ("microsoft/Phi-3-mini-4k-instruct", 0),
    ("meta-llama/Llama-3.2-3B", 0),
    ("mistralai/Mistral-7B-v0.1", 0),
    ("mistralai/Mixtral-8x7B-v0.1", 0),
    ("Qwen/Qwen2.5-7B-Instruct", 0),
    ("Qwen/Qwen3-8B", 0),
    ("google/gemma-2b", 0),
    ("google/gemma-3-1b-it", 0),
    ("google/gemma-2-2b-it", 0),
    ("Qwen/Qwen3-30B-A3B", 0),
    ("openai/gpt-oss-20b", 0),
    ("bigcode/starcoder", 0),
    ("facebook/blenderbot-400M-distill", 64),
    ("Helsinki-NLP/opus-mt-en-de", 64),
)
LAYERS = 3
"""Of each stack in the sweep; layers are alike, so more of them only take longer."""
ALONE = (("full", "pure-bf16", "eager"), ("lora", "pure-bf16", "eager"), ("lora", "bf16", "sdpa"))
"""Runs that are played with a single sequence, too: attention keeps views of it."""
NO_SDPA = (
    "bigscience/bloom-560m",
    "mosaicml/mpt-7b",
    "microsoft/deberta-v3-base",
    "EleutherAI/gpt-j-6b",
    "openai/gpt-oss-20b",
    "google/gemma-2-2b-it",
)
NO_FAKE = ("microsoft/deberta-v3-base",)
"""Its forward pass asks for values that a fake tensor has not."""


def sweep() -> Iterator[tuple[str, Case]]:
    """(oracle, case) of every row."""
    for (model, target), (method, precision, attention) in itertools.product(
        FAMILIES,
        (
            ("full", "fp32", "eager"),
            ("full", "pure-bf16", "eager"),
            ("full", "pure-bf16", "sdpa"),
            ("full", "bf16", "eager"),
            ("lora", "pure-bf16", "eager"),
            ("lora", "bf16", "sdpa"),
        ),
    ):
        if (attention == "sdpa" and model in NO_SDPA) or (precision == "bf16" and model in NO_FAKE):
            continue
        yield "saved", Case(model, LAYERS, method, precision, attention, "cuda", 2, 256, target)
        if (method, precision, attention) in ALONE:
            yield "saved", Case(model, LAYERS, method, precision, attention, "cuda", 1, 200, target)
    for batch, tokens in ((1, 128), (8, 128), (2, 1024)):
        for model, target in (("google/flan-t5-base", 128), ("meta-llama/Llama-3.2-3B", 0)):
            yield "saved", Case(model, LAYERS, "full", "pure-bf16", "eager", "cpu", batch, tokens, target)
    yield "saved", Case("google/flan-t5-small", 0, "full", "fp32", "eager", "cpu", 8, 128, 32)
    yield "saved", Case("google/flan-t5-xl", 0, "full", "pure-bf16", "eager", "cpu", 8, 512, 128)
    for model, target in (
        ("google/flan-t5-base", 64),
        ("meta-llama/Llama-3.2-3B", 0),
        ("openai-community/gpt2", 0),
        ("google-bert/bert-base-uncased", 0),
        ("facebook/bart-base", 64),
        ("bigscience/bloom-560m", 0),
    ):
        for method, precision in (("full", "fp32"), ("full", "pure-bf16"), ("lora", "pure-bf16")):
            yield "saved", Case(model, LAYERS, method, precision, "eager", "cpu", 8, 256, target)
            for checkpointing in (False, True):
                yield "peak", Case(model, LAYERS, method, precision, "eager", "cpu", 8, 256, target, checkpointing)
    yield "peak", Case("google/flan-t5-small", 0, "full", "fp32", "eager", "cpu", 8, 128, 32)
    yield "peak", Case("google/flan-t5-xl", 0, "full", "fp32", "eager", "cpu", 4, 512, 128)
    yield "peak", Case("google/flan-t5-xl", 0, "full", "pure-bf16", "eager", "cpu", 8, 512, 128)
    yield "peak", Case("google/flan-t5-xl", 0, "full", "pure-bf16", "eager", "cpu", 8, 512, 128, True)


def facts_of(case: Case) -> ModelFacts:
    return facts_from_config(config_of(case), name=case.model)


def setup_of(case: Case) -> TrainingSetup:
    return TrainingSetup(
        method=case.method,  # type: ignore[arg-type]
        precision=case.precision,  # type: ignore[arg-type]
        micro_batch=case.batch,
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        checkpointing=case.checkpointing,
        attention=case.attention,  # type: ignore[arg-type]
        backend="cuda" if case.kernels == "cuda" else "cpu",
    )


def estimated(oracle: str, case: Case) -> int:
    """What Berth says for the row's figure: bytes kept, or the peak of live tensors (no libraries' workspaces)."""
    model, setup = facts_of(case), setup_of(case)
    if oracle == "saved":
        return kept_bytes(model, setup)
    device = estimate_training(model, setup).device
    return device.total("allocated") - device["kernel workspaces"].bytes


CASE_FIELDS = tuple(f.name for f in fields(Case))
RESULT_FIELDS = tuple(f.name for f in fields(Result))
COLUMNS = ("oracle", *CASE_FIELDS, *RESULT_FIELDS, "torch", "transformers", "peft", "as_of")


def read_rows(path: Path = DATA) -> list[tuple[str, Case, Result]]:
    """The committed rows: (oracle, case, result)."""
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            result = Result(**{f.name: _typed(row[f.name], f.type) for f in fields(Result)})  # type: ignore[arg-type]
            rows.append((row["oracle"], _case(row), result))
    return rows


def _typed(text: str, kind: object) -> object:
    name = str(kind)
    if name == "bool":
        return text == "True"
    return {"int": int, "float": float}.get(name, str)(text)


def _known(path: Path, made: dict[str, str]) -> dict[tuple[str, Case], dict[str, str]]:
    """Rows of the file that were made with the same releases."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] == release for name, release in made.items())]
    return {(row["oracle"], _case(row)): row for row in rows}


def _case(row: dict[str, str]) -> Case:
    return Case(**{f.name: _typed(row[f.name], f.type) for f in fields(Case)})  # type: ignore[arg-type]


def run(path: Path, *, keep: bool) -> None:
    """Plays the sweep and writes its rows; `keep`: those that the same releases made are not played again."""
    made = {"torch": version("torch"), "transformers": version("transformers"), "peft": version("peft")}
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _known(path, made) if keep else {}
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for oracle, case in sweep():
            if (oracle, case) in known:
                writer.writerow(known[oracle, case])
                continue
            result = saved(case) if oracle == "saved" else peak(case)
            measured = result.saved or result.total
            error = estimated(oracle, case) / measured - 1
            print(
                f"{oracle:5} {_words(case):90} {measured / MIB:12,.1f} MiB {error:+7.2%} {result.seconds:6.1f} s",
                flush=True,
            )
            row = {"oracle": oracle, **asdict(case), **asdict(result), **made, "as_of": dt.date.today().isoformat()}
            row["seconds"] = round(result.seconds, 2)
            writer.writerow(row)
    part.replace(path)


def check(path: Path) -> int:
    """Prints each row's error; 1 when one is beyond 5 %."""
    worst = 0.0
    by_oracle: dict[str, list[float]] = {}
    for oracle, case, result in read_rows(path):
        measured = result.saved or result.total
        error = estimated(oracle, case) / measured - 1
        by_oracle.setdefault(oracle, []).append(abs(error))
        worst = max(worst, abs(error))
        print(f"{oracle:5} {_words(case):90} {measured / MIB:12,.1f} MiB {error:+7.2%}")
    for oracle, errors in by_oracle.items():
        print(f"{oracle}: {len(errors)} rows, median error {statistics.median(errors):.2%}, worst {max(errors):.2%}")
    return int(worst > 0.05)


def _words(case: Case) -> str:
    layers = f", {case.layers} layers" if case.layers else ""
    lengths = f"{case.input_tokens}/{case.output_tokens}" if case.output_tokens else f"{case.input_tokens}"
    extra = ", checkpointing" if case.checkpointing else ""
    how = f"{case.method} {case.precision} {case.attention} ({case.kernels})"
    return f"{case.model}{layers} {how} {case.batch} x {lengths}{extra}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare the committed rows with the estimates; run nothing"
    )
    parser.add_argument("--again", action="store_true", help="play rows again that the same releases made")
    parser.add_argument("--output", type=Path, default=DATA, help="where the rows go")
    given = parser.parse_args()
    if given.check:
        return check(given.output)
    run(given.output, keep=not given.again)
    return 0


if __name__ == "__main__":
    sys.exit(main())
