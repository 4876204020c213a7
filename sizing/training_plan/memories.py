"""Memory of the situations that a search asks about, estimated once each, and as few of them as will do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizing.memory.terms import Breakdown, MemoryEstimate
from sizing.memory.training.estimate import estimate_training
from sizing.memory.training.host import host_breakdown
from sizing.memory.training.setup import Method, Optimizer, Precision, TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.training_plan.strategies import MOST_MICRO_BATCH, Strategy
from sizing.training_plan.task import TrainingTask, TrainingWishes

FREE_SHARE = 0.10
"""Of a GPU's memory that a plan leaves free at the likely estimate."""


def usable(memory_bytes: int) -> int:
    """What a plan may fill of a GPU's memory."""
    return int(memory_bytes * (1.0 - FREE_SHARE))


@dataclass(frozen=True, slots=True)
class Situation:
    """What memory depends on beside the micro-batch; `gpus` in each of `nodes` machines."""

    method: Method
    precision: Precision
    optimizer: Optimizer
    strategy: Strategy
    gpus: int
    nodes: int


class Memories:
    """Estimates of one model and task, and what follows from them without another.

    A device's total grows with the micro-batch, and faster and faster: it is the largest of several sums that each grow
    evenly. So a straight line through two totals never lies above a third beyond them, which proves misfits, and never
    below one between them, which proves fits.
    """

    def __init__(self, model: ModelFacts, task: TrainingTask, wishes: TrainingWishes) -> None:
        self._model, self._task, self._wishes = model, task, wishes
        self._known: dict[tuple[Situation, bool], dict[int, Breakdown]] = {}
        self._hosts: dict[Situation, Breakdown] = {}
        self.estimates = 0

    def setup(self, at: Situation, micro_batch: int, accumulation: int) -> TrainingSetup:
        return TrainingSetup(
            method=at.method,
            precision=at.precision,
            optimizer=at.optimizer,
            micro_batch=micro_batch,
            input_tokens=self._task.lengths.input_tokens,
            output_tokens=self._task.lengths.output_tokens,
            gpus=at.gpus * at.nodes,
            gpus_per_node=at.gpus,
            zero_stage=at.strategy.zero_stage,
            offload=at.strategy.offload,
            checkpointing=at.strategy.checkpointing,
            lora_rank=self._wishes.lora_rank,
            base_dtype=self._wishes.base_dtype if at.method != "full" else "",
            gradient_accumulation_steps=accumulation,
            padded=True,
        )

    def device(self, at: Situation, micro_batch: int, accumulation: int) -> Breakdown:
        """Of one GPU at a micro-batch, near enough to decide by and never too little.

        How many micro-batches a step has makes no difference beyond there being several, and none where gradients go to
        the host; how many GPUs hold a whole copy each makes none beyond NCCL's buffers.
        """
        return self._device(_alike(at), micro_batch, _several(at, accumulation))

    def _device(self, at: Situation, micro_batch: int, several: bool) -> Breakdown:
        known = self._known.setdefault((at, several), {})
        if micro_batch not in known:
            self.estimates += 1
            known[micro_batch] = estimate_training(self._model, self.setup(at, micro_batch, 2 if several else 1)).device
        return known[micro_batch]

    def host(self, at: Situation) -> Breakdown:
        """Of one machine; the micro-batch makes no difference."""
        if at not in self._hosts:
            self._hosts[at] = host_breakdown(self._model, self.setup(at, 1, 1))
        return self._hosts[at]

    def exact(self, setup: TrainingSetup) -> MemoryEstimate:
        """The full estimate of a plan's own setup."""
        self.estimates += 1
        return estimate_training(self._model, setup)

    def fits(self, at: Situation, micro_batch: int, accumulation: int, room: int) -> bool:
        """Whether a micro-batch takes at most `room` bytes of a GPU. The smallest micro-batches and the largest are
        looked at first: lines through them decide nearly all others."""
        if _states_at_least(self._model.params, at) > room:
            return False
        at, several = _alike(at), _several(at, accumulation)
        largest = min(MOST_MICRO_BATCH, micro_batch * accumulation // (2 if accumulation > 1 else 1))
        for probe in (1, 2, largest):
            decided = self._decided(at, micro_batch, several, room)
            if decided is not None:
                return decided
            if probe < micro_batch or probe == largest > micro_batch:
                self._device(at, probe, several)
        decided = self._decided(at, micro_batch, several, room)
        return self._device(at, micro_batch, several).total_bytes <= room if decided is None else decided

    def _decided(self, at: Situation, micro_batch: int, several: bool, room: int) -> bool | None:
        """Whether totals that are known prove that a micro-batch fits or does not; None where they prove neither."""
        known = self._known.get((at, several))
        if not known:
            return None
        slack = 64 * micro_batch  # terms are rounded up to whole bytes, which may bend a line by a few
        below = sorted(b for b in known if b <= micro_batch)
        above = min((b for b in known if b >= micro_batch), default=None)
        if above is not None and known[above].total_bytes <= room:
            return True
        if not below:
            return None
        last, size = below[-1], known[below[-1]].total_bytes
        if size > room:
            return False
        if len(below) > 1:
            slope = (size - known[below[-2]].total_bytes) / (last - below[-2])
            if size + slope * (micro_batch - last) > room + slack:
                return False
        if above is not None and above > last:
            slope = (known[above].total_bytes - size) / (above - last)
            if size + slope * (micro_batch - last) + slack <= room:
                return True
        return None

    def with_steps(self, at: Situation, micro_batch: int, accumulation: int) -> TrainingSetup:
        """The setup of a plan with the number of micro-batches that it has."""
        return replace(self.setup(at, micro_batch, 1), gradient_accumulation_steps=accumulation)


def _several(at: Situation, accumulation: int) -> bool:
    """Whether gradients of earlier micro-batches stay; adapters' are too small to tell the two apart."""
    return at.method != "full" or (accumulation > 1 and at.strategy.offload == "none")


def _alike(at: Situation) -> Situation:
    """Whole copies of a model on several GPUs of a machine are counted as on eight."""
    if at.strategy.zero_stage or at.nodes > 1 or not 1 < at.gpus < 8:
        return at
    return replace(at, gpus=8)


def _states_at_least(params: float, at: Situation) -> float:
    """Bytes that weights, gradients and AdamW's states of a full fine-tune take on each GPU whatever the batch: 16 a
    parameter in mixed precision, divided by ZeRO as its paper has it (arXiv:1910.02054, section 5), less a twentieth
    for what a model does not train. 0 where that says nothing."""
    if at.method != "full" or at.optimizer != "adamw" or at.precision not in ("bf16", "fp16", "fp32"):
        return 0.0
    n, stage = at.gpus * at.nodes, at.strategy.zero_stage
    width = 4.0 if at.precision == "fp32" else 2.0
    weights = width / n if stage == 3 else (width if stage else 4.0)
    if at.strategy.offload != "none":
        rest = 0.0
        weights = 0.0 if at.strategy.offload == "all" else weights
    elif stage == 0:
        rest = 12.0
    else:
        rest = 8.0 / n + (width / n if stage >= 2 else width)
    return 0.95 * params * (weights + rest)
