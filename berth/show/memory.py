"""A memory estimate for a person to read: its terms, its totals by metric, the rule of thumb beside it."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from berth.output import table
from sizing.memory.terms import METRICS
from sizing.units import GIB, count, gib

if TYPE_CHECKING:
    from rich.console import Console

    from sizing.hardware.types import InstanceType
    from sizing.memory.terms import Breakdown, MemoryEstimate
    from sizing.models.facts import ModelFacts

_METRIC_IN_WORDS = {
    "allocated": "allocated (live tensors, torch.cuda.max_memory_allocated)",
    "reserved": "reserved (with the caching allocator's slack)",
    "driver": "driver (as nvidia-smi shows the process)",
}


def show_memory(
    out: Console,
    model: ModelFacts,
    estimate: MemoryEstimate,
    situation: str,
    instance: InstanceType | None,
    devices: int,
    host_title: str = "Host memory while loading",
) -> None:
    """Print the whole estimate; `situation` says in words what it holds for, `instance` what it is held against."""
    out.print(f"{model.name}: {count(model.params)} parameters ({model.params:,}), {model.architecture}")
    _paragraph(out, situation)
    out.print()
    each = f"on each of {devices} devices" if devices > 1 else "on the device"
    _terms(out, f"Memory {each}", estimate.device)
    _totals(out, estimate.device)
    out.print()
    rule = estimate.rule_of_thumb
    share = estimate.device.total_bytes * devices / rule.total_bytes
    over = f", all {devices} devices" if devices > 1 else ""
    _paragraph(
        out,
        f"Rule of thumb: {rule.params:,} parameters × {rule.bytes_per_param:g} bytes × {rule.overhead:g} = "
        f"{gib(rule.total_bytes)}; the full estimate{over} is {share:.2f} times that.",
    )
    out.print()
    _terms(out, host_title, estimate.host)
    _range(out, "total", estimate.host)
    if instance is not None:
        out.print()
        _against(out, estimate, instance, devices)
    for note in (*estimate.device.notes, *estimate.host.notes):
        _paragraph(out, f"Note: {note}.")


def _paragraph(out: Console, text: str, indent: str = "") -> None:
    out.print(fill(text, out.width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False))


def _terms(out: Console, title: str, breakdown: Breakdown) -> None:
    drawn = table("term", "GiB", "low", "high", "formula", right=("GiB", "low", "high"), title=title, wrap=("formula",))
    for t in breakdown.terms:
        sure = t.low == t.high
        drawn.add_row(
            t.name,
            f"{t.bytes / GIB:,.3f}",
            "" if sure else f"{t.low / GIB:,.3f}",
            "" if sure else f"{t.high / GIB:,.3f}",
            t.formula,
        )
    out.print(drawn)


def _totals(out: Console, breakdown: Breakdown) -> None:
    for metric in METRICS:
        low, likely, high = (breakdown.total(metric, b) for b in ("low", "bytes", "high"))
        _paragraph(
            out, f"{_METRIC_IN_WORDS[metric]}: {gib(likely)} ({low / GIB:,.2f} to {high / GIB:,.2f})", indent="  "
        )


def _range(out: Console, name: str, breakdown: Breakdown) -> None:
    low, high = breakdown.total("driver", "low"), breakdown.total("driver", "high")
    _paragraph(out, f"{name}: {gib(breakdown.total_bytes)} ({low / GIB:,.2f} to {high / GIB:,.2f})", indent="  ")


def _against(out: Console, estimate: MemoryEstimate, instance: InstanceType, devices: int) -> None:
    from sizing.memory.loading import usable_ram_bytes

    gpu = instance.gpu
    if gpu is None:
        _paragraph(out, f"{instance.name} has no GPU.")
    else:
        room = gpu.memory_bytes - estimate.device.total_bytes
        verdict = f"fits, {gib(room)} left" if room >= 0 else f"does not fit, {gib(-room)} short"
        tight = room >= 0 and estimate.device.total("driver", "high") > gpu.memory_bytes
        lacking = f"; it has {instance.gpus} of the {devices} devices asked for" if instance.gpus < devices else ""
        _paragraph(
            out,
            f"{instance.name}: {gpu.name} leaves {gib(gpu.memory_bytes)} ({gpu.memory_source}): {verdict}"
            f"{', but not at the high end of the range' if tight else ''}{lacking}.",
        )
    usable = usable_ram_bytes(instance.memory_bytes)
    room = usable - estimate.host.total_bytes
    verdict = f"fits, {gib(room)} left" if room >= 0 else f"does not fit, {gib(-room)} short"
    _paragraph(
        out,
        f"{instance.name}: {instance.memory_bytes / GIB:g} GiB of RAM, {gib(usable)} of it usable: loading {verdict}.",
    )
