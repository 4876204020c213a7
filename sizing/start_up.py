"""How long a machine takes from launch to its first answer: boot, image, model, memory.

Every constant stands in `start_up.csv` with its source; what could not be sourced says so there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sizing.errors import UserError
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts
from sizing.tables import REINSTALL, Row, read_rows
from sizing.throughput.ranges import PACES, Pace, Range, ordered

_TABLE = Path(__file__).parent / "start_up.csv"
COLUMNS = ("step", "constant", "fast", "likely", "slow", "unit", "source", "as_of")
_STORED_BYTES = {"fp32": 4.0, "float32": 4.0}


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds by step. The steps follow one another: nothing is downloaded before the machine has booted."""

    boot: Range
    image: Range
    download: Range
    load: Range

    @property
    def total(self) -> Range:
        steps = (self.boot, self.image, self.download, self.load)
        return Range(sum(s.low for s in steps), sum(s.likely for s in steps), sum(s.high for s in steps))

    def to_json(self) -> dict[str, Any]:
        return {
            "boot_s": self.boot.to_json(0),
            "image_pull_s": self.image.to_json(0),
            "model_download_s": self.download.to_json(0),
            "model_load_s": self.load.to_json(0),
            "total_s": self.total.to_json(0),
        }


@cache
def _constants() -> dict[tuple[str, str], Row]:
    return {(row.text("step"), row.text("constant")): row for row in read_rows(_TABLE, COLUMNS)}


def constant(step: str, name: str, pace: Pace = "likely") -> float:
    """A constant of `start_up.csv`, in the unit of its column. Raises `UserError` where the file is damaged."""
    row = _constants().get((step, name))
    if row is None:
        raise UserError(f"{_TABLE} lacks {name} of {step}{REINSTALL}")
    return row.positive(pace)


def checkpoint_bytes(model: ModelFacts) -> float:
    """Bytes of the published checkpoint: as stored where known, else parameters in the published dtype (or 16 bit)."""
    if model.stored_bytes:
        return float(model.stored_bytes)
    return model.params * _STORED_BYTES.get(model.published_dtype, 2.0)


def start_up(model: ModelFacts, instance: InstanceType) -> StartUp:
    """From `RunInstances` to the first answer on a fresh `instance`, with the model in S3 of the same region."""
    size = checkpoint_bytes(model)
    gbps = instance.network_baseline_gbps or instance.network_gbps
    network = None if gbps is None else gbps * 1e9 / 8

    def spread(seconds: dict[Pace, float]) -> Range:
        return ordered((seconds["fast"], seconds["likely"], seconds["slow"]))

    def download_rate(pace: Pace) -> float:
        rates = [constant("model", "bytes_per_s", pace)]
        if network is not None:
            rates.append(network)
        if not instance.local_nvme_gb:
            rates.append(constant("disk", "bytes_per_s", pace))
        return min(rates)

    return StartUp(
        boot=spread({p: constant("boot", "seconds", p) for p in PACES}),
        image=spread({p: constant("image", "bytes", p) / constant("image", "bytes_per_s", p) for p in PACES}),
        download=spread({p: size / download_rate(p) for p in PACES}),
        load=spread({p: size / constant("load", "bytes_per_s", p) for p in PACES}),
    )
