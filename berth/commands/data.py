"""`berth data`: a data set examined, and split, before a GPU is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import ColumnOption, FormOption, TestOption
from berth.output import JsonOption, console, print_json, table
from sizing.units import things

if TYPE_CHECKING:
    from model_runtime.data.check import Window
    from model_runtime.data.lengths import Counter

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Check a data set for fine-tuning before a GPU is paid for, and split it.",
)

FOUND_ERRORS = 3
"""Exit code where rows cannot be used."""
_FORMS = (
    "Forms: seq2seq has the columns input and target; causal text; chat messages (a list of objects with role and "
    "content); classification text and label. Files: .jsonl, .csv, .tsv or .parquet, here or s3://BUCKET/KEY; or a "
    "folder with train.*, and validation.* and test.* where there are such."
)
FileArgument = Annotated[str, typer.Argument(help="The data: a file, or a folder with train.*.", show_default=False)]
ValidationOption = Annotated[str, typer.Option("--validation", help="A file for validation, instead of a share.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The seed of the split.")]
ValidationShare = Annotated[float, typer.Option("--validation-share", help="Of the rows, to validate with.")]
TestShare = Annotated[float, typer.Option("--test-share", help="Of the rows, to test with.")]


@app.command(epilog=f"{_FORMS} Ends with exit code 3 where rows cannot be used.")
def check(
    file: FileArgument,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model to be tuned: its folder (exact), or a name.")
    ] = "",
    validation: ValidationOption = "",
    test: TestOption = "",
    form: FormOption = "auto",
    column: ColumnOption = None,
    context_window: Annotated[
        int | None, typer.Option("--context-window", help="Tokens at which examples are cut; none: the model's.")
    ] = None,
    split: Annotated[Path | None, typer.Option("--split", help="The file that keeps the split.")] = None,
    seed: SeedOption = 0,
    validation_share: ValidationShare = 0.05,
    test_share: TestShare = 0.1,
    json_output: JsonOption = False,
) -> None:
    """Examine a data set: broken rows, copies, leaks into the test set, lengths, classes, personal data."""
    from model_runtime.data.check import check as examine
    from model_runtime.data.dataset import read_dataset
    from model_runtime.data.examples import column_names
    from model_runtime.errors import in_one_line
    from sizing.errors import UserError

    with in_one_line():
        if split is not None and not split.is_file():
            raise UserError(f"{split} is no file; berth data split makes one")
        data = read_dataset(
            file, validation=validation, test=test, form=form, names=column_names(column or ()), split_file=split,
            seed=seed, validation_share=validation_share, test_share=test_share,
        )  # fmt: skip
        counter, window = _counting(model, context_window)
        report = examine(data.tables, data.parts, counter, window)
    if json_output:
        print_json(report.document)
    else:
        _show(report.document)
    if report.errors:
        raise typer.Exit(FOUND_ERRORS)


@app.command(name="split", epilog=_FORMS)
def split_command(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file that keeps the split.")],
    validation: ValidationOption = "",
    test: TestOption = "",
    form: FormOption = "auto",
    column: ColumnOption = None,
    seed: SeedOption = 0,
    validation_share: ValidationShare = 0.05,
    test_share: TestShare = 0.1,
    json_output: JsonOption = False,
) -> None:
    """Divide a data set into train, validation and test, copies of a row on one side, and keep that in a file."""
    from model_runtime.data.dataset import read_dataset
    from model_runtime.data.examples import column_names
    from model_runtime.errors import in_one_line
    from sizing.errors import UserError

    with in_one_line():
        if out.exists():
            raise UserError(f"{out} is there; delete it to split anew, or give another name")
        data = read_dataset(
            file, validation=validation, test=test, form=form, names=column_names(column or ()), split_file=out,
            seed=seed, validation_share=validation_share, test_share=test_share,
        )  # fmt: skip
    sizes = {name: len(part) for name, part in data.parts.items()}
    if json_output:
        print_json({"file": str(out), "seed": seed, "form": data.form, "sha256": data.hashes, "parts": sizes})
        return
    console().print(f"{out}: " + ", ".join(f"{n:,} {name}" for name, n in sizes.items()), soft_wrap=True)


def _counting(model: str, context_window: int | None) -> tuple[Counter, Window]:
    """How tokens are counted, and the window that they are held against."""
    from model_runtime.data.check import Window
    from model_runtime.data.lengths import counter
    from sizing.errors import UserError
    from sizing.models.resolve import resolve_model

    if context_window is not None and context_window < 1:
        raise UserError(f"--context-window is {context_window}; it must be 1 or more")
    if not model:
        source = "--context-window" if context_window else "no model and no --context-window given"
        return counter(None), Window(context_window, False, source)
    facts = resolve_model(model)
    folder = Path(model).expanduser()
    tokens = context_window or facts.context_window
    source = "--context-window" if context_window else facts.name
    return counter(folder if folder.is_dir() else None), Window(tokens, facts.architecture == "decoder-only", source)


def _show(found: dict[str, Any]) -> None:
    out = console()
    files = table("Part", "File", "Rows", "Usable", right=("Rows", "Usable"), wrap=("File",))
    for file in found["files"]:
        files.add_row(file["part"], file["location"], f"{file['rows']:,}", f"{file['usable']:,}")
    out.print(files)
    parts = ", ".join(f"{count:,} {name}" for name, count in found["parts"].items())
    out.print(f"\nForm {found['form']}: {parts}", soft_wrap=True)
    _show_lengths(out, found["tokens"])
    lines = list(_sentences(found))
    out.print()
    for line in lines:
        out.print(line, soft_wrap=True)
    said = f"{things(found['errors'], 'error')}, {things(found['warnings'], 'warning')}"
    out.print(f"\n{said}" if lines else f"Nothing wrong was found: {said}")


def _show_lengths(out: Any, tokens: dict[str, Any]) -> None:
    drawn = table("Tokens", "Mean", "Median", "95 %", "Longest", right=("Mean", "Median", "95 %", "Longest"))
    for name in ("input", "answer", "sequence"):
        if (part := tokens[name]) is not None:
            shown = (f"{part['mean']:,.1f}", f"{part['median']:,}", f"{part['p95']:,}", f"{part['longest']:,}")
            drawn.add_row(name, *shown)
    out.print()
    out.print(drawn)
    longest = tokens["sequence"] or tokens["input"]
    top = max((b["count"] for b in longest["histogram"]), default=0) or 1
    out.print(f"\n{'whole sequence' if tokens['sequence'] else 'input'}, by tokens")
    for part in longest["histogram"]:
        span = f"{part['from']:,} to {part['to']:,}" if part["to"] is not None else f"above {part['from'] - 1:,} (cut)"
        bar = "█" * round(40 * part["count"] / top)
        out.print(f"{span:>20} {part['count']:>9,} {bar}".rstrip())
    out.print(f"\nCounted with {tokens['how']}.", soft_wrap=True)
    if tokens["window"] is None:
        out.print(f"Context window unknown ({tokens['window_source']}), so nothing is counted as cut.", soft_wrap=True)
    else:
        out.print(
            f"{tokens['cut']:,} rows ({tokens['cut_percent']:g} %) would be cut at {tokens['window']:,} tokens "
            f"({tokens['window_source']}).",
            soft_wrap=True,
        )


def _sentences(found: dict[str, Any]) -> Any:
    for file in found["files"]:
        for problem in file["problems"]:
            lines = _listed(problem["lines"], problem["count"])
            example = f": line {problem['lines'][0]} {problem['example']}"
            yield f"{problem['severity']}: {file['part']}: {problem['count']:,} × {problem['kind']} ({lines}){example}"
    for copy in found["duplicates"]:
        lines = _listed([p["line"] for p in copy["pairs"]], copy["rows"])
        yield f"warning: {copy['part']}: {copy['rows']:,} rows repeat an earlier one ({lines})"
    for conflict in found["conflicts"]:
        lines = "; ".join(" and ".join(map(str, group)) for group in conflict["lines"])
        yield f"warning: {conflict['part']}: {conflict['groups']:,} inputs have more than one answer (lines {lines})"
    for leak in found["leaks"]:
        lines = _listed([p["line"] for p in leak["pairs"]], leak["rows"])
        yield f"warning: {leak['part']}: {leak['rows']:,} rows stand in the training data as well ({lines})"
    for kind in found["personal"]:
        lines = _listed(kind["lines"], kind["rows"])
        yield f"warning: {kind['part']}: {kind['rows']:,} rows with what looks like {kind['kind']} ({lines})"
    if (labels := found["labels"]) is not None:
        classes = ", ".join(f"{c['label']} {c['rows']:,}" for c in labels["classes"][:12])
        times = labels["classes"][0]["rows"] / labels["classes"][-1]["rows"]
        yield f"classes: {classes}; the largest is {times:.3g} times the smallest"
        if labels["rare"]:
            yield f"warning: fewer than 10 rows to train with: {', '.join(labels['rare'][:12])}"


def _listed(lines: list[int], count: int) -> str:
    more = " …" if count > len(lines) else ""
    return f"line{'s' if count > 1 else ''} {', '.join(map(str, lines))}{more}"
