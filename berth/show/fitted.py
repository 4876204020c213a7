"""A table that loses nothing where the terminal is narrow: headings fold first, then cells; no number is cut short."""

from __future__ import annotations

from textwrap import fill

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

FLEXIBLE = 20
"""Columns that a cell of text which may wrap keeps at least, if it is that long, before headings are folded for it."""


class FittedTable(Table):
    """Rich's table, but where rich would cut cells that must not wrap (`0.4…`), room is made for them.

    Headings of more than one word are folded, those first that give most; what is still too wide then wraps its cells.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self._fit(console, options)
        yield from super().__rich_console__(console, options)

    def _fit(self, console: Console, options: ConsoleOptions) -> None:
        natural = Measurement.get(console, options.update(width=10_000), self).maximum
        widths = [_width(console, options, c) for c in self.columns]
        given_up = sum(max(0, w - FLEXIBLE) for c, w in zip(self.columns, widths, strict=True) if not c.no_wrap)
        excess = natural - given_up - options.max_width
        gains = sorted(
            (
                (w - _least(console, options, c), i)
                for i, (c, w) in enumerate(zip(self.columns, widths, strict=True))
                if c.no_wrap
            ),
            reverse=True,
        )
        for gain, i in gains:
            if excess <= 0 or gain <= 0:
                break
            taken = min(gain, excess)
            self.columns[i].header = fill(str(self.columns[i].header), widths[i] - taken, break_long_words=False)
            excess -= widths[i] - _width(console, options, self.columns[i])
        if excess > 0:
            for column in self.columns:
                column.no_wrap = False


def _cells(console: Console, options: ConsoleOptions, column: Column) -> int:
    wide = options.update(width=10_000)
    return max((Measurement.get(console, wide, cell).maximum for cell in column.cells), default=0)


def _width(console: Console, options: ConsoleOptions, column: Column) -> int:
    heading = max((len(line) for line in str(column.header).splitlines()), default=0)
    return max(heading, _cells(console, options, column))


def _least(console: Console, options: ConsoleOptions, column: Column) -> int:
    """The width of the cells and of the heading's longest word."""
    longest = max((len(word) for word in str(column.header).split()), default=0)
    return max(longest, _cells(console, options, column))
