"""A plan: the machine, the settings, the time and the cost; the front of those not beaten; why the rest lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sizing.hardware.types import CapacityBlock, InstanceType, Price
from sizing.memory.terms import MemoryEstimate
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.throughput.ranges import Range
from sizing.training_plan.run_time import RunTime
from sizing.training_plan.strategies import Strategy
from sizing.training_plan.tables import Mfu
from sizing.training_plan.task import TrainingTask, TrainingWishes

Kind = Literal[
    "no GPU",
    "AWS Neuron",
    "architecture",
    "precision",
    "GPU memory",
    "system RAM",
    "not offered",
    "unpriced",
    "speed unknown",
    "over hours",
    "over budget",
    "slower and dearer",
    "faster and dearer",
    "dearer",
]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an instance type was not taken. `short_bytes`: memory that was missing, None where it was not the reason.
    `distance` orders refusals of a kind: bytes, hours or dollars."""

    instance_type: str
    kind: Kind
    reason: str
    short_bytes: int | None = None
    distance: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "instance_type": self.instance_type,
            "kind": self.kind,
            "reason": self.reason,
            "short_bytes": self.short_bytes,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that fits. `usd_per_hour` of all machines; `usd` for the whole run, machines only."""

    instance: InstanceType
    nodes: int
    region: str
    pay: str
    usd_per_hour: float
    usd: Range
    price: Price
    setup: TrainingSetup
    strategy: Strategy
    global_batch: int
    steps: int
    time: RunTime
    mfu: Mfu
    memory: MemoryEstimate
    block: CapacityBlock | None = None
    """The rate's source under Capacity Blocks."""

    @property
    def hours(self) -> float:
        return self.time.hours.likely

    @property
    def free_share(self) -> float:
        """Of the GPU's memory, at the likely estimate."""
        gpu = self.instance.gpu
        return 0.0 if gpu is None else 1.0 - self.memory.device.total_bytes / gpu.memory_bytes

    @property
    def label(self) -> str:
        nodes = f"{self.nodes} × " if self.nodes > 1 else ""
        return f"{nodes}{self.instance.name}"

    def within(self, wishes: TrainingWishes) -> bool:
        """Whether it keeps the limits asked, at the likely estimate."""
        return not (
            (wishes.max_hours is not None and self.hours > wishes.max_hours)
            or (wishes.max_usd is not None and self.usd.likely > wishes.max_usd)
        )

    def summary(self) -> dict[str, Any]:
        """What tells one plan from another, as JSON."""
        setup, gpu = self.setup, self.instance.gpu
        return {
            "instance_type": self.instance.name,
            "nodes": self.nodes,
            "gpu": gpu.name if gpu else None,
            "gpus": setup.gpus,
            "region": self.region,
            "pay": self.pay,
            "method": setup.method,
            "precision": setup.precision,
            "optimizer": setup.optimizer,
            "zero_stage": setup.zero_stage,
            "offload": setup.offload,
            "checkpointing": setup.checkpointing,
            "micro_batch_size": setup.micro_batch,
            "gradient_accumulation_steps": setup.gradient_accumulation_steps,
            "global_batch": self.global_batch,
            "steps": self.steps,
            "hours": self.time.hours.to_json(3),
            "usd_per_hour": round(self.usd_per_hour, 6),
            "usd": self.usd.to_json(2),
            "gpu_memory_bytes": self.memory.device.total_bytes,
            "gpu_memory_free_share": round(self.free_share, 4),
        }

    def to_json(self) -> dict[str, Any]:
        return self.summary() | {
            "time": self.time.to_json(),
            "mfu": {**self.mfu.share.to_json(3), "how": self.mfu.how, "source": self.mfu.source},
        }


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The answer of a search. `recommended` None: nothing keeps the limits, and `refused` says why. `front`: plans that
    no other beats in both hours and dollars, limits aside, fastest first. `by_method`: the cheapest within the limits
    for each method, or in words why there is none."""

    model: ModelFacts
    task: TrainingTask
    wishes: TrainingWishes
    recommended: Plan | None
    front: tuple[Plan, ...]
    by_method: dict[str, Plan | str]
    several_gpus: Plan | None
    """The cheapest within the limits on one machine with several GPUs, as teams usually fine-tune."""
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    estimates: int
    """Memory estimates that the search took."""

    def nearest_miss(self) -> Refused | None:
        """The refusal that came closest: over a limit before short of memory, then by how far."""
        order = ("over budget", "over hours", "system RAM", "GPU memory", "precision", "unpriced", "not offered")
        ranked = [r for r in self.refused if r.kind in order]
        return min(
            ranked, key=lambda r: (order.index(r.kind) if r.kind not in order[:2] else 0, r.distance), default=None
        )
