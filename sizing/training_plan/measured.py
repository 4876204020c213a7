"""Published training times beside the estimate: `measured.csv`, one line a measurement, with its source.

Lines of the split `calibrate` gave likely constants; lines of `check` come from other sources or other machines and set
none. `docs/training-time.md` shows both.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from statistics import median
from typing import Literal, cast

from sizing.dtypes import dtype
from sizing.memory.training.setup import Method, Offload, TrainingSetup
from sizing.memory.training.trained import trained_numel
from sizing.models.catalogue import load_catalogue
from sizing.throughput.device import PCIE_BYTES_PER_S, Device
from sizing.throughput.ranges import Pace
from sizing.training_plan.passes import passes_of
from sizing.training_plan.speed import Cluster, Way, step_time, unpacks
from sizing.training_plan.tables import FOLDER

_SECONDS = {"s": 1.0, "minutes": 60.0, "hours": 3600.0}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A published time, in seconds of one optimizer step, and the same as estimated."""

    split: Literal["calibrate", "check"]
    model: str
    method: str
    gpu: str
    gpus: int
    strategy: str
    micro_batch: int
    tokens: str
    published: str
    measured_s: float
    likely_s: float
    fast_s: float
    slow_s: float
    point: str
    source: str
    note: str

    @property
    def error(self) -> float:
        """Estimated over measured time, less one: positive when the estimate is too slow."""
        return self.likely_s / self.measured_s - 1.0

    @property
    def within(self) -> bool:
        """Whether the measurement lies in the estimate's range."""
        return self.fast_s <= self.measured_s <= self.slow_s


def measurements() -> tuple[Measurement, ...]:
    """Every line of `measured.csv`. The catalogue has all of its models."""
    catalogue = load_catalogue()
    with (FOLDER / "measured.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_measurement(row, catalogue[row["model"]]) for row in csv.DictReader(file))


def median_error(group: list[Measurement]) -> float:
    """Median of the absolute relative errors."""
    return median(abs(m.error) for m in group)


def _measurement(row: dict[str, str], model: object) -> Measurement:
    from sizing.models.facts import ModelFacts

    facts = cast(ModelFacts, model)
    gpus, micro, accumulation = int(row["gpus"]), int(row["micro_batch"]), int(row["accumulation"])
    tokens, target = int(row["input_tokens"]), int(row["output_tokens"])
    link = float(row["nvlink_gb_s"]) * 1e9 / 2 if row["nvlink_gb_s"] else PCIE_BYTES_PER_S
    device = Device(
        row["gpu"],
        float(row["bandwidth_gb_s"]) * 1e9,
        float(row["tflops_16bit"]) * 1e12,
        float(row["tflops_fp32"]) * 1e12,
        link,
        bool(row["nvlink_gb_s"]),
    )
    width: Literal["16bit", "fp32"] = "fp32" if row["precision"] == "fp32" else "16bit"
    base = dtype(row["base"] or row["precision"])
    way = Way(
        method=row["method"],
        architecture=facts.architecture,
        width=width,
        zero_stage=int(row["zero"]),
        offload=cast(Offload, row["offload"]),
        checkpointing=row["checkpointing"] == "yes",
        micro_batch=micro,
        accumulation=accumulation,
        base_bytes=base.weight_bytes,
        trained=float(trained_numel(facts, TrainingSetup(method=cast(Method, row["method"])))),
        unpacks=unpacks(base),
    )
    passes, cluster = passes_of(facts), Cluster(device, gpus)

    def seconds(pace: Pace) -> float:
        return step_time(passes, way, cluster, tokens, target, pace).total

    sequences = micro * accumulation * gpus
    return Measurement(
        split=cast(Literal["calibrate", "check"], row["split"]),
        model=facts.name,
        method=row["method"] + (f" over {row['base']}" if row["base"] else ""),
        gpu=row["gpu"],
        gpus=gpus,
        strategy=_strategy(row),
        micro_batch=micro,
        tokens=f"{tokens}" + (f" + {target}" if target else ""),
        published=f"{row['value']} {row['quantity'].replace('_', ' ')}",
        measured_s=step_seconds(row["quantity"], float(row["value"]), sequences, tokens + target),
        likely_s=seconds("likely"),
        fast_s=seconds("fast"),
        slow_s=seconds("slow"),
        point=row["point"],
        source=row["source"],
        note=row["note"],
    )


def _strategy(row: dict[str, str]) -> str:
    way = f"ZeRO-{row['zero']}" if row["zero"] != "0" else ("DDP" if row["gpus"] != "1" else "one GPU")
    if row["offload"] != "none":
        way += f", offload {row['offload']}"
    return way + (", recomputed" if row["checkpointing"] == "yes" else "")


def step_seconds(quantity: str, value: float, sequences: int, tokens: int) -> float:
    """A published figure as seconds of one optimizer step over `sequences` of `tokens` each.

    `s_per_step`, `tokens_per_s` (all GPUs), `hours_for_N_sequences` (also s, minutes), `gpu_hours_for_N_sequences`.
    """
    if quantity == "s_per_step":
        return value
    if quantity == "tokens_per_s":
        return sequences * tokens / value
    unit, _, rest = quantity.removeprefix("gpu_").partition("_for_")
    return value * _SECONDS[unit] * sequences / int(rest.removesuffix("_sequences"))
