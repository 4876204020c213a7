"""A memory figure is a list of named terms, each with its formula: a number shows its working."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Metric = Literal["allocated", "reserved", "driver"]
"""What a figure predicts, from small to large.

- allocated: `torch.cuda.max_memory_allocated()`: bytes of live tensors at the peak.
- reserved: `torch.cuda.max_memory_reserved()`: what the caching allocator holds; allocated + slack.
- driver: what `nvidia-smi` shows for the process: reserved + CUDA context and libraries.
"""
METRICS: tuple[Metric, ...] = ("allocated", "reserved", "driver")


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of an estimate: the likely `bytes` with a `low`..`high` range where it is uncertain."""

    name: str
    bytes: int
    formula: str
    low: int = -1
    high: int = -1
    metric: Metric = "allocated"
    """The narrowest metric that contains this term."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", self.bytes if self.low < 0 else self.low)
        object.__setattr__(self, "high", self.bytes if self.high < 0 else self.high)
        if not 0 <= self.low <= self.bytes <= self.high:
            raise ValueError(f"term {self.name}: low {self.low} <= {self.bytes} <= high {self.high} does not hold")

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "bytes": self.bytes,
            "formula": self.formula,
            "low_bytes": self.low,
            "high_bytes": self.high,
            "metric": self.metric,
        }


def term(
    name: str,
    size: float,
    formula: str,
    *,
    low: float | None = None,
    high: float | None = None,
    metric: Metric = "allocated",
) -> Term:
    """A `Term` from float sizes, rounded up to whole bytes."""
    return Term(
        name,
        math.ceil(size),
        formula,
        -1 if low is None else min(math.floor(low), math.ceil(size)),
        -1 if high is None else max(math.ceil(high), math.ceil(size)),
        metric,
    )


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The terms of one place (a GPU, a host) in bytes."""

    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()

    def total(self, metric: Metric = "driver", bound: Literal["bytes", "low", "high"] = "bytes") -> int:
        """Total bytes of the terms that `metric` contains."""
        rank = METRICS.index(metric)
        return sum(int(getattr(t, bound)) for t in self.terms if METRICS.index(t.metric) <= rank)

    @property
    def total_bytes(self) -> int:
        return self.total()

    def __getitem__(self, name: str) -> Term:
        for t in self.terms:
            if t.name == name:
                return t
        raise KeyError(name)

    def bytes_of(self, names: Iterable[str]) -> int:
        """Bytes of the terms called `names`, 0 for one that is absent."""
        wanted = set(names)
        return sum(t.bytes for t in self.terms if t.name in wanted)

    def largest(self) -> Term:
        return max(self.terms, key=lambda t: t.bytes)

    def to_json(self) -> dict[str, Any]:
        return {
            "terms": [t.to_json() for t in self.terms],
            "total_bytes": self.total_bytes,
            "low_bytes": self.total("driver", "low"),
            "high_bytes": self.total("driver", "high"),
            "metric": "driver",
            "by_metric": {
                m: {
                    "bytes": self.total(m),
                    "low_bytes": self.total(m, "low"),
                    "high_bytes": self.total(m, "high"),
                }
                for m in METRICS
            },
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class RuleOfThumb:
    """`params × bytes per parameter × 1.2`, the rule everyone quotes (EleutherAI, Transformer Math 101)."""

    params: int
    bytes_per_param: float
    overhead: float = 1.2

    @property
    def total_bytes(self) -> int:
        return math.ceil(self.params * self.bytes_per_param * self.overhead)

    def to_json(self) -> dict[str, Any]:
        return {
            "params": self.params,
            "bytes_per_param": self.bytes_per_param,
            "overhead": self.overhead,
            "total_bytes": self.total_bytes,
        }


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one device (each of them, when there are several) and of the host."""

    device: Breakdown
    host: Breakdown
    rule_of_thumb: RuleOfThumb
    assumptions: dict[str, Any] = field(default_factory=dict)
    """The settings that the figures hold for: engine, attention, loading way …"""

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device.to_json(),
            "host": self.host.to_json(),
            "rule_of_thumb": self.rule_of_thumb.to_json(),
            "assumptions": self.assumptions,
        }
