"""Percentiles and spreads of measured values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of `values` do not exceed: nearest rank, no interpolation."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99, the extremes and the mean."""
    return {
        "p50": percentile(values, 0.50),
        "p90": percentile(values, 0.90),
        "p99": percentile(values, 0.99),
        "min": min(values),
        "max": max(values),
        "mean": sum(values) / len(values),
        "count": len(values),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The median of repeated runs and how far they lie apart, in units and as a share of the median."""
    middle = median(values)
    return {
        "median": middle,
        "min": min(values),
        "max": max(values),
        "relative": (max(values) - min(values)) / middle if middle else 0.0,
        "runs": list(values),
    }
