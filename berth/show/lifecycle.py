"""What the commands that make and remove stacks share: asking first, live progress, a word for money and time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from berth.output import console, folded

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from decimal import Decimal

    from infra.cloud import Cloud
    from infra.doctor.finding import Finding
    from infra.lifecycle.engine import Engine
    from infra.policy.subject import Violation
    from infra.steps import Step

NOT_DONE = 3
"""Exit code where something stands in the way, failed or is left."""


def may_ask(yes: bool, json_output: bool) -> None:
    """Raises `UserError` where the answer is needed and nobody is there to give it."""
    from sizing.errors import UserError

    if not yes and (json_output or not sys.stdin.isatty()):
        raise UserError("this asks before it acts, and nobody can answer here; give --yes to go ahead without asking")


def agreed(question: str, yes: bool, *, err: bool = False) -> bool:
    """What the person answers; no is the default. With `err` the question stands on stderr."""
    return yes or typer.confirm(question, default=False, err=err)


def open_engine(stack: str, sandbox: bool, *, yes: bool, json_output: bool, start: bool = False) -> Engine:
    """The engine that works on `stack`. Raises `UserError` for a stack that is not there, and as `may_ask` does.

    With `start` the sandbox is started where it does not run.
    """
    from infra.lifecycle.engine import engine_for
    from infra.stack_files import project_root, read_stack

    root = project_root()
    read_stack(stack, root)
    may_ask(yes, json_output)
    return engine_for(root, sandbox, start=start)


def open_cloud(stack: str, engine: Engine, sandbox: bool) -> Cloud:
    """AWS in the stack's region as `engine`'s project has it, or the sandbox."""
    from infra.cloud import cloud_for
    from infra.stack_files import read_stack

    return cloud_for(read_stack(stack, engine.project).region, sandbox)


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Tells each step on stderr: one bar with the newest on a terminal, a line each otherwise, nothing when quiet."""
    if quiet:
        yield lambda _step: None
        return
    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda step: typer.echo(step_line(step), err=True)
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


def step_line(step: Step) -> str:
    of = f"/{step.total}" if step.total else ""
    return f"  {step.number:>2}{of} {step.verb} {_named(step)}: {step.id}"


def _named(step: Step) -> str:
    from infra.lifecycle.engine import short_type

    return " ".join(filter(None, (short_type(step.type), step.name)))


def said_engine(engine: Engine, quiet: bool, *, whole: bool = False) -> None:
    """Say once which engine works; with `whole`, what it cannot do and how to get another."""
    if not quiet:
        typer.echo(f"Engine: {engine.name}. {engine.explain() if whole else ''}".strip())


def usd(amount: Decimal | None) -> str:
    """To the cent as an invoice rounds, half up; empty where there is no amount."""
    from infra.bill.lines import cents

    return "" if amount is None else f"${cents(amount):,.2f}"


def refusal(findings: Iterable[Finding], violations: Iterable[Violation]) -> None:
    """On stderr: the checks that fail, each with its fix, and the policies that refuse."""
    out = console(stderr=True)
    paragraph(out, "In the way", [f"{f.check}: {f.said}; {f.fix}" for f in findings])
    paragraph(out, "Refused by policy", [v.said for v in violations])


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
    if not lines:
        return
    out.print(f"\n{title}")
    for line in lines:
        folded(out, line, margin=2)
