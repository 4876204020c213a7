"""What ZeRO, FSDP and DDP hold on each GPU beside the model's own tensors: buckets, gathered parameters, copies.

Sizes in elements unless named bytes. Read from DeepSpeed 0.19.8 (`runtime/zero/stage_1_and_2.py`, `stage3.py`,
`config.py`), which implements ZeRO (arXiv:1910.02054), from torch 2.15 (`nn/parallel/distributed.py`,
`distributed/fsdp/`), and from transformers' and accelerate's rules for "auto" sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts

REDUCE_BUCKET = 5 * 10**8
PREFETCH_BUCKET = 5 * 10**7
PERSISTENCE_THRESHOLD = 10**5
MAX_LIVE = 10**9
REUSE_DISTANCE = 10**9
SUB_GROUP = 10**9
"""DeepSpeed's defaults, in elements (`runtime/zero/config.py`)."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """DeepSpeed's bucket sizes in elements."""

    reduce: int
    prefetch: int
    persistence: int

    @classmethod
    def of(cls, setup: TrainingSetup, hidden_size: int) -> Buckets:
        """`auto`: hidden_size², 0.9 · hidden_size², 10 · hidden_size (transformers `integrations/deepspeed.py`)."""
        if setup.buckets == "default":
            return cls(setup.reduce_bucket or REDUCE_BUCKET, PREFETCH_BUCKET, PERSISTENCE_THRESHOLD)
        square = hidden_size * hidden_size
        return cls(setup.reduce_bucket or square, int(0.9 * square), 10 * hidden_size)


def deepspeed(setup: TrainingSetup) -> bool:
    return setup.zero_stage >= 1 and setup.sharding == "zero"


def fsdp(setup: TrainingSetup) -> bool:
    return setup.sharding == "fsdp" and setup.zero_stage >= 2 and setup.gpus > 1


def layer_elements(model: ModelFacts) -> int:
    """Elements of the largest layer."""
    best = 0
    for part, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if stack is None:
            continue
        total = model.numel(lambda t, part=part: t.layered and t.part == part)  # type: ignore[misc]
        best = max(best, math.ceil(total / stack.layers))
    return best


def outside_elements(model: ModelFacts) -> int:
    """Elements that stand outside the layers: embeddings, head, final norms."""
    return model.numel(lambda t: not t.layered)


def largest_matrix(model: ModelFacts) -> int:
    return max((math.prod(t.shape) for t in model.tensors if not t.tied_to), default=0)


def gathered_elements(model: ModelFacts, setup: TrainingSetup, buckets: Buckets) -> int:
    """Parameters that ZeRO-3 holds whole on each GPU at its peak.

    Modules gather what they need and release what is not used again within `max_reuse_distance`, up to
    `max_live_parameters`; one bucket is fetched ahead. The largest matrix comes on top, twice where a gathered copy is
    put together from the ranks' parts (`partition_parameters.py`, `_all_gather_coalesced`). A single rank without
    offload has everything in place.
    """
    if setup.data_parallel == 1 and setup.offload != "all":
        return 0
    return min(model.params, MAX_LIVE + buckets.prefetch + 2 * largest_matrix(model))
