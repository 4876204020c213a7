"""The published measurements, and what an estimate is when it is held against one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sizing.errors import UserError
from sizing.memory.terms import Metric
from sizing.units import GB, GIB

DATA = Path(__file__).parent / "data" / "measured_points.csv"
COLUMNS = (
    "task", "model", "params", "precision", "method", "gpus", "gpu_type", "batch", "seq_len", "setting",
    "measured_value", "unit", "source",
)  # fmt: skip

PointMetric = Metric | Literal["weights", "footprint", "allocated + context", "host"]
"""What the source measured. `footprint`: bytes of parameters alone; `allocated + context`: some scripts' "peak"."""


@dataclass(frozen=True, slots=True)
class Point:
    """One row of `measured_points.csv`, as text; `line` is its line in the file."""

    line: int
    task: str
    model: str
    params: str
    precision: str
    method: str
    gpus: str
    gpu_type: str
    batch: str
    seq_len: str
    setting: str
    measured_value: str
    unit: str
    source: str

    @property
    def group(self) -> str:
        """The source without its commit: rows of one source were measured by one script."""
        return self.source.split(";")[0].split("@")[0].split(" (")[0]

    @property
    def gpu_count(self) -> int:
        return int(self.gpus) if self.gpus.isdigit() else 1


@dataclass(frozen=True, slots=True)
class PointResult:
    """A point beside what was estimated for it. Sizes in bytes; `fits` rows carry booleans instead."""

    point: Point
    metric: str
    measured: float
    estimated: float
    rule_of_thumb: float
    weights_only: float
    group: str
    fits: bool | None = None
    """For a row about fitting: what was measured."""
    estimated_fits: bool | None = None
    note: str = ""
    others: tuple[tuple[str, float], ...] = ()
    """Further methods' figures for the same point: (name, bytes)."""

    @property
    def error(self) -> float:
        """Signed relative error of the estimate."""
        return self.estimated / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class OutOfScope:
    """A point that Berth makes no estimate for, and why."""

    point: Point
    reason: str


@cache
def points(path: Path = DATA) -> tuple[Point, ...]:
    """All rows of the file, in order. Raises `UserError` naming the line that cannot be read."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header is None or tuple(header) != COLUMNS:
            raise UserError(f"{path.name}: the first line must be {','.join(COLUMNS)}")
        rows = []
        for row in reader:
            if len(row) != len(COLUMNS):
                raise UserError(f"{path.name}, line {reader.line_num}: {len(row)} fields, not {len(COLUMNS)}")
            rows.append(Point(reader.line_num, *row))
        return tuple(rows)


def number(text: str) -> float | None:
    """The number that `text` is, or None."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


UNIT_BYTES: dict[str, float] = {
    "GiB": GIB,
    "GiB/GPU": GIB,
    "GiB total": GIB,
    "GB(1e9)": GB,
    "GB(1e9)/GPU": GB,
    "GB(GiB)": GIB,
    "MiB": 1 << 20,
    "bytes": 1,
}
"""Units that are unambiguous. "GB (as published)" is resolved per source from the script that measured it."""
