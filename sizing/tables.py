"""Tables that Berth ships or keeps as CSV: read whole, with errors that name file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sizing.errors import UserError

REINSTALL = "; reinstalling Berth restores it"
"""What to do about a damaged file of Berth's own."""

_dates: set[str] = set()
"""Dates found good: a file has few, many times over."""
_DATE = re.compile(r"(?:19|20)[0-9]{2}(?:-(?:0[1-9]|1[0-2])(-[0-9]{2})?)?\Z")


@dataclass(slots=True)
class Row:
    """One line of a file. Empty cells are unknown: text "" and number None.

    Not frozen, though never changed: thousands are made at every start, and a frozen one takes thrice as long.
    """

    path: Path
    line: int
    cells: dict[str, str]
    hint: str = ""

    def error(self, column: str, problem: str) -> UserError:
        return UserError(f"{self.path}, line {self.line}, column {column}: {problem}{self.hint}")

    def text(self, column: str) -> str:
        """The cell, which must not be empty."""
        value = self.cells[column]
        if not value.strip():
            raise self.error(column, "is empty")
        return value

    def number(self, column: str) -> float | None:
        """The cell as a finite number >= 0; None where empty."""
        value = self.cells[column]
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            raise self.error(column, f"'{value}' is not a number") from None
        if not math.isfinite(number):
            raise self.error(column, f"'{value}' is not a finite number")
        if number < 0:
            raise self.error(column, f"{value} is negative")
        return number

    def given(self, column: str) -> float:
        """The cell as a finite number >= 0, which must be there."""
        number = self.number(column)
        if number is None:
            raise self.error(column, "is empty")
        return number

    def positive(self, column: str) -> float:
        """The cell as a number > 0, which must be there."""
        number = self.given(column)
        if number == 0:
            raise self.error(column, "must be more than 0")
        return number

    def rate(self, column: str) -> float | None:
        """The cell as US dollars an hour; None where unpriced. 0 is refused: no machine is free."""
        number = self.number(column)
        if number == 0:
            raise self.error(column, "0 is no price; leave the cell empty where the price is unknown")
        return number

    def integer(self, column: str) -> int | None:
        number = self.number(column)
        if number is None:
            return None
        if number != int(number):
            raise self.error(column, f"{self.cells[column]} is not a whole number")
        return int(number)

    def flag(self, column: str) -> bool | None:
        """yes, no, or None where empty."""
        value = self.cells[column]
        if value not in ("yes", "no", ""):
            raise self.error(column, f"'{value}' is neither yes, no nor empty")
        return None if not value else value == "yes"

    def date(self, column: str) -> str:
        """The cell as YYYY, YYYY-MM, YYYY-MM-DD or words that begin with `undated`; must be there."""
        value = self.text(column)
        if value in _dates:
            return value
        dated = _DATE.match(value)
        if not (dated and (not dated[1] or _is_day(value))) and not value.startswith("undated"):
            raise self.error(column, f"'{value}' is neither a date (2026-07-20, 2026-07, 2026) nor 'undated …'")
        _dates.add(value)
        return value


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def read_rows(
    path: Path, columns: tuple[str, ...], hint: str = REINSTALL, without_regions: Collection[str] = ()
) -> list[Row]:
    """The rows of a file that must have exactly these columns; those of `without_regions` (column `region`) left out.

    Raises `UserError` on anything damaged: one line that names the place and ends with `hint`, what to do about it.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing{hint}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}{hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: byte {error.start} is not UTF-8 text{hint}") from None
    if not text.strip():
        raise UserError(f"{path} is empty{hint}")
    if not text.endswith("\n"):
        raise UserError(f"{path} is cut off: its last line has no end{hint}")
    rows = list(_rows(path, text, columns, hint, without_regions))
    if not rows and not without_regions:
        raise UserError(f"{path} has a header but no rows{hint}")
    return rows


def _rows(
    path: Path, text: str, columns: tuple[str, ...], hint: str, without_regions: Collection[str]
) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = tuple(next(reader))
        if header != columns:
            missing = [c for c in columns if c not in header]
            extra = [c for c in header if c not in columns]
            problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(extra) or 'order'}"
            raise UserError(f"{path}, line 1: the header {problem}{hint}")
        region = columns.index("region") if "region" in columns else 0
        for cells in reader:
            if len(cells) != len(columns):
                found = f"{len(cells)} cells where the header has {len(columns)}"
                raise UserError(f"{path}, line {reader.line_num}: {found}{hint}")
            if cells[region] in without_regions:
                continue
            yield Row(path, reader.line_num, dict(zip(columns, cells, strict=True)), hint)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}{hint}") from None
