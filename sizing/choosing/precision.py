"""Which dtype a model takes on a GPU, and which a GPU cannot take."""

from __future__ import annotations

from sizing.dtypes import dtype
from sizing.hardware.types import Gpu
from sizing.models.facts import ModelFacts


def auto_dtype(model: ModelFacts, gpu: Gpu) -> str:
    """bf16 where the GPU has it (compute capability 8.0 and above), else fp16, else fp32.

    Models that keep a layer in fp32 because fp16 overflows there (T5's `wo`, transformers#20287) were trained in bf16
    and lose their output in fp16 (NVIDIA/FasterTransformer#554: FLAN-T5-XL and larger give poor summaries): fp32 then.
    """
    if gpu.bf16:
        return "bf16"
    if (
        any(t.keep_fp32 for t in model.tensors)
        or (gpu.compute_capability or 0.0) < dtype("fp16").min_compute_capability
    ):
        return "fp32"
    return "fp16"


def explain_auto(name: str, model: ModelFacts, gpu: Gpu) -> str:
    """Why `auto` came to the dtype `name` on `gpu`."""
    if name == "bf16":
        return f"bf16: {gpu.name} has it (compute capability {gpu.compute_capability})"
    if name == "fp32" and any(t.keep_fp32 for t in model.tensors):
        return f"fp32: {gpu.name} has no bf16, and {model.family} overflows in fp16"
    return f"{name}: {gpu.name} has no bf16"


def refused_dtype(name: str, gpu: Gpu) -> str:
    """Empty, or why `gpu` cannot run `name`: 'bf16 asked, T4 (compute capability 7.5) has none'."""
    kind = dtype(name)
    capability = gpu.compute_capability
    if kind.name == "bf16" and not gpu.bf16:
        return f"bf16 asked, {gpu.name} has none" + (f" (compute capability {capability})" if capability else "")
    if capability is not None and capability < kind.min_compute_capability:
        return (
            f"{kind.name} asked, {gpu.name} cannot: compute capability {capability}, "
            f"{kind.min_compute_capability} is needed"
        )
    return ""
