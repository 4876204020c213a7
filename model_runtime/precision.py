"""Which dtype a device can do, by its compute capability: never by asking torch, which calls emulation support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_runtime.errors import ModelError

DTYPES = ("fp32", "fp16", "bf16")
QUANTIZATIONS = ("int8", "nf4", "nf4-dq")
MIN_COMPUTE_CAPABILITY = {"fp32": 0.0, "fp16": 5.3, "bf16": 8.0, "int8": 7.5, "nf4": 7.0, "nf4-dq": 7.0}
"""The smallest CUDA compute capability with hardware for it. bf16: NVIDIA's CUDA C++ programming guide,
table of arithmetic instructions (8.0, Ampere); a T4 (7.5) emulates it, and `torch.cuda.is_bf16_supported()` is True."""

_ALIASES = {
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "bitsandbytes8": "int8",
    "bitsandbytes4": "nf4",
    "int4": "nf4",
}


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs. `compute_capability` is None on a CPU."""

    kind: str
    name: str = "CPU"
    compute_capability: float | None = None
    count: int = 1


def find_device(wanted: str = "auto") -> Device:
    """The device to use: `auto` takes a GPU where one is; `cpu` and `cuda` insist."""
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise ModelError(f"device is {wanted!r}; one of auto, cpu, cuda")
    if wanted != "cpu" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        return Device("cuda", torch.cuda.get_device_name(0), float(f"{major}.{minor}"), torch.cuda.device_count())
    if wanted == "cuda":
        raise ModelError("device is cuda, but torch sees no GPU here; use device=cpu, or check the driver (nvidia-smi)")
    return Device("cpu")


def canonical(name: str) -> str:
    """Berth's name of a dtype or quantization: torch's and LMI's spellings are understood."""
    key = name.strip().lower().removeprefix("torch.")
    return _ALIASES.get(key, key)


def choose_dtype(wanted: str, device: Device) -> str:
    """fp32, fp16 or bf16. `auto`: bf16 from compute capability 8.0, else fp16 on a GPU, fp32 on a CPU.

    Raises `ModelError` for an unknown dtype and for one that the device only emulates.
    """
    name = canonical(wanted)
    capability = device.compute_capability
    if name == "auto":
        if capability is None:
            return "fp32"
        return next(d for d in ("bf16", "fp16", "fp32") if capability >= MIN_COMPUTE_CAPABILITY[d])
    if name not in DTYPES:
        raise ModelError(f"dtype is {wanted!r}; one of auto, {', '.join(DTYPES)} (quantize takes int8, nf4, nf4-dq)")
    if capability is not None and capability < MIN_COMPUTE_CAPABILITY[name]:
        raise ModelError(
            f"dtype {name} needs compute capability {MIN_COMPUTE_CAPABILITY[name]}; {device.name} has {capability}, "
            f"which would emulate it; use {choose_dtype('auto', device)}"
        )
    return name


def check_quantization(wanted: str, device: Device) -> str:
    """The quantization's name, or "" for none. Raises `ModelError` where it is unknown or the device cannot."""
    name = canonical(wanted)
    if name in ("", "none"):
        return ""
    if name not in QUANTIZATIONS:
        raise ModelError(f"quantize is {wanted!r}; one of none, {', '.join(QUANTIZATIONS)}")
    capability = device.compute_capability
    if capability is not None and capability < MIN_COMPUTE_CAPABILITY[name]:
        raise ModelError(
            f"quantize {name} needs compute capability {MIN_COMPUTE_CAPABILITY[name]}; {device.name} has {capability}; "
            "use dtype=fp16 without it"
        )
    return name


def torch_dtype(name: str) -> Any:
    """torch's dtype of fp32, fp16, bf16."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]
