"""What the tests of infra share: plans of the committed stacks, made once, and projects of their own in a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from infra.plan import Plan, plan_stack
from infra.stack_files import ROOT, render_project, render_stack

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
"""When every plan of the tests is made."""
STACKS = ("endpoint-prod", "inference-dev", "inference-prod", "sandbox", "shared", "training")
INFERENCE: dict[str, Any] = {
    "role": "inference",
    "owner": "tests",
    "budget_per_month": 100_000,
    "alarm_email": "tests@example.com",
    "model": "google/flan-t5-xl",
    "instance_type": "g4dn.2xlarge",
    "dtype": "fp32",
    "zones": ["use1-az1", "use1-az2"],
}
ENDPOINT = {**INFERENCE, "role": "endpoint"}
TRAINING = {
    **INFERENCE,
    "role": "training",
    "instance_type": "p4d.24xlarge",
    "dtype": "bf16",
    "dataset": "datasets/tickets",
    "time_to_live": "24h",
}
SHARED: dict[str, Any] = {"role": "shared", "owner": "tests", "budget_per_month": 50}


@cache
def committed(name: str) -> Plan:
    """The plan of a stack of the repository."""
    return plan_stack(name, ROOT, clock=lambda: MOMENT)


_PLANNED: dict[str, Plan] = {}


class Project:
    """A project of its own: Pulumi.yaml, a shared stack, and the stacks that a test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stacks").mkdir()
        (root / "Pulumi.yaml").write_text(render_project(), encoding="utf-8")
        self.write("shared", SHARED)

    def write(self, name: str, values: dict[str, Any], region: str = "us-east-1") -> Path:
        path = self.root / "stacks" / f"Pulumi.{name}.yaml"
        path.write_text(render_stack(region, values, {}), encoding="utf-8")
        return path

    def plan(self, values: dict[str, Any], region: str = "us-east-1", name: str = "trial") -> Plan:
        """The plan of these settings, whose file is written as well. Equal settings are planned once a session."""
        if region != "us-east-1":
            self.write("shared", SHARED, region)
        self.write(name, values, region)
        key = json.dumps([values, region, name], sort_keys=True)
        if key not in _PLANNED:
            _PLANNED[key] = plan_stack(name, self.root, clock=lambda: MOMENT)
        return _PLANNED[key]
