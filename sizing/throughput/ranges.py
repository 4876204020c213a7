"""A figure with its uncertainty: what to expect, and how much faster or slower it may turn out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Pace = Literal["fast", "likely", "slow"]
PACES: tuple[Pace, ...] = ("fast", "likely", "slow")
"""Which of an engine's constants a computation takes: the favourable ones, the likely ones, the unfavourable ones."""


@dataclass(frozen=True, slots=True)
class Range:
    """`low` <= `likely` <= `high`, in the unit that the field's name says."""

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high:
            raise ValueError(f"0 <= {self.low} <= {self.likely} <= {self.high} does not hold")

    def to_json(self, digits: int = 4) -> dict[str, Any]:
        return {
            "low": round(self.low, digits),
            "likely": round(self.likely, digits),
            "high": round(self.high, digits),
        }


def ordered(values: tuple[float, float, float]) -> Range:
    """A `Range` of three figures in whatever order they come."""
    low, likely, high = sorted(values)
    return Range(low, likely, high)
