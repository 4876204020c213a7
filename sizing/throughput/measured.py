"""Published speeds beside the estimate: `measured.csv`, one line a measurement, with its source.

Lines of the split `calibrate` gave the likely constants in `engines.csv`; lines of `check` come from other sources (or,
where an engine has one source, other models) and set none of them. `docs/throughput.md` shows both.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from statistics import median
from typing import Literal, cast

from sizing.models.catalogue import load_catalogue
from sizing.throughput.device import PCIE_BYTES_PER_S, Device
from sizing.throughput.ranges import Pace
from sizing.throughput.roofline import Asked, Split, speed_at
from sizing.throughput.tables import FOLDER
from sizing.throughput.work import work_of

_A100_LINK = 300e9
"""One direction of the A100's NVLink, bytes/s: every fast link in the table is one."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A published speed, and the same as estimated; both in milliseconds an output token of the whole batch."""

    split: Literal["calibrate", "check"]
    engine: str
    model: str
    dtype: str
    gpus: int
    gpu: str
    batch: int
    measured_ms: float
    likely_ms: float
    fast_ms: float
    slow_ms: float
    source: str

    @property
    def error(self) -> float:
        """Estimated over measured time, less one: positive when the estimate is too slow."""
        return self.likely_ms / self.measured_ms - 1.0

    @property
    def within(self) -> bool:
        """Whether the measurement lies in the estimate's range."""
        return self.fast_ms <= self.measured_ms <= self.slow_ms


def measurements() -> tuple[Measurement, ...]:
    """Every line of `measured.csv` whose model the catalogue has."""
    catalogue = load_catalogue()
    with (FOLDER / "measured.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in catalogue]
    return tuple(_measurement(row) for row in rows)


def median_error(found: list[Measurement]) -> float:
    """Median of the absolute errors."""
    return median(abs(m.error) for m in found)


def _measurement(row: dict[str, str]) -> Measurement:
    return Measurement(
        split=cast(Literal["calibrate", "check"], row["split"]),
        engine=row["engine"],
        model=row["model"],
        dtype=row["dtype"],
        gpus=int(row["gpus"]),
        gpu=row["gpu"],
        batch=int(row["batch"]),
        measured_ms=_milliseconds(row, float(row["value"])),
        likely_ms=_estimated(row, "likely"),
        fast_ms=_estimated(row, "fast"),
        slow_ms=_estimated(row, "slow"),
        source=row["source"],
    )


def _milliseconds(row: dict[str, str], value: float) -> float:
    """A published figure as milliseconds that the batch takes for one output token of each of its requests."""
    batch, output = int(row["batch"]), int(row["output_tokens"])
    return {
        "ms_per_step": value,
        "ms_per_token": value * batch,
        "tokens_per_s": batch / value * 1e3,
        "decode_tokens_per_s": batch / value * 1e3,
        "requests_per_s": batch / value / output * 1e3,
    }[row["quantity"]]


def _estimated(row: dict[str, str], pace: Pace) -> float:
    fast_link = row["nvlink"] == "yes"
    device = Device(
        row["gpu"],
        float(row["bandwidth_gb_s"]) * 1e9,
        float(row["tflops_16bit"]) * 1e12,
        float(row["tflops_fp32"]) * 1e12,
        _A100_LINK if fast_link else PCIE_BYTES_PER_S,
        fast_link,
    )
    output = int(row["output_tokens"])
    asked = Asked(
        row["dtype"], row["engine"], int(row["input_tokens"]), output, int(row["gpus"]), cast(Split, row["way"])
    )
    work = work_of(load_catalogue()[row["model"]], row["dtype"])
    speed = speed_at(work, asked, device, int(row["batch"]), pace)
    whole = row["quantity"] in ("tokens_per_s", "ms_per_token", "requests_per_s")
    return (speed.total / output if whole else speed.step) * 1e3
