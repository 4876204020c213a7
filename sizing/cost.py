"""What a choice costs: by hour, month and year under every way of paying, per request and token, and when used rarely.

A way of paying that has no price is listed as unpriced; it is never 0 and never guessed. Committed rates (reserved,
savings plans) are paid for all 730 hours of a month whatever the use. Prices are AWS list prices for Linux, machines
only: storage, data transfer and taxes come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizing.choose import Choice, Chosen, price_date
from sizing.hardware.types import PAYS, Pay, Price
from sizing.money import month_cost, paid_hours_per_month, year_cost
from sizing.rare_use import RareUse, rare_use
from sizing.units import HOURS_PER_MONTH, whole
from sizing.workload import Workload

_UPFRONT = {
    "reserved_1y_partial_upfront": "reserved-1y, part paid upfront",
    "reserved_1y_all_upfront": "reserved-1y, all paid upfront",
    "reserved_3y_partial_upfront": "reserved-3y, part paid upfront",
    "reserved_3y_all_upfront": "reserved-3y, all paid upfront",
    "convertible_1y_no_upfront": "reserved-1y, convertible",
    "convertible_3y_no_upfront": "reserved-3y, convertible",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One way of paying, US dollars. `usd_per_hour` is of one host, the rest of all hosts together."""

    pay: Pay
    usd_per_hour: float
    usd_per_month: float
    usd_per_year: float
    usd_per_1000_requests: float | None
    usd_per_million_tokens: float | None
    """Input and output tokens together."""
    as_of: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "pay": self.pay,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_month": round(self.usd_per_month, 2),
            "usd_per_year": round(self.usd_per_year, 2),
            "usd_per_1000_requests": _rounded(self.usd_per_1000_requests),
            "usd_per_million_tokens": _rounded(self.usd_per_million_tokens),
            "as_of": self.as_of,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class SageMakerLine:
    """The SageMaker real-time endpoint of the same machine, beside EC2 on demand. None: unpriced."""

    instance_type: str
    usd_per_hour: float | None
    usd_per_month: float | None
    usd_per_year: float | None
    usd_per_1000_requests: float | None
    usd_per_million_tokens: float | None
    """Input and output tokens together."""
    difference_percent: float | None
    """How much dearer than EC2 on demand; None where either is unpriced."""
    as_of: str
    note: str

    def to_json(self) -> dict[str, Any]:
        return {
            "instance_type": self.instance_type,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_month": _rounded(self.usd_per_month, 2),
            "usd_per_year": _rounded(self.usd_per_year, 2),
            "usd_per_1000_requests": _rounded(self.usd_per_1000_requests),
            "usd_per_million_tokens": _rounded(self.usd_per_million_tokens),
            "difference_percent": _rounded(self.difference_percent, 1),
            "as_of": self.as_of or None,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Costs:
    """All that a choice costs. `lines` are the priced ways of paying in the order of `PAYS`."""

    hosts: int
    hours_per_day: float
    lines: tuple[Line, ...]
    unpriced: tuple[str, ...]
    upfront: tuple[tuple[str, float], ...]
    """Effective rates an hour of one host with upfront payment or a convertible term."""
    requests_per_month: float | None
    basis: str
    """What the costs per request count on."""
    sagemaker: SageMakerLine
    rare_use: RareUse | None
    reserved_pays_above_hours: float | None
    """Hours of a day above which one year reserved costs less than on demand by the hour."""

    def line(self, pay: str) -> Line | None:
        return next((line for line in self.lines if line.pay == pay), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "hosts": self.hosts,
            "hours_per_day": self.hours_per_day,
            "currency": "USD",
            "by_pay": {line.pay: line.to_json() for line in self.lines},
            "unpriced": list(self.unpriced),
            "upfront_effective_usd_per_hour": dict(self.upfront),
            "requests_per_month": _rounded(self.requests_per_month, 0),
            "per_request_basis": self.basis or None,
            "reserved_1y_pays_above_hours_per_day": _rounded(self.reserved_pays_above_hours, 1),
            "rare_use": None if self.rare_use is None else self.rare_use.to_json(),
        }


def costs_of(choice: Choice) -> Costs:
    """The `Costs` of a choice. Raises `ValueError` when nothing was chosen."""
    chosen, workload = choice.chosen, choice.workload
    if chosen is None:
        raise ValueError("nothing was chosen, so nothing can be priced")
    price, hosts = chosen.price, chosen.serving.hosts
    lines = tuple(_line(pay, chosen, workload) for pay in PAYS if pay in price.usd_per_hour)
    reserved, on_demand = price.usd_per_hour.get("reserved-1y"), price.usd_per_hour.get("on-demand")
    return Costs(
        hosts=hosts,
        hours_per_day=workload.hours_per_day,
        lines=lines,
        unpriced=tuple(p for p in PAYS if p not in price.usd_per_hour),
        upfront=tuple((label, price.effective[name]) for name, label in _UPFRONT.items() if name in price.effective),
        requests_per_month=_requests_per_month(chosen, workload, "on-demand"),
        basis=_basis(chosen, workload),
        sagemaker=_sagemaker(chosen, workload),
        rare_use=rare_use(choice.model, chosen, workload),
        reserved_pays_above_hours=reserved / on_demand * 24.0 if reserved and on_demand else None,
    )


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _requests_per_month(chosen: Chosen, workload: Workload, pay: Pay) -> float | None:
    """Of the load; under a batch, of hosts that are never idle in the hours paid for."""
    if workload.requests_per_month is not None:
        return workload.requests_per_month
    rate = chosen.serving.requests_per_s_per_host
    if rate is None:
        return None
    return rate * chosen.serving.hosts * paid_hours_per_month(pay, workload.hours_per_day) * 3600.0


def _basis(chosen: Chosen, workload: Workload) -> str:
    if workload.requests_per_day is not None:
        return f"{whole(workload.requests_per_day)} requests a day"
    if chosen.serving.requests_per_s_per_host is None:
        return ""
    return f"a host that is never idle, at batch {chosen.serving.batch}: the least a request can cost"


def _per_request(month: float, chosen: Chosen, workload: Workload, pay: Pay) -> tuple[float | None, float | None]:
    """US dollars per 1,000 requests and per million tokens, of what a month costs."""
    requests = _requests_per_month(chosen, workload, pay)
    if requests is None:
        return None, None
    tokens = workload.input_tokens + workload.output_tokens
    return month / requests * 1e3, month / (requests * tokens) * 1e6


def _line(pay: Pay, chosen: Chosen, workload: Workload) -> Line:
    rate, hosts = chosen.price.usd_per_hour[pay], chosen.serving.hosts
    month = hosts * month_cost(rate, pay, workload.hours_per_day)
    per_1000_requests, per_million_tokens = _per_request(month, chosen, workload, pay)
    return Line(
        pay=pay,
        usd_per_hour=rate,
        usd_per_month=month,
        usd_per_year=hosts * year_cost(rate, pay, workload.hours_per_day),
        usd_per_1000_requests=per_1000_requests,
        usd_per_million_tokens=per_million_tokens,
        as_of=price_date(chosen.price, pay),
        note=_note(pay, chosen.price),
    )


def _note(pay: Pay, price: Price) -> str:
    notes = []
    if pay in price.terms:
        notes.append(price.terms[pay])
    if pay == "spot":
        if price.spot_min is not None and price.spot_max is not None:
            notes.append(f"${price.spot_min:.4g} to ${price.spot_max:.4g} by zone")
        notes.append(
            f"{price.spot_interruption} interrupted a month" if price.spot_interruption else "interruptions not known"
        )
    return "; ".join(notes)


def _sagemaker(chosen: Chosen, workload: Workload) -> SageMakerLine:
    price, hosts = chosen.price, chosen.serving.hosts
    name, rate = f"ml.{price.instance_type}", price.sagemaker_hosting
    if rate is None:
        why = f"unpriced: no hosting rate is known in {price.region}"
        return SageMakerLine(name, None, None, None, None, None, None, "", why)
    on_demand = price.usd_per_hour.get("on-demand")
    month = hosts * month_cost(rate, "on-demand", workload.hours_per_day)
    per_1000_requests, per_million_tokens = _per_request(month, chosen, workload, "on-demand")
    return SageMakerLine(
        instance_type=name,
        usd_per_hour=rate,
        usd_per_month=month,
        usd_per_year=hosts * year_cost(rate, "on-demand", workload.hours_per_day),
        usd_per_1000_requests=per_1000_requests,
        usd_per_million_tokens=per_million_tokens,
        difference_percent=None if on_demand is None else (rate / on_demand - 1.0) * 100.0,
        as_of=price.as_of.get("sagemaker", "undated"),
        note=price.terms.get("sagemaker_hosting", ""),
    )


def hours_in_words(hours_per_day: float) -> str:
    """`730 hours a month`, or what the hours of a day come to."""
    if hours_per_day >= 24.0:
        return f"{HOURS_PER_MONTH:g} hours a month"
    return f"{hours_per_day:g} hours a day, {hours_per_day * 365.0 / 12.0:.0f} a month"
