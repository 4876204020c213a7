"""What a GPU process takes beside tensors: the CUDA context with its libraries, and the caching allocator's slack."""

from __future__ import annotations

import math

from sizing.memory.terms import Term, term
from sizing.models.facts import ModelFacts
from sizing.units import GIB, MIB

# Device memory of a process that has run a model, less what PyTorch reserved. Measured: 0.47 GiB for the bare context on
# an A100, loaded lazily (torch 2.1.1, stas00/ml-engineering@744d01e); 1.23 GiB with the libraries of a Llama-2-13B run (A100, torch
# 2.0.1, NVML peak less reserved: huggingface/optimum tests/benchmark README against the allocations replayed here).
CONTEXT_LOW = 0.45 * GIB
CONTEXT_LIKELY = 0.85 * GIB
CONTEXT_HIGH = 1.35 * GIB
# The first NCCL collective: 2.00 GiB after a barrier against 0.55 before (stas00/ml-engineering@744d01e); AIConfigurator's
# table has 0.34-0.39 GB for 2-4 GPUs of current NCCL.
NCCL_LOW = 0.33 * GIB
NCCL_LIKELY = 0.45 * GIB
NCCL_HIGH = 1.45 * GIB

LARGE_BLOCK = 10 * MIB
"""Allocations from here on get a segment of their own, rounded up to 2 MiB (`kMinLargeAlloc`, `kRoundLarge`)."""
ROUND_LARGE = 2 * MIB


def context_terms(tensor_parallel: int = 1) -> tuple[Term, ...]:
    """The CUDA context (and NCCL's buffers between several devices), seen by the driver only."""
    terms = [
        term(
            "CUDA context and libraries",
            CONTEXT_LIKELY,
            "driver's memory of a process, kernels and cuBLAS loaded; measured 0.47 to 1.23 GiB",
            low=CONTEXT_LOW,
            high=CONTEXT_HIGH,
            metric="driver",
        )
    ]
    if tensor_parallel > 1:
        terms.append(
            term(
                "NCCL",
                NCCL_LIKELY,
                "communication buffers between devices; measured 0.34 to 1.45 GiB",
                low=NCCL_LOW,
                high=NCCL_HIGH,
                metric="driver",
            )
        )
    return tuple(terms)


def weight_rounding(model: ModelFacts, bytes_per_element: float, tensor_parallel: int = 1) -> float:
    """Bytes lost when every large weight gets a segment of its own (a replay of the allocator's rounding)."""
    lost = 0.0
    for tensor in model.tensors:
        if tensor.tied_to:
            continue
        size = math.prod(tensor.shape) * bytes_per_element
        if tensor.shard != "none":
            size /= tensor_parallel
        if size >= LARGE_BLOCK:
            lost += tensor.count * (-size % ROUND_LARGE)
    return lost


def slack_term(rounding: float, grown: float, temporary: float, permanent: float) -> Term:
    """Memory that the caching allocator holds and no tensor uses (`reserved` less `allocated`), in bytes.

    `rounding` of the weights is certain. A cache that grew by concatenation (`grown` bytes) leaves holes too small for the next,
    longer tensor: up to as much again (Qwen-7B's length sweep: between 0.1 and 1.0 of the cache). Temporary tensors leave part of their peak in pieces.
    """
    return term(
        "allocator slack",
        rounding + 0.25 * grown + 0.1 * temporary + 0.002 * permanent,
        "segments rounded to 2 MiB + a quarter of what grew by concatenation + a tenth of the temporary peak",
        low=rounding,
        high=rounding + grown + 0.35 * temporary + 0.01 * permanent + 64 * MIB,
        metric="reserved",
    )
