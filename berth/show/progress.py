"""How far a long command is: a bar a stage on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from berth.output import console
from model_runtime.progress import Lines, Progress, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress on stderr, so that stdout holds the result alone."""
    err = console(stderr=True)
    if err.is_terminal:
        with drawn(err) as bars:
            yield bars
    else:
        yield Lines(lambda text: typer.echo(text, err=True))


@contextmanager
def drawn(terminal: Console) -> Iterator[Progress]:
    """Progress as bars on `terminal`."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    label, done = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[done]"))
    with Bars(label, BarColumn(24), done, TimeElapsedColumn(), console=terminal) as bars:
        stages = _Drawn(bars)
        yield stages
        stages.end()


class _Drawn:
    """One bar a stage; the bar of a stage that has ended stays, full."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._total: int | None = None
        self._unit, self._done = "", 0

    def begin(self, label: str, total: int | None = None, unit: str = "requests") -> None:
        self.end()
        self._total, self._unit, self._done = total, unit, 0
        self._task = self._bars.add_task(label, total=total, done=self._told())

    def advance(self, by: int = 1) -> None:
        self._done += by
        if self._task is not None:
            self._bars.update(self._task, completed=self._done, done=self._told())

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """The stage that runs, if any, is done: one of unknown length stops turning."""
        if self._task is not None and self._total is None:
            self._bars.update(self._task, total=1, completed=1)
        if self._task is not None:
            self._bars.stop_task(self._task)

    def _told(self) -> str:
        if not self._total or self._total == 1:
            return ""
        if self._unit == "bytes":
            return f"{size(self._done)} of {size(self._total)}"
        return f"{self._done:,}/{self._total:,}"
