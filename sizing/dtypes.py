"""How weights are stored: bytes per element, what a quantization leaves alone, and which GPUs can do it.

Figures and their sources:

- fp32/fp16/bf16: IEEE 754 and bfloat16 widths.
- LLM.int8 (bitsandbytes): one byte a weight of every quantized linear layer and one fp32 row scale
  (Dettmers et al. 2022, arXiv:2208.07339; `SCB` in bitsandbytes' `Linear8bitLt`).
- NF4/FP4 (bitsandbytes): half a byte a weight and one fp32 absmax per block of 64 (0.5625 B); with double quantization
  one byte per block, and one fp32 per 256 blocks (0.5 + 1/64 + 4/(64·256) = 0.515869 B)
  (Dettmers et al. 2023, arXiv:2305.14314, section 3).
- GPTQ/AWQ, group 128: packed integers, one fp16 scale and one packed zero a group and output column
  (arXiv:2210.17323, arXiv:2306.00978; `QuantLinear` of AutoGPTQ, `WQLinear` of AutoAWQ).
- MXFP4: 4 bits a weight and one byte of exponent per block of 32 (0.53125 B; OCP Microscaling Formats 1.0, 5.2). As
  gpt-oss is published: its experts alone (`quantization_config.modules_to_not_convert`).
- FP8 (E4M3): one byte a weight and a scale a tensor, which is small enough to leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizing.errors import unknown


@dataclass(frozen=True, slots=True)
class DType:
    """A way to hold weights.

    `weight_bytes`: bytes per element of a quantized (or plain) weight, scales per group included.
    `row_scale_bytes`: bytes per output row of a quantized matrix.
    `kept_bytes`: bytes per element of what is not quantized (embeddings, norms, biases, usually the head).
    `compute_bytes`: bytes per element of activations and KV cache.
    `min_compute_capability`: the smallest CUDA compute capability with hardware for it.
    """

    name: str
    label: str
    weight_bytes: float
    kept_bytes: float
    compute_bytes: float
    min_compute_capability: float
    quantized: bool = False
    row_scale_bytes: float = 0.0
    bitsandbytes: bool = False
    experts_only: bool = False
    """A mixture's experts are stored so, all else as `kept_bytes` says."""
    dequantizes: bool = False
    """A matrix is expanded to the compute dtype before it is multiplied (bitsandbytes 4-bit on more than one row)."""


_GROUP = 128
DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("fp32", "32-bit floating point", 4.0, 4.0, 4.0, 0.0),
        DType("fp16", "16-bit floating point", 2.0, 2.0, 2.0, 5.3),
        # bf16 needs Ampere (8.0): on T4 and V100 it is emulated, whatever torch.cuda.is_bf16_supported() says.
        DType("bf16", "bfloat16", 2.0, 2.0, 2.0, 8.0),
        DType("fp8", "8-bit floating point (E4M3)", 1.0, 2.0, 2.0, 8.9, quantized=True),
        DType(
            "int8",
            "LLM.int8 (bitsandbytes)",
            1.0,
            2.0,
            2.0,
            7.5,
            quantized=True,
            row_scale_bytes=4.0,
            bitsandbytes=True,
        ),
        DType(
            "nf4",
            "NF4 (bitsandbytes)",
            0.5 + 4 / 64,
            2.0,
            2.0,
            7.0,
            quantized=True,
            bitsandbytes=True,
            dequantizes=True,
        ),
        DType(
            "nf4-dq",
            "NF4, double quantization (bitsandbytes)",
            0.5 + 1 / 64 + 4 / (64 * 256),
            2.0,
            2.0,
            7.0,
            quantized=True,
            bitsandbytes=True,
            dequantizes=True,
        ),
        DType("gptq-int4", "GPTQ 4-bit, group 128", 0.5 + (2 + 0.5) / _GROUP, 2.0, 2.0, 6.0, quantized=True),
        DType("gptq-int8", "GPTQ 8-bit, group 128", 1.0 + (2 + 1) / _GROUP, 2.0, 2.0, 6.0, quantized=True),
        # Compute capability: transformers' quantizer_mxfp4.
        DType("mxfp4", "MXFP4, experts alone", 0.5 + 1 / 32, 2.0, 2.0, 7.5, quantized=True, experts_only=True),
        DType("awq-int4", "AWQ 4-bit, group 128", 0.5 + (2 + 0.5) / _GROUP, 2.0, 2.0, 7.5, quantized=True),
    )
}


_ALIASES = {
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "llm.int8": "int8",
    "int4": "nf4",
    "gptq": "gptq-int4",
    "awq": "awq-int4",
}


def dtype(name: str) -> DType:
    """The `DType` called `name` (torch's spellings are understood). Raises `UserError` for an unknown one."""
    key = name.lower().removeprefix("torch.")
    key = _ALIASES.get(key, key)
    if key not in DTYPES:
        raise unknown("dtype", name, DTYPES, hint=f"allowed: auto, {', '.join(DTYPES)}")
    return DTYPES[key]
