"""Rules about money and machines: the budget, the end of every GPU, whether the machine can do what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from infra.bill.bill import bill_of
from infra.context import NEVER
from infra.durations import once_at, parse_instant
from infra.endings import gone_at
from infra.policy.subject import Subject, Violation, as_list, dig
from infra.resource_types import ENDPOINT_CONFIG, INSTANCE, TEMPLATE
from infra.settings import MachineSettings, ServiceSettings, TrainingSettings
from infra.training_job import too_small
from sizing.choosing.fit import LEAN_LOADING, Memories, device_short, host_short
from sizing.choosing.precision import refused_dtype
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.hardware.types import InstanceType, Pay
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model
from sizing.workload import Workload

IDLE_METRICS = ("nvidia_smi_utilization_gpu", "GPUUtilization")


def over_budget(subject: Subject) -> Iterator[Violation]:
    """The plan stays within the stack's budgets."""
    if said := bill_of(subject.plan()).over_budget():
        yield Violation("over-budget", "mandatory", "", said)


def gpu_types(subject: Subject, hardware: Hardware) -> list[tuple[str, InstanceType]]:
    """(resource, type) of everything that runs on a GPU."""
    named: list[tuple[str, str]] = []
    for resource in subject.of_type(INSTANCE, TEMPLATE):
        named.append((resource.name, str(resource.inputs.get("instanceType", ""))))
    for resource in subject.of_type(ENDPOINT_CONFIG):
        for variant in as_list(resource.inputs.get("productionVariants")):
            named.append((resource.name, str(variant.get("instanceType", "")).removeprefix("ml.")))
    found = ((name, hardware.instances.get(type_)) for name, type_ in named)
    return [(name, instance) for name, instance in found if instance is not None and instance.gpu is not None]


def gpu_guard(subject: Subject) -> Iterator[Violation]:
    """A GPU either ends by itself at an expiry, as one that trains must, or a budget and an alarm for idleness tell a
    person."""
    gpus = gpu_types(subject, load_hardware())
    if not gpus:
        return
    ends = [
        str(r.inputs.get("scheduleExpression", ""))
        for r in subject.of_type("aws:scheduler/schedule:Schedule")
        if str(r.inputs.get("scheduleExpression", "")).startswith("at(")
    ]
    if ends:
        yield from _late(subject, gpus, min(ends))
        return
    if isinstance(subject.settings, TrainingSettings):
        name, instance = gpus[0]
        yield Violation("gpu-without-guard", "mandatory", name, f"{instance.name} trains and no schedule ends it")
        return
    missing = []
    if not list(subject.of_type("aws:budgets/budget:Budget")):
        missing.append("a budget")
    watched = [
        r
        for r in subject.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
        if r.inputs.get("metricName") in IDLE_METRICS and r.inputs.get("alarmActions")
    ]
    scales_to_zero = any(r.inputs.get("minCapacity") == 0 for r in subject.of_type("aws:appautoscaling/target:Target"))
    if not watched and not scales_to_zero:
        missing.append("an alarm for an idle GPU")
    if not list(subject.of_type("aws:sns/topicSubscription:TopicSubscription")):
        missing.append("an address that is told (alarm_email)")
    if missing:
        name, instance = gpus[0]
        yield Violation(
            "gpu-without-guard", "mandatory", name,
            f"{instance.name} has no expiry (time_to_live), and lacks {', '.join(missing)}",
        )  # fmt: skip


def _late(subject: Subject, gpus: list[tuple[str, InstanceType]], end: str) -> Iterator[Violation]:
    """Machines whose schedule leaves them longer than the expiry in their tags allows."""
    expiries = {r.name: str(dig(r.inputs, "tags", "expiry") or NEVER) for r in subject.resources}
    for name, instance in gpus:
        if expiries[name] == NEVER:
            continue
        gone = gone_at(subject.settings, parse_instant(expiries[name]))
        if end > once_at(gone):
            yield Violation(
                "gpu-without-guard", "mandatory", name,
                f"{instance.name} is ended {end[3:-1]}, later than its expiry {expiries[name]} allows",
            )  # fmt: skip


def holds_model(subject: Subject) -> Iterator[Violation]:
    """The machine's GPU and RAM hold the model at the dtype and batch of the settings, or the training run."""
    settings = subject.settings
    if not isinstance(settings, ServiceSettings | TrainingSettings):
        return
    try:
        model = resolve_model(settings.model)
    except UserError as error:
        yield Violation("machine-too-small", "mandatory", "", str(error))
        return
    if isinstance(settings, TrainingSettings):
        yield from _holds_run(subject, settings, model)
        return
    workload = Workload(settings.input_tokens, settings.output_tokens, batch=settings.batch)
    memories = Memories(model, workload, settings.loading, "transformers")
    for name, instance in gpu_types(subject, load_hardware()):
        gpu = instance.gpu
        if gpu is None:
            continue
        if why := refused_dtype(settings.dtype, gpu):
            yield Violation("machine-too-small", "mandatory", name, why)
            continue
        split = instance.gpus if instance.gpus > 1 and memories.can_split(instance.gpus) else 1
        memory = memories.estimate(settings.dtype, split, settings.batch)
        why = ""
        if short := device_short(memory.device, gpu, split, settings.dtype, settings.batch):
            why = short.reason
        elif short := host_short(memory.host, instance, 1, settings.loading):
            lean = memories.host(settings.dtype, 1, LEAN_LOADING)
            fits = host_short(lean, instance, 1, LEAN_LOADING) is None
            why = short.reason + (f"; berth:loading {LEAN_LOADING} would fit (docs/loading.md)" if fits else "")
        if why:
            yield Violation("machine-too-small", "mandatory", name, f"{instance.name} cannot hold the model: {why}")


def _holds_run(subject: Subject, settings: TrainingSettings, model: ModelFacts) -> Iterator[Violation]:
    hardware = load_hardware()
    for name, instance in gpu_types(subject, hardware):
        as_planned = settings.model_copy(update={"instance_type": instance.name})
        if why := too_small(as_planned, subject.region, model, hardware):
            yield Violation("machine-too-small", "mandatory", name, why)


def purchase_offered(subject: Subject) -> Iterator[Violation]:
    """The type is offered in the region and zones, under the way of paying."""
    settings, hardware, rule = subject.settings, load_hardware(), "not-offered"
    if not isinstance(settings, MachineSettings):
        return
    for name, instance in gpu_types(subject, hardware):
        if hardware.offered(instance.name, subject.region) is False:
            yield Violation(rule, "mandatory", name, f"{instance.name} is offered in no zone of {subject.region}")
            continue
        offering = hardware.offerings.get((instance.name, subject.region))
        if offering is not None and offering.az_ids:
            elsewhere = [z for z in settings.zones if z not in offering.az_ids]
            if elsewhere:
                yield Violation(
                    rule, "mandatory", name,
                    f"{instance.name} is not offered in {', '.join(elsewhere)}; it is in {', '.join(offering.az_ids)}",
                )  # fmt: skip
        wanted = {"spot": "spot", "capacity-block": "capacity-block"}.get(settings.purchase)
        if wanted and wanted not in instance.usage_classes:
            yield Violation(rule, "mandatory", name, f"AWS offers {instance.name} under no {settings.purchase}")
            continue
        price = hardware.prices.get((instance.name, subject.region))
        known = price is not None and cast(Pay, settings.purchase) in price.usd_per_hour
        if not known and settings.purchase != "capacity-block" and settings.role != "endpoint":
            yield Violation(
                rule, "advisory", name,
                f"no {settings.purchase} rate of {instance.name} is known in {subject.region}; its cost is not checked",
            )  # fmt: skip
