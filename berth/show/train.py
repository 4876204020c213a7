"""A training run as people watch it: a live table over the log on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from berth.output import console
from berth.show.lifecycle import lasting, moment, usd
from sizing.units import gib

if TYPE_CHECKING:
    from infra.lifecycle.final_bill import FinalBill
    from infra.lifecycle.follow import Look
    from infra.lifecycle.train_end import End

_STEP = "step "
"""How the trainer's own progress lines begin; the metrics say the same, and more."""


class Watcher(Protocol):
    """Who is told of each look, and of a sentence now and then."""

    def show(self, look: Look) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    """For `--json`: sentences go to stderr."""

    def show(self, look: Look) -> None:
        pass

    def say(self, line: str) -> None:
        typer.echo(line, err=True)


class Lines:
    """Plain lines: the machine's state where it changes, new lines of the log, and one for each new step."""

    def __init__(self) -> None:
        self._state, self._step = "", -1

    def show(self, look: Look) -> None:
        state = state_of(look)
        if state != self._state:
            self._state = state
            typer.echo(f"{look.moment:%H:%M:%S}  {state}")
        for line in look.log:
            if not line.startswith(_STEP):
                typer.echo(f"          {line}")
        if look.train is not None and int(look.train["step"]) > self._step:
            self._step = int(look.train["step"])
            typer.echo(
                f"{look.moment:%H:%M:%S}  {'  '.join(f'{name} {value}'.strip() for name, value in numbers(look))}"
            )

    def say(self, line: str) -> None:
        typer.echo(line)


class Drawn:
    """A table that is drawn anew with each look; what the log says stands above it."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def show(self, look: Look) -> None:
        from rich.table import Table

        for line in look.log:
            if not line.startswith(_STEP):
                self._live.console.print(line, soft_wrap=True)
        drawn = Table.grid(padding=(0, 2))
        drawn.add_column(style="dim")
        drawn.add_column()
        drawn.add_row("machine", state_of(look))
        for name, value in numbers(look):
            drawn.add_row(name or "step", value)
        self._live.update(drawn)

    def say(self, line: str) -> None:
        self._live.console.print(line, soft_wrap=True)


@contextmanager
def watching(quiet: bool) -> Iterator[Watcher]:
    """What fits the output: nothing for `--json`, a live table on a terminal, lines elsewhere."""
    if quiet:
        yield Silent()
        return
    out = console()
    if not out.is_terminal or out.is_dumb_terminal:
        yield Lines()
        return
    from rich.live import Live

    with Live(console=out, refresh_per_second=4, transient=True) as live:
        yield Drawn(live)


def state_of(look: Look) -> str:
    """The machines and what their watchdog says of them, in a line."""
    nodes = ", ".join(f"{node.id} {node.state}" for node in look.nodes) or "EC2 knows none any more"
    status = look.status
    if status is None:
        return f"{nodes}; its watchdog has not spoken yet"
    doing = {
        "watching": f"the job is {status.job.get('state', 'unknown')}",
        "stopping": f"the job was asked to save and stop ({status.reason})",
        "delivering": f"its work goes to S3 ({status.reason})",
        "ended": f"it halts ({status.reason})",
    }[status.phase]
    return f"{nodes}; {doing}"


def numbers(look: Look) -> list[tuple[str, str]]:
    """What is measured, by name; the step has none."""
    train, found = look.train, []
    if train is not None:
        found += [("", f"step {train['step']}/{train['steps']}"), ("loss", f"{float(train['loss']):.4f}")]
        if look.evaluation is not None:
            found.append(("validation loss", f"{float(look.evaluation['loss']):.4f}"))
        found.append(("tokens/s", f"{float(train['tokens_per_s']):,.0f}"))
        found.append(("memory", gib(float(train["memory_bytes"]))))
    found.append(("spent", "unpriced" if look.usd is None else usd(look.usd)))
    if look.left_s is not None:
        found.append(("left", _seconds(look.left_s)))
    if look.expires_at is not None:
        found.append(("expires", moment(look.expires_at)))
    return found


def _seconds(seconds: float) -> str:
    from datetime import timedelta

    return f"{seconds:.0f} s" if seconds < 60 else lasting(timedelta(seconds=seconds))


def show_end(end: End, option: str) -> None:
    """How the run ended, what it cost, what is left, what to do next. `option`: ` --sandbox`, or empty for AWS."""
    out = console()
    out.print("")
    for sentence in end.sentences:
        out.print(sentence, soft_wrap=True)
    if end.by:
        out.print(f"The node was destroyed by {end.by}.", soft_wrap=True)
    elif end.removal is not None:
        out.print(f"{len(end.removal.removed)} resources of {end.stack} were removed.")
        for left in end.removal.left:
            out.print(f"Left: {left.name} ({left.id}): {left.reason}", soft_wrap=True)
        if end.removal.left:
            out.print(f"`berth train --attach {end.stack}{option}` tries again to remove what is left.")
    if end.bill is not None:
        show_bill(end.bill, sandbox=bool(option))
    if (next_ := next_commands(end, option)) and end.clean:
        out.print("\nNext")
        for line in next_:
            out.print(f"  {line}", soft_wrap=True)


def show_bill(bill: FinalBill, *, sandbox: bool) -> None:
    from berth.output import table

    out = console()
    hours = f"{float(bill.hours):.2f} h"
    about = "" if bill.sure else "; when it ended is not known, so this is the most"
    whose = ", had it been AWS" if sandbox else ""
    out.print(
        f"\nFinal bill{whose}: {usd(bill.usd)} for {hours}, {moment(bill.since)} to {moment(bill.until)}{about}\n"
    )
    drawn = table("Resource", "Item", "USD/hour", "USD", "Price of", right=("USD/hour", "USD"), wrap=("Resource",))
    for line in bill.lines:
        drawn.add_row(line.resource, line.item, f"{line.usd_per_hour:,.4f}", usd(line.usd), line.as_of)
    if bill.lines:
        out.print(drawn)
    for entry in bill.unpriced:
        out.print(f"Unpriced: {entry}", soft_wrap=True)
    if bill.earlier:
        out.print(f"Earlier attempts of this run, not in the sum: {usd(bill.earlier)}", soft_wrap=True)
    for entry in bill.notes:
        out.print(f"Note: {entry}", soft_wrap=True)
    month = "unpriced" if bill.kept_usd_per_month is None else f"{usd(bill.kept_usd_per_month)} a month"
    out.print(f"Kept in S3: {gib(bill.kept_bytes)}, {month} until it is deleted")


def next_commands(end: End, option: str) -> list[str]:
    """What a person does after a run, by how it ended."""
    saved = end.verdict.saved
    if saved is not None and saved.artifact is not None:
        place = saved.artifact.location
        return [
            f"berth fetch {end.stack}{option} --out artifact",
            "berth evaluate artifact --data DATA --out evaluation    # the same data, of which it takes the test part",
            f"berth deploy STACK --artifact {place}{option}    # STACK: an inference or endpoint stack, to serve it",
        ]
    if saved is not None and saved.checkpoint is not None:
        return [f"berth train {end.stack}{option} --data DATA    # the same data: goes on from the checkpoint"]
    return []
