"""The ways to spread a run that can be started with accelerate and DeepSpeed, and the precisions a GPU can train in."""

from __future__ import annotations

from dataclasses import dataclass

from sizing.dtypes import dtype
from sizing.hardware.types import Gpu
from sizing.memory.training.setup import Method, Offload, Optimizer, Precision
from sizing.models.facts import ModelFacts

MOST_MICRO_BATCH = 256
"""Sequences a GPU and micro-step; more gains nothing."""
MOST_MICRO_BATCHES = 8
"""Sizes of micro-batch tried, from the largest down, and 1."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """`zero_stage` 0 is one GPU or DistributedDataParallel."""

    zero_stage: int
    offload: Offload
    checkpointing: bool

    @property
    def label(self) -> str:
        words = [f"ZeRO-{self.zero_stage}" if self.zero_stage else "no sharding"]
        if self.offload != "none":
            words.append("optimizer in host memory" if self.offload == "optimizer" else "offloaded to host memory")
        if self.checkpointing:
            words.append("activation checkpointing")
        return ", ".join(words)


def strategies(method: Method, precision: Precision, optimizer: Optimizer, gpus: int) -> tuple[Strategy, ...]:
    """What can be combined, the plain ways first.

    - Adapters and prompts train so little that sharding or offloading their optimizer frees nothing: weights stay
      whole, or are sharded with ZeRO-3 where one GPU does not hold them. PEFT's prompt tuning is run unsharded.
    - DeepSpeed does not offload bitsandbytes' weights, and moves only AdamW to the host (DeepSpeedCPUAdam).
    - pure bf16 has no master weights, which DeepSpeed's bf16 optimizer keeps: it is run without ZeRO.
    """
    found: list[tuple[int, Offload]] = [(0, "none")]
    if precision != "pure-bf16":
        if method == "full":
            if gpus > 1:
                found += [(1, "none"), (2, "none"), (3, "none")]
            if optimizer == "adamw":
                found += (
                    [(2, "optimizer"), (3, "all")] if gpus == 1 else [(2, "optimizer"), (3, "optimizer"), (3, "all")]
                )
        elif method != "prompt" and gpus > 1:
            found.append((3, "none"))
    return tuple(Strategy(stage, offload, again) for stage, offload in found for again in (False, True))


def precision_on(model: ModelFacts, gpu: Gpu, wished: str) -> Precision | str:
    """The precision for `model` on `gpu`, or in words why it cannot have the one wished.

    auto: bf16 where the hardware has it, else fp16; fp32 for a model that keeps a layer in fp32 because fp16 overflows
    there (T5 and its kin; transformers' `_keep_in_fp32_modules`).
    """
    overflows = any(t.keep_fp32 for t in model.tensors)
    if wished == "auto":
        if gpu.bf16:
            return "bf16"
        return "fp32" if overflows else "fp16"
    if wished in ("bf16", "pure-bf16") and not gpu.bf16:
        return f"bf16 absent: {gpu.name} has none (compute capability {gpu.compute_capability})"
    if wished == "fp16" and overflows:
        return f"fp16: {model.family} overflows in it; bf16 or fp32"
    for known in ("bf16", "fp16", "fp32", "pure-bf16"):
        if wished == known:
            return known
    raise ValueError(f"unknown precision {wished}")


def quantization_gap(gpu: Gpu, base: str) -> str:
    """Empty, or why `gpu` cannot hold frozen weights as `base`."""
    kind, capability = dtype(base), gpu.compute_capability
    if kind.quantized and capability is not None and capability < kind.min_compute_capability:
        return f"{kind.name} needs compute capability {kind.min_compute_capability}, {gpu.name} has {capability}"
    return ""


def micro_batches(per_gpu: int) -> tuple[int, ...]:
    """Micro-batches that divide what each GPU handles in a step, largest first, so that the batch is kept exactly."""
    found = [d for d in range(min(per_gpu, MOST_MICRO_BATCH), 0, -1) if per_gpu % d == 0]
    return tuple(found) if len(found) <= MOST_MICRO_BATCHES else (*found[: MOST_MICRO_BATCHES - 1], 1)
