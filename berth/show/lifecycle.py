"""What the commands that make and remove stacks share: asking first, live progress, a word for money and time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from berth.output import console

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from decimal import Decimal

    from infra.lifecycle.engine import Engine, Step

NOT_DONE = 3
"""Exit code where something stands in the way, failed or is left."""

SANDBOX_HELP = "On the local AWS (moto): no account, no cost."
YES_HELP = "Do not ask. Needed where nobody can answer, as in a script."


def may_ask(yes: bool, json_output: bool) -> None:
    """Raises `UserError` where the answer is needed and nobody is there to give it."""
    from sizing.errors import UserError

    if not yes and (json_output or not sys.stdin.isatty()):
        raise UserError("this asks before it acts, and nobody can answer here; give --yes to go ahead without asking")


def agreed(question: str, yes: bool) -> bool:
    """What the person answers; no is the default."""
    return yes or typer.confirm(question, default=False)


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Tells each step on stderr: one bar with the newest on a terminal, a line each otherwise, nothing when quiet."""
    if quiet:
        yield lambda _step: None
        return
    err = console(stderr=True)
    if not err.is_terminal:
        yield _line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    named = TextColumn(
        "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), named)
    with Progress(*columns, console=err, expand=True) as bars:
        task = bars.add_task("", total=None)

        def draw(step: Step) -> None:
            bars.update(
                task, completed=step.number, total=step.total or None, description=f"{step.verb} {_named(step)}"
            )

        yield draw


def _line(step: Step) -> None:
    of = f"/{step.total}" if step.total else ""
    typer.echo(f"  {step.number:>2}{of} {step.verb} {_named(step)}: {step.id}", err=True)


def _named(step: Step) -> str:
    from infra.lifecycle.engine import short_type

    return " ".join(filter(None, (short_type(step.type), step.name)))


def said_engine(engine: Engine, quiet: bool, *, whole: bool = False) -> None:
    """Say once which engine works; with `whole`, what it cannot do and how to get another."""
    if not quiet:
        typer.echo(f"Engine: {engine.name}. {engine.explain() if whole else ''}".strip())


def usd(amount: Decimal) -> str:
    """To the cent as an invoice rounds."""
    from infra.bill.lines import cents

    return f"${cents(amount):,.2f}"


def usd_an_hour(amount: Decimal) -> str:
    return f"${amount:,.4f} an hour"


def moment(when: datetime | None) -> str:
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"


def lasting(span: timedelta) -> str:
    """3 d 4 h, 4 h 5 min, 12 min."""
    minutes = int(span.total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def paragraph(out: Any, title: str, lines: list[str]) -> None:
    """A title and its lines, folded to the width; nothing where there are none."""
    from textwrap import fill

    if not lines:
        return
    out.print(f"\n{title}")
    for line in lines:
        out.print(fill(line, out.width - 2, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
