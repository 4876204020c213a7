"""What a GPU process takes beside tensors: the CUDA context with its libraries, and the caching allocator's slack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sizing.memory.terms import Term, term
from sizing.models.facts import ModelFacts, Tensor
from sizing.units import GIB, MIB

# Device memory of a process that has run a model, less what PyTorch reserved. Measured: 0.47 GiB for the bare context
# on an A100, loaded lazily (torch 2.1.1, stas00/ml-engineering@744d01e); 1.24 GiB with the libraries of a Llama-2-13B
# run (A100, torch 2.0.1, NVML peak less reserved: huggingface/optimum tests/benchmark/README.md against the allocations
# replayed here); 1.79 GiB for vLLM on an H100 (vllm PR #10511). Likely is between the bare context and the A100's.
A100_WITH_LIBRARIES = 1.24 * GIB
CONTEXT_LOW = 0.45 * GIB
CONTEXT_LIKELY = 0.95 * GIB
CONTEXT_HIGH = 1.8 * GIB
# The first NCCL collective: 2.00 GiB after a barrier against 0.55 before (stas00/ml-engineering@744d01e);
# AIConfigurator's table has 0.34-0.39 GB for 2-4 GPUs of current NCCL.
NCCL_LOW = 0.33 * GIB
NCCL_LIKELY = 0.45 * GIB
NCCL_HIGH = 1.45 * GIB

LARGE_BLOCK = 10 * MIB
"""Allocations from here on get a segment of their own, rounded up to 2 MiB (`kMinLargeAlloc`, `kRoundLarge`)."""
ROUND_LARGE = 2 * MIB
PARTLY_USED = 256 * MIB
"""Segments that are only partly in use (20 MiB pools of mid-sized tensors, split remainders): Qwen-1.8B to 14B on an
A100 had 0.06 to 0.68 GiB beside tensors."""


# cuBLAS and cuBLASLt workspaces, taken through PyTorch's allocator: 8.1 MiB by default, 32 MiB on Hopper (torch
# aten/src/ATen/cuda/CublasHandlePool.cpp, `parseChosenWorkspaceSize`); Qwen1.5's A100 tables show 24 to 30 MiB beside
# tensors.
WORKSPACE_LOW = 8 * MIB
WORKSPACE_LIKELY = 26 * MIB
WORKSPACE_HIGH = 64 * MIB


def workspace_term() -> Term:
    """Workspaces of the matrix libraries, in bytes; part of allocated memory."""
    return term(
        "kernel workspaces",
        WORKSPACE_LIKELY,
        "cuBLAS and cuBLASLt workspaces: 8 MiB by default, 32 MiB on Hopper",
        low=WORKSPACE_LOW,
        high=WORKSPACE_HIGH,
    )


def context_terms(tensor_parallel: int = 1) -> tuple[Term, ...]:
    """The CUDA context (and NCCL's buffers between several devices), seen by the driver only."""
    terms = [
        term(
            "CUDA context and libraries",
            CONTEXT_LIKELY,
            "driver's memory of a process, kernels and cuBLAS loaded; measured 0.47 to 1.79 GiB",
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


def weight_rounding(model: ModelFacts, width: Callable[[Tensor], float], tensor_parallel: int = 1) -> float:
    """Bytes lost when every large weight gets a segment of its own (a replay of the allocator's rounding).

    `width`: bytes of an element of a tensor as it is loaded.
    """
    lost = 0.0
    for tensor in model.tensors:
        if tensor.tied_to:
            continue
        size = math.prod(tensor.shape) * width(tensor)
        if tensor.shard != "none":
            size /= tensor_parallel
        if size >= LARGE_BLOCK:
            lost += tensor.count * (-size % ROUND_LARGE)
    return lost


def slack_term(rounding: float, grown: float, phases: Sequence[tuple[float, float]], permanent: float) -> Term:
    """Memory that the caching allocator holds and no tensor uses (`reserved` less `allocated`), in bytes.

    `rounding` of the weights is certain. A cache that grew by concatenation (`grown` bytes) leaves holes too small for
    the next, longer tensor: up to as much again (Qwen-7B's length sweep: up to 0.5 of the cache), though the allocator
    gives them back before it reports that memory ran out. Temporary tensors leave part of their peak in pieces.

    `phases`: peak and temporary bytes of each phase of a request. The allocator gives nothing back between them, so
    what it holds in the end is the most that any phase made it hold, less the peak of all that is counted elsewhere.
    """
    highest = max(peak for peak, _ in phases)

    def held(share: float) -> float:
        return max(peak + share * temporary for peak, temporary in phases) - highest

    return term(
        "allocator slack",
        rounding + 0.1 * grown + held(0.1) + PARTLY_USED,
        "rounding to 2 MiB + a tenth of what grew by concatenation and of temporary tensors + 256 MiB partly used",
        low=rounding,
        high=rounding + grown + held(0.35) + 0.01 * permanent + 2 * PARTLY_USED,
        metric="reserved",
    )
