"""What rules look at, whether it comes from the offline plan or from Pulumi's policy server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from infra.plan import UNKNOWN, Plan, PlannedResource
from infra.settings import Settings

Level = Literal["mandatory", "advisory"]


@dataclass(frozen=True, slots=True)
class Violation:
    """What a rule found. `resource` is a name, empty where the whole stack is meant."""

    rule: str
    level: Level
    resource: str
    message: str

    @property
    def said(self) -> str:
        """The rule, whose resource breaks it, and what is wrong."""
        return ": ".join(filter(None, (self.rule, self.resource, self.message)))

    def to_json(self) -> dict[str, str | None]:
        return {"rule": self.rule, "level": self.level, "resource": self.resource or None, "message": self.message}


@dataclass(frozen=True, slots=True)
class Subject:
    """A stack under examination: its settings, its resources, and the moments that its bill needs."""

    stack: str
    region: str
    settings: Settings
    resources: tuple[PlannedResource, ...]
    made_at: datetime
    expires_at: datetime | None

    @classmethod
    def of_plan(cls, plan: Plan) -> Subject:
        return cls(plan.stack, plan.region, plan.settings, plan.resources, plan.made_at, plan.expires_at)

    def plan(self) -> Plan:
        """As a plan, for the bill."""
        return Plan(self.stack, self.region, self.settings, self.resources, {}, (), self.expires_at, self.made_at)

    def of_type(self, *types: str) -> Iterable[PlannedResource]:
        return (r for r in self.resources if r.type in types)


def dig(inputs: Mapping[str, Any], *path: str) -> Any:
    """A nested input, None where a step is missing."""
    found: Any = inputs
    for step in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def is_true(value: Any) -> bool:
    """Launch templates write truth as text."""
    return value is True or value == "true"


def is_unknown(value: Any) -> bool:
    """Whether a value will be known only after an `up`."""
    return value == UNKNOWN


def statements(document: Any) -> list[Mapping[str, Any]]:
    """The statements of a policy document in JSON; none where it is not known yet."""
    if not isinstance(document, str) or is_unknown(document):
        return []
    try:
        parsed = json.loads(document)
    except json.JSONDecodeError:
        return []
    found = parsed.get("Statement", []) if isinstance(parsed, Mapping) else []
    return found if isinstance(found, list) else [found]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
