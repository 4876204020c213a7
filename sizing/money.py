"""What a rate by the hour comes to in a month and a year, by the way of paying."""

from __future__ import annotations

from sizing.hardware.types import Pay
from sizing.units import HOURS_PER_MONTH

_WHOLE_DAY = 24.0
COMMITTED: frozenset[Pay] = frozenset(("reserved-1y", "reserved-3y", "savings-1y", "savings-3y"))
"""Paid for every hour of the term, whatever the use."""


def paid_hours_per_month(pay: Pay, hours_per_day: float) -> float:
    """730 for what is always on or committed; else the hours of a day × 365 / 12."""
    if pay in COMMITTED or hours_per_day >= _WHOLE_DAY:
        return HOURS_PER_MONTH
    return hours_per_day * 365.0 / 12.0


def month_cost(usd_per_hour: float, pay: Pay, hours_per_day: float) -> float:
    """US dollars a month for one machine."""
    return usd_per_hour * paid_hours_per_month(pay, hours_per_day)


def year_cost(usd_per_hour: float, pay: Pay, hours_per_day: float) -> float:
    """US dollars a year for one machine: twelve months of `month_cost`."""
    return 12.0 * month_cost(usd_per_hour, pay, hours_per_day)
