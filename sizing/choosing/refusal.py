"""Why an instance type was not taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "no GPU",
    "AWS Neuron",
    "architecture",
    "too many GPUs",
    "dtype",
    "GPU memory",
    "system RAM",
    "not offered",
    "unpriced",
    "speed unknown",
    "latency",
    "over budget",
    "costs more",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`short_bytes`: how much memory was missing, None where memory was not the reason."""

    instance_type: str
    kind: Kind
    reason: str
    short_bytes: int | None = None
    distance: float = 0.0
    """How far it missed, for ordering among refusals of its kind: bytes, seconds or dollars a month."""

    def to_json(self) -> dict[str, Any]:
        return {"instance_type": self.instance_type, "reason": self.reason, "short_bytes": self.short_bytes}
