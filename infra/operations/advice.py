"""A smaller or a larger machine, by sizing's choice run again for the work that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from infra.operations.observed import Observed
from infra.recommend import hosting_view, workload_of
from infra.settings import EndpointSettings, ServiceSettings
from sizing.choose import Choice, choose
from sizing.choosing.refusal import Refusal
from sizing.choosing.serving import Planner, Serving
from sizing.choosing.wishes import Wishes
from sizing.hardware.load import Hardware
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts
from sizing.money import month_cost
from sizing.workload import Workload

Kind = Literal["keep", "cheaper", "larger", "unknown"]
LEAST_REQUESTS = 100
"""Below so many requests a rate says nothing."""
LEAST_SAVING = 0.05
"""A saving below this share of the month is not worth a move."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to take for the work seen. Months are US dollars of the machines alone, all hosts together."""

    kind: Kind
    reasons: tuple[str, ...]
    workload: Workload | None = None
    instance_type: str = ""
    hosts: int = 0
    usd_per_month: float | None = None
    now_usd_per_month: float | None = None
    capacity_per_s: float | None = None
    """Requests a second that the machines that stand are planned for, by estimate."""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "reasons": list(self.reasons),
            "workload": None if self.workload is None else self.workload.to_json(),
            "instance_type": self.instance_type or None,
            "hosts": self.hosts or None,
            "usd_per_month": self.usd_per_month,
            "now_usd_per_month": self.now_usd_per_month,
            "capacity_requests_per_s": self.capacity_per_s,
        }


def seen_workload(settings: ServiceSettings, seen: Observed, model: ModelFacts) -> Workload | None:
    """The work that was seen, as sizing takes it: mean lengths, the requests of a day at this rate, the busiest hour
    over the mean. None where too little was seen."""
    if seen.requests is None or seen.requests < LEAST_REQUESTS or seen.rate is None:
        return None
    planned = workload_of(settings)
    tokens = seen.tokens_per_request
    lengths = (planned.input_tokens, planned.output_tokens) if tokens is None else (
        max(1, math.ceil(tokens[0])), math.ceil(tokens[1]) if model.generates else 0
    )  # fmt: skip
    factor = seen.peak_factor or planned.peak_factor
    return replace(
        planned,
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        batch=1,
        requests_per_day=seen.rate * planned.hours_per_day * 3600.0,
        peak_factor=min(factor, 1000.0),
    )


def advise(settings: ServiceSettings, region: str, model: ModelFacts, hardware: Hardware, seen: Observed) -> Advice:
    """Sizing's choice for what was seen, against what stands. A machine too small for the longest request is left out.

    The speeds are estimates; a latency that was measured above the wish counts more than any of them.
    """
    workload = seen_workload(settings, seen, model)
    if workload is None:
        had = "no requests are known" if seen.requests is None else f"only {seen.requests:,.0f} requests came"
        return Advice("unknown", (f"{had}; at least {LEAST_REQUESTS} are needed to say anything",))
    view = hosting_view(hardware, region) if isinstance(settings, EndpointSettings) else hardware
    pay = "on-demand" if isinstance(settings, EndpointSettings) else settings.purchase
    gpus = _gpus(hardware, settings.instance_type)
    wishes = Wishes(dtype=settings.dtype, region=region, pay=pay, max_gpus=gpus, loading=settings.loading)
    able = _able(model, settings, view, wishes)
    choice = choose(model, workload, able, wishes)
    return _compare(settings, region, model, view, choice, workload, wishes, seen)


def _gpus(hardware: Hardware, instance_type: str) -> int:
    return max(1, hardware.instance(instance_type).gpus)


def _able(model: ModelFacts, settings: ServiceSettings, view: Hardware, wishes: Wishes) -> Hardware:
    """The types that hold the longest request that the stack allows: memory goes by that, not by the mean."""
    planner = Planner(model, Workload(settings.input_tokens, settings.output_tokens), wishes)

    def holds(instance: InstanceType) -> bool:
        found = planner.serve(instance)
        return isinstance(found, Serving) or found.kind not in ("GPU memory", "system RAM")

    return replace(view, instances={n: i for n, i in view.instances.items() if holds(i)}, _offers={})


def _compare(
    settings: ServiceSettings,
    region: str,
    model: ModelFacts,
    view: Hardware,
    choice: Choice,
    workload: Workload,
    wishes: Wishes,
    seen: Observed,
) -> Advice:
    current = view.instances.get(settings.instance_type)
    price = view.prices.get((settings.instance_type, region))
    pay = wishes.pays(workload.latency_s is not None)[0]
    rate = None if price is None else price.usd_per_hour.get(pay)
    now = None if rate is None else settings.replicas * month_cost(rate, pay, workload.hours_per_day)
    serves: Serving | Refusal | None = None if current is None else Planner(model, workload, wishes).serve(current)
    capacity = None
    if isinstance(serves, Serving) and serves.requests_per_s_per_host is not None:
        capacity = serves.requests_per_s_per_host * settings.replicas
    if choice.chosen is None:
        miss = choice.nearest_miss()
        nearest = f"; the nearest, {miss.instance_type}: {miss.reason}" if miss else ""
        return Advice("unknown", (f"no machine carries what was seen{nearest}",), workload, now_usd_per_month=now,
                      capacity_per_s=capacity)  # fmt: skip
    chosen = choice.chosen
    name, hosts, month = chosen.instance.name, chosen.serving.hosts, chosen.usd_per_month

    def made(kind: Kind, *reasons: str) -> Advice:
        return Advice(kind, reasons, workload, name, hosts, month, now, capacity)

    short = _short(settings, serves, seen)
    if short:
        if (name, hosts) == (settings.instance_type, settings.replicas):
            return made("keep", *short, "and yet sizing finds no better one: measure with `berth verify`")
        return made("larger", *short)
    saving = None if now is None else now - month
    if (name, hosts) == (settings.instance_type, settings.replicas) or saving is None or now is None:
        return made("keep", "sizing chooses what stands, for the work that was seen")
    if saving < LEAST_SAVING * now:
        return made("keep", f"{hosts} × {name} would save ${max(0.0, saving):,.2f} of ${now:,.2f} a month: too little")
    reasons = [f"${saving:,.2f} less a month for the work that was seen"]
    if pay not in ("on-demand", "spot"):
        reasons.append(f"what stands is paid by {pay} until its term ends, used or not")
    return made("cheaper", *reasons)


def _short(settings: ServiceSettings, serves: Serving | Refusal | None, seen: Observed) -> list[str]:
    """Why what stands is too small; empty where nothing says so."""
    reasons = []
    wish = settings.latency_ms / 1000.0
    if wish and seen.latency.p95 is not None and seen.latency.p95 > wish:
        reasons.append(f"1 of 20 requests took {seen.latency.p95:.2f} s or longer, {wish:g} s are wished")
    if isinstance(serves, Refusal):
        reasons.append(f"for what was seen, {settings.instance_type} is refused: {serves.reason}")
    elif serves is not None and serves.hosts > settings.replicas:
        reasons.append(f"the busiest hour needs {serves.hosts} of {settings.instance_type}, {settings.replicas} stand")
    return reasons
