"""A model that is used rarely or in bursts: starting a machine for it, a batch job, SageMaker, against always on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizing.choose import Chosen
from sizing.models.facts import ModelFacts
from sizing.money import month_cost
from sizing.start_up import StartUp, constant, start_up
from sizing.throughput.ranges import Range
from sizing.units import HOURS_PER_MONTH
from sizing.workload import Workload

_DAYS_PER_MONTH = 365.0 / 12.0
_LEAST_BILLED_S = 60.0
"""EC2 bills by the second, a minute at least (EC2 StartInstances API reference)."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run it. `usd_per_month` None: unpriced, and `note` says why."""

    name: str
    usd_per_month: float | None
    delay_s: Range
    """From a request that finds nothing running to its answer's beginning."""
    note: str

    def to_json(self) -> dict[str, Any]:
        cost = self.usd_per_month
        return {
            "name": self.name,
            "usd_per_month": None if cost is None else round(cost, 2),
            "delay_s": self.delay_s.to_json(0),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class RareUse:
    """Ways compared at the load given, one burst a day; without a load only the start-up delay is known."""

    start_up: StartUp
    busy_hours_per_day: float | None
    """Hours in which one host answers a day's requests, one batch after the other."""
    ways: tuple[Way, ...]

    @property
    def cheapest(self) -> Way | None:
        priced = [w for w in self.ways if w.usd_per_month is not None]
        return min(priced, key=lambda w: w.usd_per_month or 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        best = self.cheapest
        busy = self.busy_hours_per_day
        return {
            "start_up": self.start_up.to_json(),
            "busy_hours_per_day": None if busy is None else round(busy, 3),
            "ways": [w.to_json() for w in self.ways],
            "cheapest": None if best is None else best.name,
        }


def rare_use(model: ModelFacts, chosen: Chosen, workload: Workload) -> RareUse:
    """Costs a month of each way to serve a day's requests, in US dollars, with the delay that each brings."""
    starting = start_up(model, chosen.instance)
    rates = chosen.price.usd_per_hour
    on_demand, hosts = rates.get("on-demand"), chosen.serving.hosts
    none = Range(0.0, 0.0, 0.0)
    ways: list[Way] = []
    if on_demand is not None:
        ways.append(Way("always on, on demand", hosts * on_demand * HOURS_PER_MONTH, none, "730 hours a month"))
    if (reserved := rates.get("reserved-1y")) is not None:
        ways.append(Way("always on, reserved-1y", hosts * reserved * HOURS_PER_MONTH, none, "committed for a year"))
    start_hours = starting.total.likely / 3600.0
    if on_demand is not None and workload.hours_per_day < 24.0:
        hours = min(24.0, workload.hours_per_day + start_hours)
        ways.append(
            Way(
                "on demand, started each day",
                hosts * month_cost(on_demand, "on-demand", hours),
                starting.total,
                f"{workload.hours_per_day:g} hours a day and {start_hours * 60:.0f} minutes of start-up",
            )
        )
    busy = _busy_hours(chosen, workload)
    if busy is not None and busy <= 24.0:
        ways.extend(_bursts(chosen, starting, busy, on_demand))
    return RareUse(starting, busy, tuple(ways))


def _busy_hours(chosen: Chosen, workload: Workload) -> float | None:
    """Hours a day that one host needs for a day's requests at the largest batch it was measured out for."""
    if workload.requests_per_day is None or chosen.bulk is None:
        return None
    return workload.requests_per_day / (chosen.bulk.requests_per_s.likely * chosen.serving.copies) / 3600.0


def _bursts(chosen: Chosen, starting: StartUp, busy: float, on_demand: float | None) -> list[Way]:
    start_hours = starting.total.likely / 3600.0
    # A request waits for the next run: none to a whole day, half a day in the mean.
    until_done = Range(starting.total.low, starting.total.likely + _DAY_S / 2, starting.total.high + _DAY_S)
    ways = []
    if on_demand is not None:
        ways.append(
            Way(
                "batch job once a day",
                _DAYS_PER_MONTH * on_demand * max(start_hours + busy, _LEAST_BILLED_S / 3600.0),
                until_done,
                f"one host, {busy * 60:.0f} minutes of work a day; requests wait for the next run",
            )
        )
    # One list rate for all components covers asynchronous and batch use too; a hosting rate alone does not.
    price = chosen.price
    rate = price.sagemaker_hosting if "sagemaker_hosting" in price.terms else None
    unpriced = "" if rate is not None else "unpriced: no rate for this use is known"
    idle_hours = constant("scale_in", "seconds") / 3600.0
    ways.append(
        Way(
            "SageMaker asynchronous, scaled to zero",
            None if rate is None else _DAYS_PER_MONTH * rate * (start_hours + busy + idle_hours),
            starting.total,
            unpriced or f"one burst a day; {idle_hours * 60:.0f} idle minutes before it scales in",
        )
    )
    ways.append(
        Way(
            "SageMaker batch transform once a day",
            None if rate is None else _DAYS_PER_MONTH * rate * (start_hours + busy),
            until_done,
            unpriced or f"{busy * 60:.0f} minutes of work a day; requests wait for the next run",
        )
    )
    return ways
