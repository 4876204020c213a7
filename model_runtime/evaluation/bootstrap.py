"""How far a metric is certain: the percentile bootstrap over the examples, paired where two models are compared.

Efron and Tibshirani 1993; paired for two systems on one test set as in Koehn 2004 (W04-3250).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model_runtime.evaluation.scores import Rows, Score

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with the interval that holds `LEVEL` of the resampled ones."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"value": _rounded(self.value), "low": _rounded(self.low), "high": _rounded(self.high)}


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of the model, of its base where there is one, and their difference on the same examples."""

    name: str
    higher: bool
    model: Interval
    base: Interval | None = None
    difference: Interval | None = None

    @property
    def verdict(self) -> str:
        """better, worse, or no clear difference; empty without a base."""
        if self.difference is None:
            return ""
        low, high = self.difference.low, self.difference.high
        if low > 0:
            return "better" if self.higher else "worse"
        if high < 0:
            return "worse" if self.higher else "better"
        return "no clear difference"

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "higher_is_better": self.higher,
            "model": self.model.to_json(),
            "base": None if self.base is None else self.base.to_json(),
            "difference": None if self.difference is None else self.difference.to_json(),
            "verdict": self.verdict or None,
        }


def compare(model: Score, base: Score | None = None, *, draws: int = DRAWS, seed: int = 0) -> Compared:
    """Both scores resampled with the same draws of examples."""
    count = len(model.rows)
    draw = np.random.default_rng(seed)
    picks = [draw.integers(0, count, count) for _ in range(draws)]
    own = np.array([_of(model, p) for p in picks])
    if base is None:
        return Compared(model.name, model.higher, _interval(model.result, own))
    if len(base.rows) != count:
        raise ValueError(f"{model.name}: {count} and {len(base.rows)} examples cannot be paired")
    other = np.array([_of(base, p) for p in picks])
    return Compared(
        model.name,
        model.higher,
        _interval(model.result, own),
        _interval(base.result, other),
        _interval(model.result - base.result, own - other),
    )


def _of(score: Score, pick: Any) -> float:
    return score.value(score.rows[pick].sum(axis=0))


def _interval(value: float, drawn: Rows) -> Interval:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def _rounded(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
