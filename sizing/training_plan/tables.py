"""The constants of training time: `mfu.csv`, `constants.csv`, each line with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

from sizing.errors import UserError
from sizing.throughput.ranges import Pace, Range

FOLDER = Path(__file__).parent
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
def _rows(name: str) -> tuple[dict[str, str], ...]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def constants(pace: Pace = "likely") -> Constants:
    """The constants at `pace`. Raises `UserError` where the table has too many or too few."""
    found = {row["constant"]: float(row[pace]) for row in _rows("constants.csv")}
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
def mfu(gpu: str, architecture: str, method: str, width: Width) -> Mfu:
    """The most specific line of `mfu.csv` for a GPU, an architecture and a method; `*` in the table matches all."""
    asked = {"gpu": gpu, "architecture": architecture, "method": method, "precision": width}
    best: tuple[tuple[bool, ...], dict[str, str]] | None = None
    for row in _rows("mfu.csv"):
        if any(row[key] not in ("*", value) for key, value in asked.items()):
            continue
        rank = tuple(row[key] != "*" for key in asked)
        if best is None or rank > best[0]:
            best = rank, row
    if best is None:
        raise UserError(f"mfu.csv has no line for {gpu}, {architecture}, {method}, {width}")
    row = best[1]
    return Mfu(Range(float(row["low"]), float(row["likely"]), float(row["high"])), row["how"], row["source"])


def mfu_rows() -> tuple[dict[str, str], ...]:
    """Every line of `mfu.csv`, for the page that shows them."""
    return _rows("mfu.csv")


def constant_rows() -> tuple[dict[str, str], ...]:
    """Every line of `constants.csv`, for the page that shows them."""
    return _rows("constants.csv")
