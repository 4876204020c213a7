"""The search: every machine, method, precision, strategy and micro-batch; what fits, what it costs, what wins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizing.errors import UserError
from sizing.hardware.load import Hardware
from sizing.hardware.types import Gpu, InstanceType
from sizing.memory.terms import Breakdown, MemoryEstimate, RuleOfThumb
from sizing.memory.training.setup import Method, Precision
from sizing.memory.training.trained import trained_numel
from sizing.memory.training.weights import weight_width
from sizing.models.facts import ModelFacts
from sizing.throughput.device import Device, device_of
from sizing.throughput.ranges import Range
from sizing.training_plan.fitting import Fitter, Option
from sizing.training_plan.front import cost_order, front_of, preferred
from sizing.training_plan.plan import Plan, Refused, TrainingPlan
from sizing.training_plan.pricing import Rate, pay_note, pays_of, rates_of
from sizing.training_plan.run_time import run_time
from sizing.training_plan.speed import cluster_of
from sizing.training_plan.strategies import Strategy, precision_on, quantization_gap
from sizing.training_plan.tables import mfu
from sizing.training_plan.task import METHODS, MOST_NODES, TrainingTask, TrainingWishes

CLUSTER_GBPS = 100.0
"""Network of a machine below which several of them are not joined: ZeRO would wait for it."""
_UNSEEN = MemoryEstimate(Breakdown(()), Breakdown(()), RuleOfThumb(0, 0.0))
"""Of a plan that is only compared, not shown."""
_NEAR = ("system RAM", "GPU memory", "precision", "speed unknown", "unpriced", "not offered")


@dataclass(frozen=True, slots=True)
class _Machine:
    """A type that can be trained on, with its rates."""

    instance: InstanceType
    gpu: Gpu
    device: Device
    rates: tuple[Rate, ...]


def search(model: ModelFacts, task: TrainingTask, hardware: Hardware, wishes: TrainingWishes) -> TrainingPlan:
    """The plans for fine-tuning `model` on `task`: the front, the one recommended, and why every other type lost.

    Recommended is the cheapest within the limits, at the likely estimates, that leaves a tenth of each GPU's memory
    free; where two methods cost the same on a machine, the one that trains more of the model.
    Raises `UserError` for a model without weights, or wishes that name what there is not.
    """
    if not model.tensors:
        raise UserError(f"{model.name} has no published weights, so it cannot be fine-tuned")
    fitter = Fitter(model, task, wishes)
    machines, refused = _machines(hardware, wishes)
    plans: list[Plan] = []
    by_method: dict[str, Plan | str] = {}
    for method in wishes.methods:
        found, missed = _plans_of(fitter, machines, method)
        plans.extend(found)
        refused.extend(missed)
        within = [p for p in found if p.within(wishes)]
        if within:
            by_method[method] = min(within, key=cost_order)
        else:
            by_method[method] = _why_not(found, missed, wishes)
    plans = preferred(plans)
    within = [p for p in plans if p.within(wishes)]
    best = min(within, key=cost_order, default=None)
    several = [p for p in within if p.nodes == 1 and p.setup.gpus > 1]
    shown = _Shown(fitter)
    return TrainingPlan(
        model=model,
        task=task,
        wishes=wishes,
        recommended=shown.of(best),
        front=tuple(shown.exact(p) for p in front_of(plans)),
        by_method={m: p if isinstance(p, str) else shown.exact(p) for m, p in by_method.items()},
        several_gpus=shown.of(min(several, key=cost_order, default=None)),
        refused=_reasons(plans, refused, best, wishes),
        notes=_notes(model, task, wishes, shown.of(best)),
        estimates=fitter.memories.estimates,
    )


class _Shown:
    """Plans that are shown get the estimate of their very setup; the search's own is a bound."""

    def __init__(self, fitter: Fitter) -> None:
        self._fitter = fitter
        self._known: dict[int, Plan] = {}

    def of(self, plan: Plan | None) -> Plan | None:
        return None if plan is None else self.exact(plan)

    def exact(self, plan: Plan) -> Plan:
        if id(plan) not in self._known:
            self._known[id(plan)] = replace(plan, memory=self._fitter.memories.exact(plan.setup))
        return self._known[id(plan)]


def plan_as_set(
    model: ModelFacts,
    task: TrainingTask,
    hardware: Hardware,
    wishes: TrainingWishes,
    strategy: Strategy,
    micro_batch: int,
) -> Plan:
    """The plan of a run whose every setting is given: nothing is searched, and nothing is refused for its memory.

    `wishes` names one instance, one method, one optimizer, a precision and `nodes`. Raises `UserError` for what cannot
    be run at all, a machine without a known price or speed, and a micro-batch that does not make up the global batch.
    """
    machines, refused = _machines(hardware, wishes)
    if not machines:
        why = next((r.reason for r in refused if r.instance_type == wishes.instance), "it is not known")
        raise UserError(f"{wishes.instance or 'no machine'} cannot train {model.name}: {why}")
    machine, nodes, method = machines[0], wishes.nodes or 1, wishes.methods[0]
    fitter = Fitter(model, task, wishes)
    precision = _precision(fitter, machine, method)
    if isinstance(precision, Refused):
        raise UserError(f"{machine.instance.name} cannot train {model.name}: {precision.reason}")
    option = fitter.option(
        cluster_of(machine.instance, machine.device, nodes),
        method,
        precision,
        wishes.optimizers[0],
        strategy,
        micro_batch,
    )
    plan = _plan(fitter, machine, option)
    return replace(plan, memory=fitter.memories.exact(plan.setup))


def _machines(hardware: Hardware, wishes: TrainingWishes) -> tuple[list[_Machine], list[Refused]]:
    """The types that can be trained on and have a price, cheapest first, and why the others cannot."""
    regions, pays = wishes.regions(hardware), pays_of(wishes)
    only = {hardware.instance(wishes.instance).name} if wishes.instance else None
    found: list[_Machine] = []
    refused: list[Refused] = []
    for instance in hardware.instances.values():
        if only is not None and instance.name not in only:
            continue
        gpu = instance.gpu
        if gpu is None:
            refused.append(Refused(instance.name, "no GPU", "it has no GPU"))
        elif gpu.vendor != "nvidia":
            why = f"{gpu.name} is an AWS Neuron device; DeepSpeed and bitsandbytes run on CUDA here"
            refused.append(Refused(instance.name, "AWS Neuron", why))
        elif instance.arch != "x86_64":
            why = f"its processor is {instance.arch}; the training image is x86_64"
            refused.append(Refused(instance.name, "architecture", why))
        else:
            rates = rates_of(hardware, instance.name, regions, pays)
            device = device_of(instance)
            if not rates:
                refused.append(_unpriced(hardware, instance, regions, wishes))
            elif isinstance(device, str):
                refused.append(Refused(instance.name, "speed unknown", f"speed unknown: {device}"))
            else:
                found.append(_Machine(instance, gpu, device, tuple(rates)))
    return sorted(found, key=lambda m: (min(r.usd_per_hour for r in m.rates), m.instance.name)), refused


def _unpriced(hardware: Hardware, instance: InstanceType, regions: tuple[str, ...], wishes: TrainingWishes) -> Refused:
    where = wishes.region if len(regions) == 1 else "any region"
    if all(hardware.offered(instance.name, r) is False for r in regions):
        return Refused(instance.name, "not offered", f"not offered in {where}")
    return Refused(instance.name, "unpriced", f"unpriced: no {wishes.pay} rate is known in {where}")


def _plans_of(fitter: Fitter, machines: list[_Machine], method: Method) -> tuple[list[Plan], list[Refused]]:
    """The fastest plan of each machine for a method; several machines where asked for, or where one of none does."""
    limit = fitter.wishes.max_nodes
    plans: list[Plan] = []
    missed: list[Refused] = []
    if fitter.wishes.nodes is not None:
        for machine in machines:
            _try(fitter, machine, method, fitter.wishes.nodes, plans, missed)
        return plans, missed
    for machine in machines:
        _try(fitter, machine, method, 1, plans, missed)
    if limit is not None or not plans:
        for machine in machines:
            if not _joins(machine.instance):
                continue
            nodes = 2
            while nodes <= (limit or MOST_NODES):
                _try(fitter, machine, method, nodes, plans, missed)
                nodes *= 2
    return plans, missed


def _joins(instance: InstanceType) -> bool:
    return instance.gpus >= 8 and (instance.network_gbps or 0.0) >= CLUSTER_GBPS


def _try(
    fitter: Fitter, machine: _Machine, method: Method, nodes: int, plans: list[Plan], missed: list[Refused]
) -> None:
    precision = _precision(fitter, machine, method)
    if isinstance(precision, Refused):
        missed.append(precision)
        return
    option = fitter.fit(machine.instance, machine.gpu, machine.device, method, precision, nodes)
    if isinstance(option, Refused):
        missed.append(option)
    else:
        plans.append(_plan(fitter, machine, option))


def _precision(fitter: Fitter, machine: _Machine, method: Method) -> Precision | Refused:
    wishes, gpu = fitter.wishes, machine.gpu
    precision = precision_on(fitter.model, gpu, wishes.precision)
    if precision not in ("bf16", "fp16", "fp32", "pure-bf16"):
        return Refused(machine.instance.name, "precision", precision)
    base = wishes.base_dtype or ("nf4-dq" if method == "qlora" else "")
    gap = quantization_gap(gpu, base) if base and method != "full" else ""
    if gap:
        return Refused(machine.instance.name, "precision", gap)
    return precision  # type: ignore[return-value]


def _plan(fitter: Fitter, machine: _Machine, option: Option) -> Plan:
    """`option` with its phases and its cheapest rate."""
    task, way, at = fitter.task, option.way, option.at
    cluster = cluster_of(machine.instance, machine.device, at.nodes)
    steps = task.steps(option.global_batch)
    setup = fitter.memories.with_steps(at, way.micro_batch, way.accumulation)
    width = weight_width(setup) if at.method == "full" else 4
    time = run_time(
        fitter.start_up(machine.instance),
        fitter.passes,
        way,
        cluster,
        fitter.tokens(at.method, way.micro_batch),
        steps,
        fitter.trained(at.method) * width,
    )
    hours = time.hours
    rate = min(machine.rates, key=lambda r: (r.run_usd(hours.likely, at.nodes), r.region, r.pay))
    usd = [rate.run_usd(h, at.nodes) for h in (hours.low, hours.likely, hours.high)]
    return Plan(
        instance=machine.instance,
        nodes=at.nodes,
        region=rate.region,
        pay=rate.pay,
        usd_per_hour=rate.usd_per_hour * at.nodes,
        usd=Range(usd[0], usd[1], usd[2]),
        price=rate.price,
        block=rate.block,
        setup=setup,
        strategy=at.strategy,
        global_batch=option.global_batch,
        steps=steps,
        time=time,
        mfu=mfu(machine.device.name, way.architecture, way.method, way.width),
        memory=_UNSEEN,
    )


def _why_not(found: list[Plan], missed: list[Refused], wishes: TrainingWishes) -> str:
    """Why a method has no plan within the limits, by what came nearest."""
    if found:
        nearest = min(found, key=cost_order)
        return f"{_over(nearest, wishes).reason} on {nearest.label}"
    ranked = [r for r in missed if r.kind in _NEAR]
    if not ranked:
        return "no machine can run it"
    nearest_miss = min(ranked, key=lambda r: (_NEAR.index(r.kind), r.distance))
    return f"{nearest_miss.instance_type}: {nearest_miss.reason}"


def _over(plan: Plan, wishes: TrainingWishes) -> Refused:
    """The limit that `plan` breaks."""
    name = plan.instance.name
    if wishes.max_hours is not None and plan.hours > wishes.max_hours:
        over = plan.hours - wishes.max_hours
        return Refused(
            name,
            "over hours",
            f"over --max-hours: {plan.setup.method} takes {plan.hours:,.2f} h, {over:,.2f} h more "
            f"than {wishes.max_hours:g}",
            distance=over / wishes.max_hours,
        )
    limit = wishes.max_usd or 0.0
    over = plan.usd.likely - limit
    return Refused(
        name,
        "over budget",
        f"over --max-usd: {plan.setup.method} costs ${plan.usd.likely:,.2f}, ${over:,.2f} more than ${limit:,.2f}",
        distance=over / max(limit, 1e-9),
    )


def _reasons(
    plans: list[Plan], refused: list[Refused], best: Plan | None, wishes: TrainingWishes
) -> tuple[Refused, ...]:
    """One reason a type: that of its cheapest plan, else of its nearest miss. The type recommended has none."""
    by_type: dict[str, list[Plan]] = {}
    for plan in plans:
        by_type.setdefault(plan.instance.name, []).append(plan)
    found: list[Refused] = []
    for name, group in by_type.items():
        if best is not None and name == best.instance.name:
            continue
        within = [p for p in group if p.within(wishes)]
        if within and best is not None:
            found.append(_beaten(min(within, key=cost_order), best))
        else:
            found.append(min((_over(p, wishes) for p in group), key=lambda r: r.distance))
    missed: dict[str, Refused] = {}
    for miss in refused:
        if miss.instance_type in by_type:
            continue
        known = missed.get(miss.instance_type)
        if known is None or _rank(miss) < _rank(known):
            missed[miss.instance_type] = miss
    return tuple(sorted((*found, *missed.values()), key=lambda r: (_KINDS.index(r.kind), r.distance, r.instance_type)))


_KINDS = (
    "faster and dearer",
    "dearer",
    "slower and dearer",
    "over budget",
    "over hours",
    "system RAM",
    "GPU memory",
    "precision",
    "speed unknown",
    "unpriced",
    "not offered",
    "architecture",
    "AWS Neuron",
    "no GPU",
)


def _rank(miss: Refused) -> tuple[int, float]:
    return (_NEAR.index(miss.kind) if miss.kind in _NEAR else len(_NEAR)), miss.distance


def _beaten(plan: Plan, best: Plan) -> Refused:
    more = plan.usd.likely - best.usd.likely
    what = f"{plan.setup.method} on {plan.label} takes {plan.hours:,.2f} h and costs ${plan.usd.likely:,.2f}"
    if plan.hours > best.hours:
        return Refused(
            plan.instance.name,
            "slower and dearer",
            f"slower and dearer: {what}, {plan.hours - best.hours:,.2f} h and ${more:,.2f} more than {best.label}",
            distance=more,
        )
    if plan.hours < best.hours:
        return Refused(
            plan.instance.name,
            "faster and dearer",
            f"faster and dearer: {what}, {best.hours - plan.hours:,.2f} h less and ${more:,.2f} more than {best.label}",
            distance=more,
        )
    return Refused(plan.instance.name, "dearer", f"dearer: {what}, ${more:,.2f} more than {best.label}", distance=more)


def _notes(model: ModelFacts, task: TrainingTask, wishes: TrainingWishes, best: Plan | None) -> tuple[str, ...]:
    notes = [*task.notes, *task.lengths.notes]
    if best is None:
        return tuple(notes)
    setup, gpu = best.setup, best.instance.gpu
    if best.global_batch != task.global_batch:
        notes.append(
            f"the batch of a step is {best.global_batch}, not {task.global_batch}: {setup.gpus} GPUs share it evenly"
        )
    if wishes.precision == "auto" and gpu is not None:
        why = {
            "bf16": f"{gpu.name} has it",
            "fp16": f"{gpu.name} has no bf16",
            "fp32": f"{gpu.name} has no bf16, and {model.family} overflows in fp16",
        }
        notes.append(f"{setup.precision}: {why[setup.precision]}")
    over = best.memory.device.total("driver", "high") - (gpu.memory_bytes if gpu else 0)
    if over > 0:
        notes.append("GPU memory fits as likely; at the high end of the estimate it would not: try one step first")
    if best.mfu.how == "assumed":
        notes.append(
            f"no training time measured on {gpu.name if gpu else 'this GPU'} is known: its speed is an assumption"
        )
    if any(stack.experts for stack in model.stacks):
        notes.append("no training time of a mixture of experts is known: its speed is an assumption")
    limits = (("hours", wishes.max_hours, best.time.hours.high), ("dollars", wishes.max_usd, best.usd.high))
    for unit, limit, high in limits:
        if limit is not None and high > limit:
            notes.append(f"the limit of {limit:g} {unit} holds as likely; at the slow end it takes {high:,.1f}")
    paid = pay_note(best.pay, best.usd_per_hour / best.nodes, best.nodes, best.price, best.hours, best.block)
    if paid:
        notes.append(paid)
    if 0 < best.instance.gpu_count < 1:
        notes.append(
            f"{best.instance.name} has {best.instance.gpu_count:g} of a GPU (vGPU): see that the AMI's NVIDIA driver "
            "supports that"
        )
    if setup.method != "full" and "full" in wishes.methods:
        notes.append(
            f"{setup.method} trains {_share(model, best)} of the weights; compare its answers with a full fine-tune's"
        )
    return tuple(notes)


def _share(model: ModelFacts, plan: Plan) -> str:
    return f"{trained_numel(model, plan.setup) / model.params * 100:.2g} %"


def would_fit(plan: TrainingPlan, hardware: Hardware) -> str:
    """Where nothing was recommended: what to loosen so that something is, as an option to type; empty where nothing
    helps."""
    wishes = plan.wishes
    tries: list[tuple[str, TrainingWishes]] = []
    if plan.front:  # something fits, and a limit stands in its way
        if wishes.max_hours is not None and wishes.max_nodes != MOST_NODES:
            tries.append((f"--max-nodes {MOST_NODES}", replace(wishes, max_nodes=MOST_NODES)))
        if wishes.max_usd is not None and wishes.pay != "best":
            tries.append(("--pay best", replace(wishes, pay="best")))
        if wishes.max_usd is not None and wishes.region != "any":
            tries.append(("--region any", replace(wishes, region="any")))
    else:
        others = tuple(m for m in METHODS if m not in wishes.methods)
        if others:
            tries.append((f"--method {','.join(others)}", replace(wishes, methods=others)))
        if wishes.precision != "auto":
            tries.append(("--precision auto", replace(wishes, precision="auto")))
        if "full" in wishes.methods and "adafactor" not in wishes.optimizers:
            tries.append(("--optimizer adafactor", replace(wishes, optimizers=("adafactor",))))
        if wishes.max_nodes is not None and wishes.max_nodes < MOST_NODES:
            tries.append((f"--max-nodes {MOST_NODES}", replace(wishes, max_nodes=MOST_NODES)))
        if wishes.pay not in ("best", "on-demand"):
            tries.append(("--pay best", replace(wishes, pay="best")))
    if wishes.instance:
        tries.append(("another instance type", replace(wishes, instance="")))
    for option, other in tries:
        best = search(plan.model, plan.task, hardware, other).recommended
        if best is not None:
            return (
                f"{option} would do ({best.label}, {best.setup.method}, {best.hours:,.1f} h, ${best.usd.likely:,.2f})"
            )
    return ""


__all__ = ["plan_as_set", "search", "would_fit"]
