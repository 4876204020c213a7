"""`berth feedback`: what people said of a stack's answers, brought down, to be read and learnt from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import StackArgument
from berth.output import JsonOption, console, print_json
from sizing.units import things

if TYPE_CHECKING:
    from infra.operations.feedback import Collected

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Feedback is joined with the requests that were kept (capture_percent of the stack), or with --requests "
    "FILE. What nobody kept stays unmatched and is counted. Files hold what people wrote: treat them as such."
)
def feedback(
    stack: StackArgument,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="From when on: 12h, 7d, 2w, a day, or a moment with its zone."),
    ] = "7d",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write answers with their feedback here (JSON lines)."),
    ] = None,
    training_data: Annotated[
        Path | None,
        typer.Option(
            "--as-training-data",
            metavar="FILE",
            help="Write corrected and well rated answers here, as berth finetune reads them (JSON lines).",
        ),
    ] = None,
    review: Annotated[
        Path | None, typer.Option("--review", metavar="FILE", help="Write the review page of the answers here (HTML).")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            "--requests", metavar="FILE", help="JSON lines with request_id, input and answer, instead of what was kept."
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Feedback of a folder that berth serve --feedback wrote, not of the bucket. With --requests as "
            "well no account is asked.",
        ),
    ] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Ask the local AWS of `berth sandbox`.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Bring down ratings and corrections, beside the answers they are about, and write them out."""
    from datetime import UTC, datetime

    from berth.report.files import keep, write_text
    from infra.operations.clients import clients_for
    from infra.operations.feedback import collect, predictions
    from infra.operations.since import parse_since
    from infra.operations.training_rows import training_rows
    from infra.settings import MachineSettings
    from infra.stack_files import read_stack
    from sizing.errors import UserError
    from sizing.models.resolve import resolve_model

    targets = [path for path in (output, training_data, review) if path is not None]
    if len({path.resolve() for path in targets}) < len(targets):
        raise UserError("-o, --as-training-data and --review name one file; give each its own")
    for option, given in (("--requests", requests), ("--from", journal)):
        if given is not None and not given.exists():
            raise UserError(f"{option} {given}: there is no such file or folder")
    for path in targets:
        keep(*([requests] if requests else []), output=path)
    file = read_stack(stack)
    moment = parse_since(since, datetime.now(UTC))
    client = clients_for(file.region, sandbox)
    made = collect(file, client, moment, requests, journal)
    classifies = isinstance(file.settings, MachineSettings) and not resolve_model(file.settings.model).generates
    found = training_rows(made.answered, classifies=classifies)
    document: dict[str, Any] = {**made.to_json(), "training": found.to_json()}
    rows = list(predictions(made))
    if targets and not rows:
        raise UserError(_nothing(made))
    if output is not None:
        write_text(output, _lines(rows))
    if review is not None:
        write_text(review, _page(rows, output or Path(f"{stack}-feedback.jsonl")))
    if training_data is not None:
        if not found.rows:
            raise UserError(
                f"none of {len(rows):,} answers was corrected or rated good by all, so there is nothing to learn from; "
                "leave --as-training-data out"
            )
        write_text(training_data, _lines(found.rows))
    written = {"predictions": output, "training_data": training_data, "review": review}
    document["files"] = {name: None if path is None else str(path) for name, path in written.items()}
    if json_output:
        print_json(document)
    else:
        _show(made, document)


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _page(rows: list[dict[str, Any]], name: Path) -> str:
    from berth.review.page import render
    from berth.review.predictions import parse_predictions

    return render(parse_predictions(_lines(rows), str(name)), title=name.name)


def _nothing(made: Collected) -> str:
    """Why there is nothing to write."""
    if not made.records:
        return f"nobody has given feedback on {made.stack} since {made.since:%Y-%m-%d %H:%M} UTC; go back with --since"
    where = ", ".join(made.sources)
    return (
        f"{things(len(made.records), 'piece')} of feedback, and the requests of none are known "
        f"({made.requests:,} in {where}); have requests kept (capture_percent of the stack), or give --requests FILE"
    )


def _show(made: Collected, document: dict[str, Any]) -> None:
    out = console()
    rated, answers = document["ratings"], document["answers"]
    out.print(f"{made.stack}: {things(len(made.records), 'piece')} of feedback since {made.since:%Y-%m-%d %H:%M} UTC")
    if rated["mean"] is not None:
        shown = ", ".join(f"{n} × {rating}" for rating, n in rated["counts"].items() if n)
        out.print(f"Ratings (1 bad to 5 good): {shown}; mean {rated['mean']:.1f}")
    if made.records:
        out.print(f"Corrections: {document['corrections']:,}; comments: {document['comments']:,}")
        out.print(
            f"On {things(answers['joined'], 'answer')} whose request is known, "
            f"{answers['unmatched']:,} that nobody kept"
            + (f", {answers['several_texts']:,} of several texts at once" if answers["several_texts"] else "")
        )
    training = document["training"]
    if training["rows"]:
        out.print(
            f"To learn from: {training['rows']:,} ({training['corrected']:,} corrected, {training['good']:,} rated "
            f"good; {training['duplicates']:,} duplicates)"
        )
    for said, bad in (("feedback", made.bad), ("requests", made.bad_requests)):
        if bad:
            out.print(f"{len(bad):,} lines of {said} cannot be read:")
            for line in bad[:5]:
                out.print(f"  {line}", soft_wrap=True)
    if made.records and not made.answered:
        out.print(_nothing(made)[0].upper() + _nothing(made)[1:] + ".")
    for name, path in document["files"].items():
        if path is not None:
            out.print(f"Written to {path} ({name.replace('_', ' ')})", soft_wrap=True)
    if document["files"]["predictions"]:
        out.print(f"\nNext\n  berth review {document['files']['predictions']}", soft_wrap=True)
    if document["files"]["training_data"]:
        out.print(f"  berth data check {document['files']['training_data']}", soft_wrap=True)
