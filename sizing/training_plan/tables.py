"""The constants of training time: `mfu.csv`, `constants.csv`, each line with its source."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

from sizing.errors import UserError
from sizing.tables import Row, read_rows
from sizing.throughput.ranges import Pace, Range

FOLDER = Path(__file__).parent
COLUMNS: dict[str, tuple[str, ...]] = {
    "constants.csv": ("constant", "fast", "likely", "slow", "unit", "how", "source", "as_of"),
    "mfu.csv": ("gpu", "architecture", "method", "precision", "low", "likely", "high", "how", "source", "as_of"),
}
HOW = ("fit", "published", "assumed")
Width = Literal["16bit", "fp32"]


@dataclass(frozen=True, slots=True)
class Constants:
    """How fast everything but matrix products goes, at one pace. Each with its source in `constants.csv`."""

    layer_seconds: float
    zero_layer_seconds: float
    quantized_layer_seconds: float
    unpack_efficiency: float
    bandwidth_efficiency: float
    nvlink_efficiency: float
    pcie_efficiency: float
    network_efficiency: float
    overlap: float
    host_copy_bytes_per_s: float
    cpu_optimizer_params_per_s: float
    warm_up_seconds: float
    evaluation_share: float
    step_overhead: float
    upload_bytes_per_s: float


@cache
def rows_of(name: str, folder: Path = FOLDER) -> tuple[Row, ...]:
    """The rows of a table, each with its source and date. Raises `UserError` with the line for one that is damaged."""
    found = tuple(read_rows(folder / name, COLUMNS[name]))
    for row in found:
        row.text("source")
        row.date("as_of")
        if row.text("how") not in HOW:
            raise row.error("how", f"'{row.text('how')}' is none of {', '.join(HOW)}")
    return found


@cache
def constants(pace: Pace = "likely", folder: Path = FOLDER) -> Constants:
    """The constants at `pace`. Raises `UserError` where the table is damaged, or has too many or too few."""
    found = {row.text("constant"): row.given(pace) for row in rows_of("constants.csv", folder)}
    wanted = {f.name for f in fields(Constants)}
    if wanted != set(found):
        raise UserError(f"constants.csv has {', '.join(sorted(wanted ^ set(found)))} too many or too few")
    return Constants(**found)


@dataclass(frozen=True, slots=True)
class Mfu:
    """Share of a GPU's published dense throughput that executed operations reach, recomputed ones included, with
    where it comes from: `fit` to measurements, `published`, or `assumed`."""

    share: Range
    how: str
    source: str

    def at(self, pace: Pace) -> float:
        return {"fast": self.share.high, "likely": self.share.likely, "slow": self.share.low}[pace]


@cache
def mfu(gpu: str, architecture: str, method: str, width: Width, folder: Path = FOLDER) -> Mfu:
    """The most specific line of `mfu.csv` for a GPU, an architecture and a method; `*` in the table matches all."""
    asked = {"gpu": gpu, "architecture": architecture, "method": method, "precision": width}
    best: tuple[tuple[bool, ...], Row] | None = None
    for row in rows_of("mfu.csv", folder):
        if any(row.text(key) not in ("*", value) for key, value in asked.items()):
            continue
        rank = tuple(row.text(key) != "*" for key in asked)
        if best is None or rank > best[0]:
            best = rank, row
    if best is None:
        raise UserError(f"mfu.csv has no line for {gpu}, {architecture}, {method}, {width}")
    row = best[1]
    low, likely, high = (row.positive(name) for name in ("low", "likely", "high"))
    if not low <= likely <= high <= 1:
        raise row.error("likely", "low, likely and high must rise and be shares of at most 1")
    return Mfu(Range(low, likely, high), row.text("how"), row.text("source"))


def mfu_rows() -> tuple[dict[str, str], ...]:
    """Every line of `mfu.csv`, for the page that shows them."""
    return tuple(row.cells for row in rows_of("mfu.csv"))


def constant_rows() -> tuple[dict[str, str], ...]:
    """Every line of `constants.csv`, for the page that shows them."""
    return tuple(row.cells for row in rows_of("constants.csv"))
