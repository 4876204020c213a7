"""The catalogue's CSV files: their columns, and cells read with errors that name file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from sizing.errors import UserError

GROUPS: tuple[str, ...] = ("on_demand", "reserved", "savings_plan", "spot", "spot_advisor", "sagemaker")
"""Column groups of prices.csv; each is dated by its own `<group>_as_of` column."""

PRICE_GROUP: dict[str, str] = {
    "on_demand_usd_h": "on_demand",
    "reserved_1y_no_upfront_usd_h": "reserved",
    "reserved_1y_partial_upfront_usd_h": "reserved",
    "reserved_1y_all_upfront_usd_h": "reserved",
    "reserved_3y_no_upfront_usd_h": "reserved",
    "reserved_3y_partial_upfront_usd_h": "reserved",
    "reserved_3y_all_upfront_usd_h": "reserved",
    "convertible_1y_no_upfront_usd_h": "reserved",
    "convertible_3y_no_upfront_usd_h": "reserved",
    "savings_ec2_1y_no_upfront_usd_h": "savings_plan",
    "savings_ec2_3y_no_upfront_usd_h": "savings_plan",
    "savings_compute_1y_no_upfront_usd_h": "savings_plan",
    "savings_compute_3y_no_upfront_usd_h": "savings_plan",
    "savings_ec2_1y_page_usd_h": "savings_plan",
    "savings_ec2_3y_page_usd_h": "savings_plan",
    "spot_usd_h": "spot",
    "spot_min_usd_h": "spot",
    "spot_max_usd_h": "spot",
    "sagemaker_hosting_usd_h": "sagemaker",
    "sagemaker_training_usd_h": "sagemaker",
    "sagemaker_any_usd_h": "sagemaker",
}
"""Rate columns and their group. Upfront rates are effective: (upfront / hours of the term) + hourly."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "accelerators.csv": (
        "name",
        "vendor",
        "memory_mib_api",
        "memory_mib_nvidia_smi",
        "compute_capability",
        "bf16",
        "bandwidth_gb_s",
        "tflops_16bit_dense",
        "as_of",
        "source",
    ),
    "instances.csv": (
        "instance_type",
        "vcpus",
        "memory_gib",
        "gpu",
        "gpu_count",
        "gpu_memory_mib",
        "gpu_memory_gib_brochure",
        "local_nvme_gb",
        "network_gbps",
        "network_baseline_gbps",
        "network_performance",
        "efa",
        "gpu_link",
        "usage_classes",
        "arch",
        "as_of",
        "source",
    ),
    "prices.csv": (
        "instance_type",
        "region",
        *PRICE_GROUP,
        "spot_advisor_savings_pct",
        "spot_interruption",
        *(f"{group}_as_of" for group in GROUPS),
        "source",
    ),
    "offerings.csv": ("instance_type", "region", "az_count", "az_ids", "as_of", "source"),
    "capacity_blocks.csv": ("instance_type", "region", "usd_h", "accelerator_usd_h", "as_of", "note", "source"),
}
"""The columns of every file, in order. A file with other columns is refused."""

_dates: set[str] = set()
"""Dates found good: a file has few, many times over."""
K = TypeVar("K")
V = TypeVar("V")
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

    def positive(self, column: str) -> float:
        """The cell as a number > 0, which must be there."""
        number = self.number(column)
        if number is None:
            raise self.error(column, "is empty")
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


def read_rows(path: Path, hint: str = "", without_regions: Collection[str] = ()) -> list[Row]:
    """The rows of one of the catalogue's files, its columns checked; those of `without_regions` left out.

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
    rows = list(_rows(path, text, hint, without_regions))
    if not rows and not without_regions:
        raise UserError(f"{path} has a header but no rows{hint}")
    return rows


def _rows(path: Path, text: str, hint: str, without_regions: Collection[str]) -> Iterator[Row]:
    columns = COLUMNS[path.name]
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


def keyed(rows: list[Row], key: Callable[[Row], K], value: Callable[[Row], V], column: str) -> dict[K, V]:
    """Rows as a dict; a key that comes twice is refused at its second line, `column`."""
    found: dict[K, V] = {}
    for row in rows:
        k = key(row)
        if k in found:
            name = " in ".join(str(part) for part in k) if isinstance(k, tuple) else k
            raise row.error(column, f"{name} comes a second time")
        found[k] = value(row)
    return found
