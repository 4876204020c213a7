"""A plan as text for people: the resource graph by component, each input on a line of its own. Golden files hold it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from infra.plan import Plan, PlannedResource

_LONG = ("userData",)
"""Inputs of which only a digest is shown; the script itself is a file of its own."""
_TAGS = ("project", "stack", "owner", "expiry")


def plan_text(plan: Plan) -> str:
    """Components with their resources indented below; standard tags are said once."""
    children: dict[str, list[PlannedResource]] = {}
    for resource in plan.resources:
        children.setdefault(resource.parent, []).append(resource)
    lines = [f"{plan.stack}: {plan.settings.role} in {plan.region}, {sum(r.custom for r in plan.resources)} resources"]
    lines += _branch(children, "", 0)
    lines += ["outputs"] + [
        f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sorted(plan.outputs.items())
    ]
    return "\n".join(lines) + "\n"


def _branch(children: Mapping[str, list[PlannedResource]], parent: str, depth: int) -> list[str]:
    lines: list[str] = []
    for resource in sorted(children.get(parent, []), key=lambda r: (r.custom, r.type, r.name)):
        indent = "  " * depth
        options = "".join(f" [{k}={_value(v)}]" for k, v in sorted(resource.options.items()) if k != "depends_on")
        lines.append(f"{indent}{resource.name}  {resource.type}{options}")
        lines += [f"{indent}    {line}" for line in _inputs(resource.inputs)]
        lines += _branch(children, resource.urn, depth + 1)
    return lines


def _inputs(inputs: Mapping[str, Any]) -> Iterable[str]:
    for key, value in sorted(inputs.items()):
        if key in _LONG:
            yield f"{key}: sha256 {hashlib.sha256(str(value).encode()).hexdigest()[:16]}, {len(str(value))} characters"
        elif key == "tags" and isinstance(value, Mapping) and all(t in value for t in _TAGS):
            others = {k: v for k, v in value.items() if k not in _TAGS}
            yield f"tags: standard, {_value(others)}"
        else:
            yield f"{key}: {_value(value)}"


def _value(value: Any) -> str:
    """JSON; documents that are JSON in text are opened."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.dumps(json.loads(value), ensure_ascii=False, sort_keys=True)
        except json.JSONDecodeError:
            return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
