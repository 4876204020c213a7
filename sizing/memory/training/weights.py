"""Bytes of the model's own weights on one GPU before any sharding over data-parallel ranks."""

from __future__ import annotations

from dataclasses import dataclass

from sizing.dtypes import DType
from sizing.dtypes import dtype as dtype_called
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.sharding import deepspeed, fsdp
from sizing.models.facts import ModelFacts, Tensor
from sizing.units import count


@dataclass(frozen=True, slots=True)
class Part:
    """A named share of the weights in bytes."""

    name: str
    size: float
    formula: str


def mixed(setup: TrainingSetup) -> bool:
    return setup.precision in ("bf16", "fp16")


def base_dtype(setup: TrainingSetup) -> DType:
    """How frozen weights are stored: what was asked for, else NF4 with double quantization under qlora, fp32 in an fp32
    run, and the 16-bit type of the run otherwise."""
    if setup.base_dtype:
        return dtype_called(setup.base_dtype)
    if setup.method == "qlora":
        return dtype_called("nf4-dq")
    return dtype_called("fp32" if setup.precision == "fp32" else "fp16" if setup.precision == "fp16" else "bf16")


def weight_width(setup: TrainingSetup) -> int:
    """Bytes of a trained base weight: 2 under DeepSpeed's mixed precision, FSDP's and pure bf16, else 4 (autocast)."""
    if setup.precision == "fp32":
        return 4
    return 2 if setup.precision == "pure-bf16" or deepspeed(setup) or fsdp(setup) else 4


def kept_width(setup: TrainingSetup) -> int:
    """Bytes of what a quantizer leaves alone. `prepare_model_for_kbit_training` makes it fp32 (peft utils/other.py);
    DeepSpeed and FSDP hold the whole module in one 16-bit type."""
    if setup.kept_dtype:
        return 4 if dtype_called(setup.kept_dtype).name == "fp32" else 2
    return 2 if deepspeed(setup) or fsdp(setup) else 4


def is_turned(tensor: Tensor, setup: TrainingSetup) -> bool:
    """Whether bitsandbytes or GPTQ quantizes `tensor`: linear weights of the layers, not the head, not T5's `wo`.

    Under transformers 5 bitsandbytes turns nothing but an `nn.Linear`: not a mixture's stacked experts.
    """
    if tensor.bare and setup.framework == "transformers" and base_dtype(setup).bitsandbytes:
        return False
    if base_dtype(setup).experts_only and not tensor.expert:
        return False
    return tensor.kind == "linear" and tensor.part != "head" and not tensor.keep_fp32 and tensor.layered


def shard_share(tensor: Tensor, degree: int) -> float:
    return 1.0 if tensor.shard == "none" or degree == 1 else 1.0 / degree


def tensor_share(model: ModelFacts, degree: int) -> float:
    """The part of the parameters that one of `degree` tensor-parallel ranks holds."""
    if degree == 1:
        return 1.0
    return sum(t.numel * shard_share(t, degree) for t in model.tensors) / max(1, sum(t.numel for t in model.tensors))


def base_parts(model: ModelFacts, setup: TrainingSetup) -> tuple[Part, ...]:
    """The base weights: as trained (`full`), or frozen in their own dtype with what a quantizer keeps beside them."""
    degree = setup.tensor_parallel
    if setup.method == "full":
        width = weight_width(setup)
        elements = sum(t.numel * shard_share(t, degree) for t in model.tensors)
        return (Part("weights", elements * width, f"{count(elements)} parameters × {width} bytes"),)
    dtype = base_dtype(setup)
    if not dtype.quantized:
        width = int(dtype.weight_bytes)
        elements = sum(t.numel * shard_share(t, degree) for t in model.tensors)
        extra = 0.0
        if dtype.name == "fp16":
            extra = sum(t.numel * shard_share(t, degree) for t in model.tensors if t.keep_fp32)
        parts = [Part("weights", elements * width, f"{count(elements)} frozen parameters × {width} bytes")]
        if extra:
            parts.append(Part("weights kept in fp32", extra * 2, f"{count(extra)} parameters × 2 bytes more"))
        return tuple(parts)
    turned = kept = full = 0.0
    rows = 0.0
    for t in model.tensors:
        share = shard_share(t, degree)
        if is_turned(t, setup):
            turned += t.numel * share
            rows += t.rows * share
        elif t.keep_fp32:
            full += t.numel * share
        else:
            kept += t.numel * share
    packed = 0.5 if dtype.weight_bytes < 1 else 1.0
    constants = turned * (dtype.weight_bytes - packed) + rows * dtype.row_scale_bytes
    width = kept_width(setup)
    parts = [
        Part("weights", turned * packed, f"{count(turned)} frozen linear weights × {packed:g} bytes"),
        Part("quantization constants", constants, f"scales of {dtype.label}"),
        Part(
            "weights kept unquantized",
            kept * width,
            f"{count(kept)} parameters × {width} bytes (embeddings, norms, head)",
        ),
    ]
    if full:
        parts.append(Part("weights kept in fp32", full * 4, f"{count(full)} parameters × 4 bytes (T5's wo)"))
    return tuple(p for p in parts if p.size)
