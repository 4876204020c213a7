"""What a pricer has at hand: prices, usage, the stack's settings, the other resources; and the ways to make a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from infra.bill.lines import MONTH, Line, Usage
from infra.durations import OfficeHours
from infra.plan import PlannedResource
from infra.prices.table import ServicePrices, UnitPrice
from sizing.hardware.load import Hardware


@dataclass(frozen=True, slots=True)
class Pricing:
    """`purchase` is the stack's way of paying; `office_hours` its schedule; `by_id` finds what an input refers to."""

    region: str
    purchase: str
    office_hours: OfficeHours | None
    prices: ServicePrices
    hardware: Hardware
    usage: Usage
    resources: Mapping[str, PlannedResource]
    """By URN."""

    def first_of(self, type_: str, **inputs: Any) -> PlannedResource | None:
        """The first resource of a type whose inputs are as given."""
        for resource in self.resources.values():
            if resource.type == type_ and all(resource.inputs.get(k) == v for k, v in inputs.items()):
                return resource
        return None

    def parent_of_kind(self, resource: PlannedResource, type_: str) -> list[PlannedResource]:
        """Siblings of a type: what the same component declared."""
        return [r for r in self.resources.values() if r.type == type_ and r.parent == resource.parent]

    def running_hours(self) -> tuple[Decimal, str]:
        """Hours a month that a machine runs, and why fewer than all."""
        if self.office_hours is not None:
            hours = Decimal(str(round(self.office_hours.hours_per_month, 4)))
            return hours, f"office hours: {hours:.0f} h a month"
        given = self.usage.get("hours_per_month")
        if given is not None and given < MONTH:
            return given, f"usage file: {given:g} h a month"
        return MONTH, ""

    def hourly(
        self,
        resource: PlannedResource,
        item: str,
        price: UnitPrice | None,
        quantity: Decimal = Decimal(1),
        note: str = "",
    ) -> Line:
        """What costs by the hour as long as it exists."""
        if price is None:
            return self.unpriced(resource, item, quantity, "hour")
        each = price.usd * quantity
        return self._line(resource, item, price, quantity, each, each * MONTH, note)

    def monthly(
        self,
        resource: PlannedResource,
        item: str,
        price: UnitPrice | None,
        quantity: Decimal = Decimal(1),
        note: str = "",
    ) -> Line:
        """What costs by the month, billed by the part of it that has passed."""
        if price is None:
            return self.unpriced(resource, item, quantity, "month")
        each = price.usd * quantity
        return self._line(resource, item, price, quantity, each / MONTH, each, note)

    def by_usage(
        self, resource: PlannedResource, item: str, price: UnitPrice | None, key: str, scale: Decimal = Decimal(1)
    ) -> Line:
        """What costs by use: priced where the usage file has `key` (in units of `scale`), else its rate is shown."""
        used = self.usage.get(key)
        if price is None:
            return self.unpriced(resource, item, used or Decimal(0), f"usage {key}")
        if used is None:
            return Line(
                _label(resource), resource.type, item, "usage", Decimal(0), price.unit, price.usd,
                as_of=price.as_of, source=price.source, note=f"depends on {key} (--usage)",
            )  # fmt: skip
        quantity = used / scale
        each = price.usd * quantity
        return self._line(resource, item, price, quantity, each / MONTH, each, price.note)

    def unpriced(self, resource: PlannedResource, item: str, quantity: Decimal, unit: str, note: str = "") -> Line:
        return Line(
            _label(resource), resource.type, item, "unpriced", quantity, unit,
            note=note or f"no price is known in {self.region}",
        )  # fmt: skip

    def _line(
        self,
        resource: PlannedResource,
        item: str,
        price: UnitPrice,
        quantity: Decimal,
        per_hour: Decimal,
        per_month: Decimal,
        note: str,
    ) -> Line:
        return Line(
            _label(resource), resource.type, item, "priced", quantity, price.unit, price.usd, per_hour, per_month,
            per_hour, price.as_of, price.source, note or price.note,
        )  # fmt: skip


def _label(resource: PlannedResource) -> str:
    return resource.name


def number(value: Any, default: int = 1) -> Decimal:
    """A count among inputs, which may come as text."""
    try:
        return Decimal(str(value))
    except ArithmeticError:
        return Decimal(default)
