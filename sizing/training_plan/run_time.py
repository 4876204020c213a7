"""How long a whole run takes, phase by phase: from `RunInstances` to the last byte of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizing.start_up import StartUp
from sizing.throughput.ranges import PACES, Range, ordered
from sizing.training_plan.passes import Passes, forward_passes
from sizing.training_plan.speed import Cluster, StepTime, Way, step_time
from sizing.training_plan.tables import constants


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds by phase; they follow one another. `step` is one optimizer step at the likely pace."""

    boot: Range
    image: Range
    download: Range
    load: Range
    warm_up: Range
    training: Range
    evaluation: Range
    upload: Range
    step: StepTime

    @property
    def phases(self) -> dict[str, Range]:
        return {
            "boot": self.boot,
            "image_pull": self.image,
            "model_download": self.download,
            "model_load": self.load,
            "warm_up": self.warm_up,
            "training": self.training,
            "evaluation": self.evaluation,
            "checkpoint_upload": self.upload,
        }

    @property
    def total(self) -> Range:
        phases = self.phases.values()
        return Range(sum(p.low for p in phases), sum(p.likely for p in phases), sum(p.high for p in phases))

    @property
    def hours(self) -> Range:
        total = self.total
        return Range(total.low / 3600, total.likely / 3600, total.high / 3600)

    def to_json(self) -> dict[str, Any]:
        step = self.step
        return {
            "hours": self.hours.to_json(3),
            "seconds": {name: phase.to_json(0) for name, phase in self.phases.items()},
            "step_s": {
                "total": round(step.total, 4),
                "compute": round(step.compute, 4),
                "launch": round(step.launch, 4),
                "communication": round(step.communication, 4),
                "host": round(step.host, 4),
                "optimizer": round(step.optimizer, 4),
                "hidden": round(step.hidden, 4),
            },
        }


def run_time(
    start: StartUp,
    passes: Passes,
    way: Way,
    cluster: Cluster,
    tokens: tuple[float, float],
    steps: int,
    checkpoint_bytes: float,
) -> RunTime:
    """The phases of a run of `steps` optimizer steps after a machine's `start`; `checkpoint_bytes` are sent at its end.

    `tokens`: input and target tokens of a sequence as padded.
    Evaluation is a loss alone over a share of the examples (`constants.csv`): a forward pass each.
    """
    by_pace = {p: step_time(passes, way, cluster, *tokens, p) for p in PACES}
    runs = forward_passes(way.method, way.checkpointing)

    def spread(seconds: list[float]) -> Range:
        low, likely, high = seconds
        return ordered((low, likely, high))

    def each(what: str) -> list[float]:
        return [float(getattr(constants(p), what)) for p in PACES]

    overhead = each("step_overhead")
    totals = [by_pace[p].total for p in PACES]
    passes_s = [by_pace[p].compute / runs for p in PACES]
    return RunTime(
        boot=start.boot,
        image=start.image,
        download=start.download,
        load=start.load,
        warm_up=spread(each("warm_up_seconds")),
        training=spread([steps * s * o for s, o in zip(totals, overhead, strict=True)]),
        evaluation=spread([steps * s * e for s, e in zip(passes_s, each("evaluation_share"), strict=True)]),
        upload=spread([checkpoint_bytes / rate for rate in each("upload_bytes_per_s")]),
        step=by_pace["likely"],
    )
