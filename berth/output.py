"""What commands share when they print: the `--json` option, one JSON document, a console and a table alike everywhere.

rich takes a tenth of a second to import, so it is imported when something is drawn and never for `--json` or `--help`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 100
"""Columns of output that goes to a file or a pipe, unless COLUMNS says otherwise."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
"""The type of a `--json` flag: `json_output: JsonOption = False`."""


def print_json(document: Any) -> None:
    """Print `document` as one indented JSON document. NaN and infinity are refused: they are no JSON."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def console(*, stderr: bool = False) -> Console:
    """A console for people: colours only on a terminal, `PIPED_WIDTH` columns when piped, text printed as it is.

    Neither markup nor emoji codes are interpreted, so a model's or a file's name cannot change the output.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fixed = os.environ.get("COLUMNS", "").isdigit() or stream.isatty()
    return Console(
        stderr=stderr, width=None if fixed else PIPED_WIDTH, highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def folded(out: Console, text: str, indent: str = "  ", *, margin: int = 0) -> None:
    """Print `text` folded to the width less `margin`; lines after the first stand two columns further in."""
    from textwrap import fill

    width, further = out.width - margin, indent + "  "
    out.print(fill(text, width, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False))


def table(*columns: str, right: tuple[str, ...] = (), title: str = "", wrap: tuple[str, ...] = ()) -> Table:
    """A table with the headings `columns`; those in `right` hold numbers, those in `wrap` long text that may wrap.

    Cells of the other columns stay on one line as long as there is room. Add rows with `table.add_row(...)` and print
    with `console().print`.
    """
    from rich.box import SIMPLE_HEAD

    from berth.show.fitted import FittedTable

    drawn = FittedTable(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_edge=False)
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=name not in wrap, overflow="fold")
    return drawn
