"""How far a long command is: a bar a stage on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

from berth.output import console


class Progress(Protocol):
    """Who is told how far a command is."""

    def begin(self, label: str, total: int) -> None:
        """A stage of `total` steps starts; the one before it is done."""

    def advance(self) -> None:
        """One step of the stage is done."""


class _Lines:
    """One plain line a stage, for logs and pipes."""

    def begin(self, label: str, total: int) -> None:
        typer.echo(label if total == 1 else f"{label} ({total} requests)", err=True)

    def advance(self) -> None:
        pass


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress on stderr, so that stdout holds the result alone."""
    err = console(stderr=True)
    if not err.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    bars = Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err)

    class Drawn:
        def begin(self, label: str, total: int) -> None:
            self.task = bars.add_task(label, total=total)

        def advance(self) -> None:
            bars.advance(self.task)

    with bars:
        yield Drawn()
