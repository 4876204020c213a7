"""`berth review`: test-set answers read by people; what they judged, summed up and written out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from berth.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from berth.review.judgements import Read
    from berth.review.predictions import Prediction


class _Opens(TyperGroup):
    """`berth review FILE` is `berth review open FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["open", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Opens,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Read test-set answers on a local page, judge them by keys, and sum up what was judged.",
    epilog="`berth review FILE` opens the page of FILE. A file called open, summary or export is written ./open.",
)

Predictions = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS", help="JSON lines: input, reference, base, tuned, metrics.", show_default=False
    ),
]
JudgementsOption = Annotated[
    Path | None,
    typer.Option(
        "--judgements", metavar="FILE", help="Where judgements are kept (default: PREDICTIONS with .reviews.jsonl)."
    ),
]


@app.command(
    name="open",
    epilog="Every judgement is on the disk before the page says so; Ctrl-C stops. With -o the page is written to a "
    "file that works from disk alone: it keeps judgements in the browser until they are exported.",
)
def open_page(
    predictions: Predictions,
    judgements: JudgementsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the page here instead of serving it.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 0,
    reviewer: Annotated[
        str, typer.Option("--reviewer", metavar="NAME", help="Who judges (default: your login name).")
    ] = "",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in your browser.")] = True,
) -> None:
    """Serve the review page of a predictions file on this machine, or write it."""
    from getpass import getuser

    from berth.report.files import keep, write_text
    from berth.review.page import render

    rows, journal_path = _rows(predictions, judgements)
    keep(predictions, journal_path, output=output)
    if not reviewer:
        try:
            reviewer = getuser()
        except (OSError, KeyError):
            reviewer = ""  # no login name: the page asks for one
    if output is not None:
        standing = tuple(_read(journal_path).latest().values())
        write_text(output, render(rows, title=predictions.name, reviewer=reviewer, judgements=standing))
        typer.echo(f"Written to {output}", err=True)
        return
    from berth.review.judgements import Journal
    from berth.review.server import ReviewServer

    journal = Journal(journal_path)
    page = render(rows, title=predictions.name, mode="server", reviewer=reviewer)
    server = ReviewServer(page, frozenset(row.key for row in rows), journal, port)
    typer.echo(f"{len(rows):,} rows at {server.url}")
    typer.echo(f"Judgements go to {journal_path}; Ctrl-C stops.")
    # Without a screen, webbrowser would start a text browser here, in this terminal.
    if browser and (sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. Sum up with: berth review summary {predictions}", err=True)
    finally:
        server.server_close()
        journal.close()


@app.command()
def summary(
    predictions: Predictions,
    judgements: JudgementsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Sum up judgements: labels, share of correct answers, preference, agreement (Cohen's kappa)."""
    from berth.review.summary import summary as sum_up

    rows, path = _rows(predictions, judgements)
    found = sum_up(_read(path), [r.key for r in rows], predictions=str(predictions), judgements=str(path))
    if json_output:
        print_json(found)
    else:
        _show(found)


@app.command()
def export(
    predictions: Predictions,
    judgements: JudgementsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here; without it, to stdout.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Rows that nobody judged as well.")] = False,
) -> None:
    """Write predictions with their judgements as JSON lines."""
    from berth.report.files import keep, write_text
    from berth.review.export import export as lines_of

    rows, path = _rows(predictions, judgements)
    keep(predictions, path, output=output)
    text = lines_of(rows, _read(path), judged_only=not every)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        typer.echo(f"Written to {output}", err=True)


def _rows(predictions: Path, judgements: Path | None) -> tuple[list[Prediction], Path]:
    from berth.report.files import keep
    from berth.review.predictions import read_predictions

    path = judgements or predictions.with_suffix(".reviews.jsonl")
    keep(predictions, output=path)
    return read_predictions(predictions), path


def _read(path: Path) -> Read:
    from berth.review.judgements import read_judgements

    return read_judgements(path)


def _show(found: dict[str, Any]) -> None:
    from berth.review.summary import labels_used

    out, labels = console(), labels_used(found["answers"])
    sample = f", {found['sample']}" if found["rows_judged"] else ""
    out.print(f"{found['rows_judged']:,} of {found['rows']:,} rows judged{sample}")
    if found["reviewers"]:
        out.print(f"By {', '.join(found['reviewers'])}")
    drawn = table("answers of", "judged", "correct", "95 %", *labels, right=("judged", *labels))
    for answer, name in (("base", "base"), ("tuned", "fine-tuned")):
        part = found["answers"][answer]
        if part["judged"]:
            share = part["correct"]
            counts = [str(part["labels"][label]) for label in labels]
            between = f"{share['low']:.0%} to {share['high']:.0%}"
            drawn.add_row(name, str(part["judged"]), f"{share['share']:.0%}", between, *counts)
    if drawn.row_count:
        out.print(drawn)
    preference = found["preference"]
    if sum(preference.values()):
        out.print(
            f"Side by side: fine-tuned better {preference['tuned']}, base better {preference['base']}, "
            f"no difference {preference['tie']}"
        )
    for pair in found["agreement"]:
        kappa = "not defined (one label only)" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        first, second = pair["reviewers"]
        out.print(f"{first} and {second} agree on {pair['observed']:.0%} of {pair['items']}; Cohen's kappa {kappa}")
    for note in found["notes"]:
        out.print(note)
