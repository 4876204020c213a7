"""What a thousand requests cost while they were answered, beside what the plan expected."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from infra.bill.bill import Bill
from infra.bill.lines import MONTH
from infra.operations.observed import Observed
from infra.resource_types import ENDPOINT_CONFIG, GROUP, INSTANCE
from infra.settings import ServiceSettings

MACHINES = (INSTANCE, GROUP, ENDPOINT_CONFIG)
"""Resource types whose cost grows with the hosts that run; the others cost by the hour that the stack stands."""


@dataclass(frozen=True, slots=True)
class Reached:
    """US dollars, at the bill's rates. None: not known, `why` says of what."""

    spent: float | None
    """In the window: hosts by the hours that they ran, the rest by the hours that the stack stood."""
    per_1000: float | None
    planned_per_1000: float | None
    """The bill's month over the requests a month that the stack plans for."""
    unpriced: tuple[str, ...]
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "usd_spent": self.spent,
            "usd_per_1000_requests": self.per_1000,
            "planned_usd_per_1000_requests": self.planned_per_1000,
            "unpriced": list(self.unpriced),
            "unknown_because": self.why or None,
        }


def reached(bill: Bill, settings: ServiceSettings, seen: Observed) -> Reached:
    """`spent = a host's rate × host hours + the rest's rate × hours stood`; `per_1000 = spent / requests × 1000`.

    Rates are those of the bill in force, whatever stood before.
    """
    planned = None
    if settings.requests_per_day:
        planned = float(bill.per_month) / (settings.requests_per_day * 365.0 / 12.0) * 1000.0
    unpriced = tuple(f"{line.resource}: {line.item}" for line in bill.with_status("unpriced"))
    hosts = Decimal(settings.replicas)
    if any(line.type in MACHINES for line in bill.with_status("unpriced")):
        return Reached(None, None, planned, unpriced, "the machine has no price")
    if seen.host_hours is None or seen.stood_hours is None:
        return Reached(None, None, planned, unpriced, "how long machines ran is not known")
    machines = rest = Decimal(0)
    for line in bill.with_status("priced"):
        if line.per_hour is None:
            continue
        if line.type in MACHINES:
            machines += line.per_hour / hosts
        else:
            rest += (line.per_month or Decimal(0)) / MONTH
    spent = float(machines) * seen.host_hours + float(rest) * seen.stood_hours
    if not seen.requests:
        why = "nobody asked" if seen.requests == 0 else "no requests are known"
        return Reached(spent, None, planned, unpriced, why)
    return Reached(spent, spent / seen.requests * 1000.0, planned, unpriced)
