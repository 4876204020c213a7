"""Numbers as a reader of the report sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNPRICED = "unpriced"
PAY_NAMES = {
    "on-demand": "on demand",
    "reserved-1y": "reserved, 1 year",
    "reserved-3y": "reserved, 3 years",
    "savings-1y": "savings plan, 1 year",
    "savings-3y": "savings plan, 3 years",
    "spot": "spot",
    "capacity-block": "capacity block",
    "sagemaker-training": "SageMaker training job",
}


def usd(amount: float | None) -> str:
    """US dollars with cents; what has no price is said to have none."""
    return UNPRICED if amount is None else f"${amount:,.2f}"


def pay_name(pay: str) -> str:
    return PAY_NAMES.get(pay, pay)


def likely(value: Mapping[str, Any], unit: str = "", digits: int = 3) -> str:
    """A range: `2.83 s (1.89 to 5.95)`."""
    shown = [f"{value[key]:.{digits}g}" for key in ("likely", "low", "high")]
    return f"{shown[0]}{unit} ({shown[1]} to {shown[2]})"


def percent(share: float) -> str:
    return f"{share:+.1%}"


def number(value: float) -> str:
    """Three significant digits and thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(spread: Mapping[str, Any] | None) -> str:
    """The median of a measured spread; a dash where nothing was measured."""
    return "–" if spread is None else f"{spread['median']:.3g}"
