"""States that an optimizer keeps for trained tensors, and the room its step needs. Sizes in bytes for whole tensors:
sharding divides them where ZeRO or FSDP splits the states."""

from __future__ import annotations

import math

from sizing.memory.training.setup import Kernel, Optimizer
from sizing.memory.training.trained import Shapes

BLOCK_8BIT = 256
"""Elements per quantization block of bitsandbytes' 8-bit states (`optim/optimizer.py`, blockwise)."""
MIN_8BIT = 4096
"""Smaller tensors keep 32-bit states (`min_8bit_size`)."""


def state_bytes(optimizer: Optimizer, shapes: Shapes, width: int) -> int:
    """Bytes of optimizer states; `width` bytes per element of a full-size state.

    - adamw: two moments (arXiv:1711.05101). sgd: one momentum. lion: one momentum (arXiv:2302.06675).
    - adamw8bit: two moments of one byte, with one fp32 scale each per block of 256; tensors below 4,096 elements and
      embeddings in 32 bit (bitsandbytes; the Trainer registers embeddings with `GlobalOptimManager`).
    - adafactor: for a matrix one fp32 value per row and per column, for a vector a whole fp32 state
      (arXiv:1804.04235; transformers' `Adafactor`, no momentum).
    """
    total = 0.0
    for shape, count, embedding in shapes:
        numel = math.prod(shape)
        if optimizer == "adamw":
            each: float = 2 * width * numel
        elif optimizer in ("sgd", "lion"):
            each = width * numel
        elif optimizer == "adafactor":
            each = 4 * (numel if len(shape) < 2 else math.prod(shape[:-1]) + numel // shape[-2])
        elif numel < MIN_8BIT or embedding:
            each = 8 * numel
        else:
            each = 2 * numel + 2 * 4 * math.ceil(numel / BLOCK_8BIT)
        total += each * count
    return math.ceil(total)


def step_work(optimizer: Optimizer, shapes: Shapes, width: int, kernel: Kernel) -> int:
    """The most that the optimizer's step takes beside states and gradients.

    torch's AdamW: `foreach` makes the square roots of all second moments at once, `loop` those of one tensor with
    their sum (two temporaries), `fused` none (torch/optim/adamw.py). Adafactor works tensor by tensor in fp32:
    the update, its square and the low-rank estimate.
    """
    sizes = [math.prod(shape) for shape, _, _ in shapes]
    if not sizes:
        return 0
    largest = max(sizes)
    if optimizer == "adafactor":
        return 3 * 4 * largest
    if optimizer == "adamw8bit" or kernel == "fused":
        return 0
    if kernel == "loop":
        return (2 if optimizer == "adamw" else 1) * width * largest
    return sum(size * count for size, (_, count, _) in zip(sizes, shapes, strict=True)) * width
