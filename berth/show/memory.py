"""A memory estimate for a person to read: its terms, its totals by metric, the rule of thumb beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.output import folded, table
from sizing.memory.terms import METRICS
from sizing.units import GIB, count, gib

if TYPE_CHECKING:
    from rich.console import Console

    from sizing.hardware.types import InstanceType
    from sizing.memory.terms import Breakdown, MemoryEstimate, Metric
    from sizing.models.facts import ModelFacts

_LEAST_BYTES = GIB / 200
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
    folded(out, situation, "")
    out.print()
    each = f"on each of {devices} devices" if devices > 1 else "on the device"
    _terms(out, f"Memory {each}", estimate.device)
    _totals(out, estimate.device)
    out.print()
    rule = estimate.rule_of_thumb
    share = estimate.device.total_bytes * devices / rule.total_bytes
    over = f", all {devices} devices" if devices > 1 else ""
    folded(
        out,
        f"Rule of thumb: {rule.params:,} parameters × {rule.bytes_per_param:g} bytes × {rule.overhead:g} = "
        f"{gib(rule.total_bytes)}; the full estimate{over} is {share:.2f} times that.",
        "",
    )
    out.print()
    _terms(out, host_title, estimate.host)
    folded(out, f"total: {gib(estimate.host.total_bytes)} ({between(estimate.host)})")
    if instance is not None:
        out.print()
        _against(out, estimate, instance, devices)
    for note in (*estimate.device.notes, *estimate.host.notes):
        folded(out, f"Note: {note}.", "")


def term_rows(breakdown: Breakdown) -> list[tuple[str, str, str]]:
    """Name, GiB and formula of each term that shows with two decimals; the others in one row."""
    shown = [t for t in breakdown.terms if t.bytes >= _LEAST_BYTES]
    small = sum(t.bytes for t in breakdown.terms if t.bytes < _LEAST_BYTES)
    rows = [(t.name, f"{t.bytes / GIB:,.2f}", t.formula) for t in shown]
    return [*rows, ("the rest", f"{small / GIB:,.2f}", "terms under 0.005 GiB")] if small else rows


def between(breakdown: Breakdown, metric: Metric = "driver") -> str:
    """`12.10 to 13.40`: the range of the total in GiB."""
    low, high = breakdown.total(metric, "low"), breakdown.total(metric, "high")
    return f"{low / GIB:,.2f} to {high / GIB:,.2f}"


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
        folded(out, f"{_METRIC_IN_WORDS[metric]}: {gib(breakdown.total(metric))} ({between(breakdown, metric)})")


def _against(out: Console, estimate: MemoryEstimate, instance: InstanceType, devices: int) -> None:
    from sizing.memory.loading import usable_ram_bytes

    gpu = instance.gpu
    if gpu is None:
        folded(out, f"{instance.name} has no GPU.", "")
    else:
        room = gpu.memory_bytes - estimate.device.total_bytes
        tight = room >= 0 and estimate.device.total("driver", "high") > gpu.memory_bytes
        lacking = f"; it has {instance.gpus} of the {devices} devices asked for" if instance.gpus < devices else ""
        folded(
            out,
            f"{instance.name}: {gpu.name} leaves {gib(gpu.memory_bytes)} ({gpu.memory_source}): {_verdict(room)}"
            f"{', but not at the high end of the range' if tight else ''}{lacking}.",
            "",
        )
    usable = usable_ram_bytes(instance.memory_bytes)
    loading = _verdict(usable - estimate.host.total_bytes)
    folded(
        out,
        f"{instance.name}: {instance.memory_bytes / GIB:g} GiB of RAM, {gib(usable)} of it usable: loading {loading}.",
        "",
    )


def _verdict(room: int) -> str:
    return f"fits, {gib(room)} left" if room >= 0 else f"does not fit, {gib(-room)} short"
