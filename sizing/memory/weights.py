"""Bytes of a model's weights on one device, by dtype, quantization and tensor parallelism."""

from __future__ import annotations

from dataclasses import replace

from sizing.dtypes import DType
from sizing.memory.engines import Engine
from sizing.memory.terms import Term, term
from sizing.models.facts import ModelFacts, Tensor
from sizing.units import count


def is_quantized(tensor: Tensor, dtype: DType, engine: Engine) -> bool:
    """Whether a quantizer turns `tensor`: the layers' linear weights, the output projection where the engine does."""
    if not dtype.quantized or tensor.kind != "linear" or tensor.keep_fp32:
        return False
    if dtype.experts_only and not tensor.expert:
        return False
    if tensor.bare and dtype.bitsandbytes and engine.turns_linear_modules_only:
        return False
    return tensor.part != "head" or engine.quantizes_head


def kept_bytes(tensor: Tensor, dtype: DType) -> float:
    """Bytes per element of a tensor that is not quantized.

    `_keep_in_fp32_modules` (T5's `wo`) holds for fp16 and for bitsandbytes, not for bf16 or fp32
    (transformers `modeling_utils`; bitsandbytes issue #111 shows the bytes).
    """
    if tensor.keep_fp32 and (dtype.name in ("fp16", "int8") or dtype.dequantizes):
        return 4.0
    return dtype.kept_bytes


def loaded_tensors(model: ModelFacts, engine: Engine) -> tuple[Tensor, ...]:
    """The tensors as `engine` loads them: a tied output projection stands apart where the engine unties it."""
    if not engine.unties_head:
        return model.tensors
    return tuple(replace(t, tied_to="") if t.tied_to and t.part == "head" else t for t in model.tensors)


def shard_of(tensor: Tensor, tensor_parallel: int, kv_heads: int, engine: Engine) -> float:
    """The share of `tensor` that one of `tensor_parallel` devices holds (Megatron-LM, arXiv:1909.08053).

    Keys and values cannot be split finer than their heads: each device holds at least one.
    """
    if tensor.shard == "none" or tensor_parallel == 1:
        return 1.0
    if tensor.shard == "vocab" and not engine.splits_vocabulary:
        return 1.0
    if tensor.shard == "column" and any(part in tensor.name for part in (".k_proj.", ".v_proj.", ".key.", ".value.")):
        return 1.0 / min(tensor_parallel, max(1, kv_heads))
    return 1.0 / tensor_parallel


def element_bytes(tensor: Tensor, dtype: DType, engine: Engine) -> float:
    """Bytes of one element of `tensor` on the device, scales per group included."""
    return dtype.weight_bytes if is_quantized(tensor, dtype, engine) else kept_bytes(tensor, dtype)


def stored_bytes(tensor: Tensor, dtype: DType, engine: Engine) -> float:
    """Bytes of the whole group, scales included."""
    if is_quantized(tensor, dtype, engine):
        return tensor.numel * dtype.weight_bytes + tensor.rows * dtype.row_scale_bytes
    return tensor.numel * kept_bytes(tensor, dtype)


def weight_terms(model: ModelFacts, dtype: DType, engine: Engine, tensor_parallel: int = 1) -> tuple[Term, ...]:
    """Weights on each device: the quantized ones, those kept in 16 or 32 bit, and quantization constants, in bytes."""
    kv_heads = model.main.kv_heads
    plain: dict[float, float] = {}
    plain_elements: dict[float, float] = {}
    quantized = quantized_elements = scales = 0.0
    for tensor in loaded_tensors(model, engine):
        share = shard_of(tensor, tensor_parallel, kv_heads, engine)
        elements = tensor.numel * share
        if is_quantized(tensor, dtype, engine):
            integer_bytes = _packed_bytes(dtype)
            quantized_elements += elements
            quantized += elements * integer_bytes
            scales += elements * (dtype.weight_bytes - integer_bytes) + tensor.rows * share * dtype.row_scale_bytes
        else:
            size = kept_bytes(tensor, dtype)
            plain[size] = plain.get(size, 0.0) + elements * size
            plain_elements[size] = plain_elements.get(size, 0.0) + elements
    split = f" / {tensor_parallel} devices where split" if tensor_parallel > 1 else ""
    terms = []
    if not dtype.quantized:
        base = plain.pop(dtype.kept_bytes, 0.0)
        elements = plain_elements.get(dtype.kept_bytes, 0.0)
        terms.append(term("weights", base, f"{count(elements)} parameters × {dtype.kept_bytes:g} bytes{split}"))
        for size, total in plain.items():
            terms.append(
                term("weights kept in fp32", total, f"{count(plain_elements[size])} parameters × {size:g} bytes{split}")
            )
        return tuple(terms)
    terms.append(
        term(
            "weights", quantized, f"{count(quantized_elements)} linear weights × {_packed_bytes(dtype):g} bytes{split}"
        )
    )
    if scales:
        terms.append(term("quantization constants", scales, f"scales of {dtype.label}{split}"))
    for size in sorted(plain):
        name = "weights kept in fp32" if size == 4.0 else "weights kept in 16 bit"
        terms.append(term(name, plain[size], f"{count(plain_elements[size])} parameters × {size:g} bytes{split}"))
    return tuple(terms)


def bare_bytes(model: ModelFacts, dtype: DType, engine: Engine) -> float:
    """Bytes of linear weights that bitsandbytes leaves in 16 bit because no `nn.Linear` holds them; 0 mostly."""
    if not (dtype.bitsandbytes and engine.turns_linear_modules_only):
        return 0.0
    return sum(t.numel * dtype.kept_bytes for t in model.tensors if t.bare and t.kind == "linear")


def largest_quantized_matrix(model: ModelFacts, dtype: DType, engine: Engine, tensor_parallel: int = 1) -> float:
    """Elements of the largest quantized matrix on a device; 0 where nothing is quantized."""
    kv_heads = model.main.kv_heads
    sizes = [
        t.shape[0] * t.shape[1] * shard_of(t, tensor_parallel, kv_heads, engine)
        for t in loaded_tensors(model, engine)
        if len(t.shape) == 2 and not t.tied_to and is_quantized(t, dtype, engine)
    ]
    return max(sizes, default=0.0)


def _packed_bytes(dtype: DType) -> float:
    return 0.5 if dtype.weight_bytes < 1.0 else 1.0
