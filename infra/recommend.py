"""Sizing's choice as settings that can be recorded: which machine, dtype, batch and zones a stack takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from infra.durations import parse_duration, write_instant
from infra.settings import AUTO, EndpointSettings, InferenceSettings, MachineSettings, ServiceSettings, TrainingSettings
from sizing.choose import choose
from sizing.choosing.precision import auto_dtype
from sizing.choosing.wishes import Wishes
from sizing.errors import UserError
from sizing.hardware.load import Hardware
from sizing.models.facts import ModelFacts
from sizing.workload import Workload


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`values` are settings to record; `notes` say why."""

    values: dict[str, Any]
    notes: tuple[str, ...] = field(default=())
    usd_per_month: float | None = None


def workload_of(settings: MachineSettings) -> Workload:
    """What the stack is asked to do, as sizing understands it."""
    if not isinstance(settings, ServiceSettings):
        return Workload(settings.input_tokens, settings.output_tokens)
    hours = 24.0
    if isinstance(settings, InferenceSettings) and settings.office_hours is not None:
        hours = settings.office_hours.hours_per_month * 12.0 / 365.0
    return Workload(
        settings.input_tokens,
        settings.output_tokens,
        settings.batch,
        settings.requests_per_day or None,
        settings.latency_ms / 1000.0 or None,
        hours_per_day=hours,
    )


def hosting_view(hardware: Hardware, region: str) -> Hardware:
    """The types that SageMaker hosts in the region, at its rates: what an endpoint chooses from."""
    prices = {
        key: replace(price, usd_per_hour={"on-demand": price.sagemaker_hosting})
        for key, price in hardware.prices.items()
        if key[1] == region and price.sagemaker_hosting is not None
    }
    instances = {name: hardware.instances[name] for name, _ in prices}
    return replace(hardware, instances=instances, prices=prices, _offers={})


def recommend(
    settings: MachineSettings,
    region: str,
    model: ModelFacts,
    hardware: Hardware,
    pay: str = "",
) -> Recommendation:
    """The machine that sizing chooses for these settings, whatever they record; `pay` instead of their way of paying.

    Raises `UserError` where nothing fits, with the nearest miss.
    """
    if isinstance(settings, TrainingSettings):
        return _training(settings, region, model, hardware, pay)
    endpoint = isinstance(settings, EndpointSettings)
    if endpoint:
        everywhere, hardware, pay = hardware, hosting_view(hardware, region), "on-demand"
        if not hardware.instances:
            priced = sorted({key[1] for key, price in everywhere.prices.items() if price.sagemaker_hosting is not None})
            raise UserError(
                f"no SageMaker hosting rate is known in {region}, so no instance type can be chosen for an endpoint "
                f"there; rates are known in {', '.join(priced) or 'no region'}; `berth catalog refresh --region "
                f"{region}` looks them up, and --role inference takes EC2 hosts instead"
            )
    loading = settings.loading if isinstance(settings, ServiceSettings) else ""
    wishes = Wishes(dtype=settings.dtype, region=region, pay=pay or _pay(settings), loading=loading)
    choice = choose(model, workload_of(settings), hardware, wishes)
    if choice.chosen is None:
        miss = choice.nearest_miss()
        why = f"; the nearest, {miss.instance_type}: {miss.reason}" if miss else ""
        raise UserError(f"no instance type serves {model.name} in {region} as asked{why}")
    chosen = choice.chosen
    values: dict[str, Any] = {
        "instance_type": chosen.instance.name,
        "dtype": chosen.serving.dtype,
        "batch": chosen.serving.batch,
    }
    if chosen.serving.hosts > 1:
        values["replicas"] = chosen.serving.hosts
    notes = choice.notes if choice.leaner is None else (*choice.notes, choice.leaner.line)
    return Recommendation(values, notes, chosen.usd_per_month)


def _training(
    settings: TrainingSettings, region: str, model: ModelFacts, hardware: Hardware, pay: str = ""
) -> Recommendation:
    from infra.training_job import choose_plan, values_of  # noqa: PLC0415 (only training needs the search)

    plan, notes = choose_plan(settings, region, model, hardware, pay)
    return Recommendation(values_of(plan), notes)


def _pay(settings: MachineSettings) -> str:
    return "on-demand" if settings.purchase == "capacity-block" else settings.purchase


def unrecorded(settings: MachineSettings) -> list[str]:
    """Keys that say `auto`, or a time to live without its moment: what must be written down before an `up`."""
    missing = [key for key in ("instance_type", "dtype") if getattr(settings, key) == AUTO]
    if isinstance(settings, TrainingSettings) and not settings.micro_batch_size:
        missing.append("micro_batch_size")
    if settings.time_to_live != "off" and not settings.expires_at:
        missing.append("expires_at")
    return missing


def to_record(
    settings: MachineSettings,
    region: str,
    find_model: Callable[[str], ModelFacts],
    hardware: Hardware,
    clock: Callable[[], datetime],
    *,
    run: bool = True,
) -> Recommendation:
    """The values that replace what is unrecorded; empty where everything is recorded.

    Without `run` it stays open how a training run uses a machine that is recorded.
    """
    values: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    missing = [key for key in unrecorded(settings) if run or key != "micro_batch_size"]
    if "instance_type" in missing or "micro_batch_size" in missing:
        found = recommend(settings, region, find_model(settings.model), hardware)
        values = {k: v for k, v in found.values.items() if getattr(settings, k) != v}
        notes = found.notes
    elif "dtype" in missing:
        values["dtype"] = _dtype_on(settings, find_model(settings.model), hardware)
    if not settings.zones and not settings.vpc_id:
        zones = zones_for(values.get("instance_type", settings.instance_type), region, hardware, settings.zone_count)
        if zones:
            values["zones"] = list(zones)
    lives = parse_duration(settings.time_to_live)
    if lives is not None and not settings.expires_at:
        values["expires_at"] = write_instant(clock() + lives)
    return Recommendation(values, notes)


def _dtype_on(settings: MachineSettings, model: ModelFacts, hardware: Hardware) -> str:
    gpu = hardware.instance(settings.instance_type).gpu
    if gpu is None:
        raise UserError(f"{settings.instance_type} has no GPU; no dtype can be chosen for it")
    return auto_dtype(model, gpu)


def zones_for(instance_type: str, region: str, hardware: Hardware, wanted: int) -> tuple[str, ...]:
    """Zone ids of the region that offer the type, `wanted` of them at most; empty where that is not known."""
    offering = hardware.offerings.get((instance_type, region))
    return () if offering is None else offering.az_ids[:wanted]


def differs(settings: MachineSettings, region: str, model: ModelFacts, hardware: Hardware) -> str:
    """Empty, or a warning that sizing would choose another type than the one recorded."""
    if settings.instance_type == AUTO:
        return ""
    recorded, free = settings.instance_type, settings
    if isinstance(settings, TrainingSettings):
        if not settings.examples:
            return ""
        recorded = _machines(settings.instance_type, settings.nodes)
        free = settings.model_copy(update={"instance_type": AUTO, "nodes": 1, "micro_batch_size": 0})
    try:
        found = recommend(free, region, model, hardware)
    except UserError as error:
        return f"{recorded} is recorded; {error}"
    wished = _machines(found.values["instance_type"], found.values.get("nodes", 1))
    if wished == recorded:
        return ""
    return f"{recorded} is recorded; sizing would choose {wished} with the prices in force"


def _machines(instance_type: str, nodes: int) -> str:
    return f"{nodes} × {instance_type}" if nodes > 1 else instance_type
