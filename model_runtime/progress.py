"""Who is told how far long work is: a terminal with bars, a log with lines, nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Say = Callable[[str], None]
Bytes = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes wanted, from several threads, one at a time."""
SHARES = 10
"""Lines of a log about one download: one a tenth."""
LEAST_BYTES = 64 << 20
"""Less than this is there in a second or two, and nobody is told of it."""


class Progress(Protocol):
    """Stages one after another, and lines that stay."""

    def begin(self, label: str, total: int | None = None, unit: str = "requests") -> None:
        """A stage of `total` of `unit` starts (None: nobody knows how many); the one before it is done."""

    def advance(self, by: int = 1) -> None:
        """So much more of the stage is done."""

    def note(self, text: str) -> None:
        """A line that stays, as a result does."""


class Lines:
    """A plain line a stage and a note; of bytes also one a tenth, for they take longest."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._label, self._total, self._done, self._unit = "", 0, 0, ""

    def begin(self, label: str, total: int | None = None, unit: str = "requests") -> None:
        self._label, self._total, self._done, self._unit = label, total or 0, 0, unit
        if self._total <= 1:
            self._say(label)
        elif unit == "bytes":
            self._say(f"{label} ({size(self._total)})")
        else:
            self._say(f"{label} ({self._total:,} {unit})")

    def advance(self, by: int = 1) -> None:
        before, self._done = self._done, self._done + by
        if self._unit != "bytes" or not self._total:
            return
        if before * SHARES // self._total < (tenth := self._done * SHARES // self._total) < SHARES:
            self._say(f"{self._label}: {tenth * 100 // SHARES} % of {size(self._total)}")

    def note(self, text: str) -> None:
        self._say(text)


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws bars of its own, into logs as well; not within this."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def downloading(progress: Progress, what: str, least: int = LEAST_BYTES) -> Bytes:
    """Tells `progress` of a download of `what`, whose size is known when its first bytes are; not of a small one."""
    there: int | None = None

    def told(have: int, wanted: int) -> None:
        nonlocal there
        if wanted < least:
            return
        if there is None:
            there = 0
            progress.begin(f"fetching and checking {what}", wanted, "bytes")
        progress.advance(have - there)
        there = have

    return told


def size(count: int) -> str:
    """Bytes in binary units, for a person."""
    for unit, step in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << step:
            return f"{count / (1 << step):.1f} {unit}"
    return f"{count} bytes"
