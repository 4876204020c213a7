"""How much arithmetic a batch is, and what the GPUs could do: model FLOPs utilisation (MFU)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sizing.errors import UserError

Flops = Callable[[int, int, int], float]
"""(rows, input tokens, target tokens) of a padded batch -> operations of its forward and backward pass."""


def batch_flops(folder: Path, method: str) -> Flops | None:
    """Operations by sizing's counting rules, recomputation left out (Chowdhery et al. 2022, arXiv:2204.02311, MFU).

    None where sizing does not know the model's shape.
    """
    from sizing.models.resolve import resolve_model
    from sizing.training_plan.passes import forward_passes, passes_of

    try:
        passes = passes_of(resolve_model(str(folder)))
    except (UserError, ValueError):
        return None
    times = forward_passes(method, checkpointing=False)
    return lambda rows, tokens, target: rows * times * passes.forward(float(tokens), float(target))


def peak_flops(instance_type: str, precision: str) -> float | None:
    """Dense peak of one GPU of an instance type in FLOP/s; None where there is no published figure."""
    from sizing.hardware.load import load_hardware
    from sizing.throughput.device import device_of

    if not instance_type:
        return None
    try:
        device = device_of(load_hardware().instance(instance_type))
    except UserError:
        return None
    if isinstance(device, str):
        return None
    return device.flops_fp32 if precision == "fp32" else device.flops_16bit
