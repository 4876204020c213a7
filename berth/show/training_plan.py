"""A training plan for a person to read: the machine, time and cost, the settings, the alternatives, why others lost."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from berth.output import folded, table
from berth.show.choice import usd
from berth.show.memory import term_rows
from sizing.memory.loading import usable_ram_bytes
from sizing.training_plan.costs import cost_lines
from sizing.units import GIB, count, gib, whole

if TYPE_CHECKING:
    from rich.console import Console

    from sizing.hardware.load import Hardware
    from sizing.throughput.ranges import Range
    from sizing.training_plan.plan import Plan, Refused, TrainingPlan

_FIRST_OF_KIND = 3
_PLAIN = ("no GPU", "AWS Neuron", "architecture", "not offered", "unpriced", "speed unknown")
"""Kinds whose members all have the same reason."""
_PHASES = {
    "boot": "boot",
    "image_pull": "container image",
    "model_download": "model download",
    "model_load": "loading",
    "warm_up": "warm-up",
    "training": "training",
    "evaluation": "evaluation",
    "checkpoint_upload": "checkpoint upload",
}


def show_training_plan(out: Console, found: TrainingPlan, plan: Plan, hardware: Hardware) -> None:
    """Print the whole answer; `plan` is the one recommended."""
    _show_plan(out, found, plan)
    _show_methods(out, found)
    _show_front(out, found, plan)
    _show_time(out, plan)
    _show_memory(out, plan)
    _show_costs(out, plan, hardware)
    _show_refused(out, found.refused)


def duration(hours: float) -> str:
    """`38 min`, `2.5 h`, `2 d 4 h`."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    if hours < 48:
        return f"{hours:.3g} h"
    days, rest = divmod(round(hours), 24)
    return f"{days} d {rest} h"


def _between(figure: Range) -> str:
    return f"{duration(figure.low)} and {duration(figure.high)}"


def _show_plan(out: Console, found: TrainingPlan, plan: Plan) -> None:
    from rich.text import Text

    model, task, setup, gpu = found.model, found.task, plan.setup, plan.instance.gpu
    out.print(f"{model.name}: {count(model.params)} parameters, {model.architecture}, {model.licence}")
    epochs = f"{task.epochs:g} epoch{'s' if task.epochs != 1 else ''}"
    folded(
        out, f"{whole(task.examples)} examples, {epochs}, {plan.global_batch} a step: {plan.steps:,} steps", indent=""
    )
    out.print()
    out.print(
        Text(plan.label, style="bold")
        + Text(f" in {plan.region}, {plan.pay}: ")
        + Text(f"{duration(plan.hours)}, {usd(plan.usd.likely)}", style="bold")
        + Text(f" at {usd(plan.usd_per_hour)} an hour")
    )
    folded(out, f"between {_between(plan.time.hours)}, {usd(plan.usd.low)} and {usd(plan.usd.high)}")
    each = (
        f" × {setup.gradient_accumulation_steps} steps of accumulation" if setup.gradient_accumulation_steps > 1 else ""
    )
    folded(
        out,
        f"{setup.method} fine-tuning in {setup.precision} with {setup.optimizer} on {setup.gpus} × "
        f"{gpu.name if gpu else 'no GPU'}: {plan.strategy.label}; micro-batch {setup.micro_batch}{each}",
    )
    if gpu is not None:
        device = plan.memory.device
        folded(
            out,
            f"GPU memory {gib(device.total_bytes)} of {gib(gpu.memory_bytes)} each: {plan.free_share:.0%} left free "
            f"({gib(device.total('driver', 'low'))} to {gib(device.total('driver', 'high'))}); system RAM "
            f"{gib(plan.memory.host.total_bytes)} of {gib(usable_ram_bytes(plan.instance.memory_bytes))} usable",
        )
    for note in found.notes:
        folded(out, note)


def _show_methods(out: Console, found: TrainingPlan) -> None:
    if len(found.by_method) < 2:
        return
    money = ("time", "cost", "an hour")
    drawn = table("method", "cheapest machine", *money, right=money, wrap=("method", "cheapest machine"))
    for method, best in found.by_method.items():
        if isinstance(best, str):
            drawn.add_row(method, f"none: {best}", "", "", "")
        else:
            drawn.add_row(method, *_figures(best))
    several = found.several_gpus
    if several is not None:
        drawn.add_section()
        drawn.add_row(f"{several.setup.method}, several GPUs", *_figures(several))
    out.print()
    out.print(drawn)


def _figures(plan: Plan) -> tuple[str, str, str, str]:
    gpu = plan.instance.gpu
    machine = f"{plan.label} ({plan.setup.gpus} × {gpu.name if gpu else 'no GPU'})"
    return machine, duration(plan.hours), usd(plan.usd.likely), usd(plan.usd_per_hour)


def _show_front(out: Console, found: TrainingPlan, plan: Plan) -> None:
    drawn = table("hours against dollars", "method", "how", "time", "cost", right=("time", "cost"), wrap=("how",))
    for point in found.front:
        setup = point.setup
        how = f"{setup.precision}, {point.strategy.label}, micro-batch {setup.micro_batch}"
        same = point.label == plan.label and setup.method == plan.setup.method
        within = "" if point.within(found.wishes) else " (over a limit)"
        name = f"{point.label}{' ← recommended' if same else within}"
        drawn.add_row(name, setup.method, how, duration(point.hours), usd(point.usd.likely))
    out.print()
    out.print(drawn)
    out.print()
    folded(out, "No other plan is both faster and cheaper than one of these.", "")


def _show_time(out: Console, plan: Plan) -> None:
    drawn = table("where the time goes", "likely", "from", "to", right=("likely", "from", "to"))
    for name, phase in plan.time.phases.items():
        drawn.add_row(_PHASES[name], *(_clock(s) for s in (phase.likely, phase.low, phase.high)))
    drawn.add_section()
    total = plan.time.total
    drawn.add_row("in all", *(_clock(s) for s in (total.likely, total.low, total.high)))
    out.print()
    out.print(drawn)
    step = plan.time.step
    parts = {
        "computing": step.compute,
        "launching": step.launch,
        "communicating": step.communication - step.hidden,
        "the host": step.host,
        "updating weights": step.optimizer,
    }
    shares = ", ".join(f"{name} {part / step.total:.0%}" for name, part in parts.items() if part / step.total >= 0.005)
    out.print()
    mfu = plan.mfu
    folded(
        out,
        f"A step takes {step.total:,.3g} s: {shares}. The GPU is counted on for {mfu.share.likely:.0%} of its "
        f"published throughput ({mfu.share.low:.0%} to {mfu.share.high:.0%}; {mfu.how}: {mfu.source}).",
        "",
    )


def _clock(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else duration(seconds / 3600)


def _show_memory(out: Console, plan: Plan) -> None:
    drawn = table("GPU memory, each", "GiB", "how", right=("GiB",), wrap=("how",))
    device = plan.memory.device
    for row in term_rows(device):
        drawn.add_row(*row)
    drawn.add_section()
    drawn.add_row("in all", f"{device.total_bytes / GIB:,.2f}", str(plan.memory.assumptions.get("strategy", "")))
    out.print()
    out.print(drawn)


def _show_costs(out: Console, plan: Plan, hardware: Hardware) -> None:
    lines = cost_lines(plan, hardware)
    drawn = table("paid by", "an hour", "this run", "price of", "note", right=("an hour", "this run"), wrap=("note",))
    for line in lines:
        if line.usd is not None and line.usd_per_hour is not None:
            drawn.add_row(line.pay, usd(line.usd_per_hour), usd(line.usd), line.as_of, line.note)
    out.print()
    out.print(drawn)
    out.print()
    unpriced = [line.pay for line in lines if line.usd is None]
    if unpriced:
        folded(out, f"Unpriced: {', '.join(unpriced)} (`berth catalog refresh` looks them up).", "")
    folded(out, "Machines only: storage, data transfer and taxes come on top.", "")


def _show_refused(out: Console, refused: tuple[Refused, ...]) -> None:
    out.print()
    out.print("Why not the others (--json has every reason)")
    for kind, members in groupby(refused, key=lambda r: r.kind):
        group = list(members)
        if kind in _PLAIN:
            folded(out, f"{kind}: {', '.join(r.instance_type for r in group)}")
            continue
        for refusal in group[:_FIRST_OF_KIND]:
            folded(out, f"{refusal.instance_type}: {refusal.reason}")
        if len(group) > _FIRST_OF_KIND:
            names = ", ".join(r.instance_type for r in group[_FIRST_OF_KIND:])
            folded(out, f"{kind}, also: {names}")
