"""The bill of a plan: lines, totals, what has no price; and the difference that a change makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from infra.bill.lines import MONTH, Line, Usage, cents
from infra.bill.pricers import FREE, PRICERS
from infra.bill.pricing import Pricing
from infra.endings import gone_at
from infra.plan import Plan, PlannedResource
from infra.prices.table import ServicePrices, load_services
from infra.settings import InferenceSettings, MachineSettings, TrainingSettings
from sizing.hardware.load import Hardware, load_hardware

_NUMBER = re.compile(r"(?<= )\d+")


@dataclass(frozen=True, slots=True)
class Bill:
    """Amounts in US dollars over the priced lines; the others are listed and count nothing.

    `ends_at`: when its machines are gone at worst, minutes after the expiry where a training node saves its work then.
    `hours` is the time until it (None: the stack never ends, and its worst case is a month's).
    """

    stack: str
    region: str
    lines: tuple[Line, ...]
    hours: Decimal | None
    ends_at: datetime | None
    budget_per_month: Decimal
    budget_per_run: Decimal | None = None

    def with_status(self, status: str) -> list[Line]:
        return [line for line in self.lines if line.status == status]

    @property
    def per_hour(self) -> Decimal:
        """While everything runs."""
        return sum((line.per_hour for line in self.lines if line.per_hour is not None), Decimal(0))

    @property
    def per_month(self) -> Decimal:
        return sum((line.per_month for line in self.lines if line.per_month is not None), Decimal(0))

    @property
    def worst_hours(self) -> Decimal:
        return MONTH if self.hours is None else self.hours

    @property
    def worst_case(self) -> Decimal:
        """The most that is spent until the end: nothing ever stops, and scaling stands at its maximum."""
        amounts = (line.until(self.worst_hours) for line in self.lines)
        return sum((a for a in amounts if a is not None), Decimal(0))

    @property
    def month_to_compare(self) -> Decimal:
        """What counts against the monthly budget: the month, or less where the stack ends before."""
        if self.hours is not None and self.hours < MONTH:
            return min(self.per_month, self.worst_case)
        return self.per_month

    def over_budget(self) -> str:
        """Empty, or which budget the plan passes and by how much. At the very cent it is still within."""
        month = cents(self.month_to_compare)
        if month > self.budget_per_month:
            over = month - self.budget_per_month
            return f"${month:,.2f} a month is ${over:,.2f} over budget_per_month ({self.budget_per_month:,.0f})"
        run = cents(self.worst_case)
        if self.budget_per_run and run > self.budget_per_run:
            over = run - self.budget_per_run
            return f"${run:,.2f} until the expiry is ${over:,.2f} over budget_per_run ({self.budget_per_run:,.0f})"
        return ""

    def to_json(self) -> dict[str, Any]:
        return {
            "currency": "USD",
            "lines": [
                {**line.to_json(), "usd_worst_case": _float(line.until(self.worst_hours))}
                for line in self.lines
                if line.status != "free"
            ],
            "free": [line.resource for line in self.with_status("free")],
            "unpriced": [f"{line.resource}: {line.item}" for line in self.with_status("unpriced")],
            "depends_on_usage": [f"{line.resource}: {line.item}" for line in self.with_status("usage") if line.item],
            "usd_per_hour": float(self.per_hour),
            "usd_per_month": float(cents(self.per_month)),
            "worst_case": {
                "usd": float(cents(self.worst_case)),
                "hours": float(self.worst_hours),
                "until": self.ends_at.isoformat() if self.ends_at else None,
            },
            "budget_per_month": float(self.budget_per_month),
            "budget_per_run": None if self.budget_per_run is None else float(self.budget_per_run),
            "over_budget": self.over_budget() or None,
        }


def _float(amount: Decimal | None) -> float | None:
    return None if amount is None else float(cents(amount))


def bill_of(
    plan: Plan,
    *,
    usage: Usage | None = None,
    hardware: Hardware | None = None,
    prices: ServicePrices | None = None,
    resources: Iterable[PlannedResource] | None = None,
) -> Bill:
    """The bill of a plan, or of `resources` under the plan's settings (what stands today, say)."""
    settings = plan.settings
    found = {r.urn: r for r in (plan.resources if resources is None else resources)}
    pricing = Pricing(
        region=plan.region,
        purchase=settings.purchase if isinstance(settings, MachineSettings) else "on-demand",
        office_hours=settings.office_hours if isinstance(settings, InferenceSettings) else None,
        prices=prices or load_services(),
        hardware=hardware or load_hardware(),
        usage=usage or Usage(),
        resources=found,
    )
    lines: list[Line] = []
    for resource in found.values():
        lines += price_resource(resource, pricing)
    hours = None
    ends_at = None if plan.expires_at is None else gone_at(settings, plan.expires_at)
    if ends_at is not None:
        seconds = max(0.0, (ends_at - plan.made_at).total_seconds())
        hours = Decimal(str(seconds)) / Decimal(3600)
    run = Decimal(settings.budget_per_run) if isinstance(settings, TrainingSettings) else None
    return Bill(plan.stack, plan.region, tuple(lines), hours, ends_at, Decimal(settings.budget_per_month), run or None)


def price_resource(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """The lines of one resource: components and Pulumi's own cost nothing, an unknown type of AWS is unpriced."""
    if not resource.custom or not resource.type.startswith("aws:"):
        return []
    if resource.type in PRICERS:
        return PRICERS[resource.type](resource, pricing)
    if resource.type in FREE:
        return [Line(resource.name, resource.type, "", "free", note=FREE[resource.type])]
    return [pricing.unpriced(resource, resource.type, Decimal(1), "", "no pricer knows this type")]


@dataclass(frozen=True, slots=True)
class Change:
    """A line that a change adds (`before` None), removes (`after` None) or alters. US dollars a month."""

    before: Line | None
    after: Line | None

    @property
    def per_month(self) -> Decimal:
        old = self.before.per_month if self.before and self.before.per_month is not None else Decimal(0)
        new = self.after.per_month if self.after and self.after.per_month is not None else Decimal(0)
        return new - old

    @property
    def line(self) -> Line:
        found = self.after or self.before
        if found is None:
            raise ValueError("a change without lines")
        return found

    def to_json(self) -> dict[str, Any]:
        kind = "adds" if self.before is None else "removes" if self.after is None else "alters"
        unknown = any(line is not None and line.status == "unpriced" for line in (self.before, self.after))
        return {
            "change": kind,
            "resource": self.line.resource,
            "type": self.line.type,
            "item": self.line.item,
            "usd_per_month": None if unknown else float(cents(self.per_month)),
        }


def difference(before: Bill, after: Bill) -> list[Change]:
    """What a change adds and removes a month, line by line, unchanged lines left out."""
    old, new = _by_place(before), _by_place(after)
    changes = [Change(old.get(place), new.get(place)) for place in sorted({*old, *new})]
    return [c for c in changes if c.before is None or c.after is None or _differs(c.before, c.after)]


def _by_place(bill: Bill) -> Mapping[tuple[str, str, str], Line]:
    """Lines by resource, type and what they price; a machine's type may change under the same resource."""
    return {
        (line.resource, line.type, _place(line)): line for line in bill.lines if line.status in ("priced", "unpriced")
    }


def _place(line: Line) -> str:
    """What a line prices, whatever its size: another type is the same machine, a larger disk the same disk."""
    return "machine" if "." in line.item.split(" ")[0] else _NUMBER.sub("#", line.item)


def _differs(before: Line, after: Line) -> bool:
    return replace(before, note="", source="", as_of="") != replace(after, note="", source="", as_of="")
