"""What is told of a stack that is made or removed, by whatever does it: each step, and what stays against its will."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One resource made, changed or removed. `number` counts from 1; `total` is 0 where it is not known."""

    verb: str
    type: str
    name: str
    id: str
    number: int
    total: int = 0


Tell = Callable[[Step], None]


def silent(_step: Step) -> None:
    """A `Tell` for nobody."""


@dataclass(frozen=True, slots=True)
class Left:
    """A resource that could not be removed, and why."""

    type: str
    name: str
    id: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"type": self.type, "name": self.name, "id": self.id, "reason": self.reason}
