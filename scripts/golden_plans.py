"""Writes tests/infra/golden/: the plan of every committed stack as text, and a host's first-start script.

Run after a change of the programs (`make golden`), and read what changed before committing it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from infra.plan import Plan, plan_stack
from infra.plan_text import plan_text
from infra.stack_files import ROOT, stack_names, write_text

FOLDER = ROOT / "tests" / "infra" / "golden"
MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def plan(name: str) -> Plan:
    return plan_stack(name, ROOT, clock=lambda: MOMENT)


def golden_files() -> list[Path]:
    """Every golden file, without planning anything."""
    plans = [FOLDER / f"{name}.txt" for name in stack_names(ROOT)]
    return [*plans, *(FOLDER / f"{name}.user-data.sh" for name in ("inference-dev", "training"))]


def golden_text(path: Path, plan_of: Callable[[str], Plan] = plan) -> str:
    """What the golden file `path` must hold."""
    name, _, kind = path.name.partition(".")
    if kind == "txt":
        return plan_text(plan_of(name))
    machine = plan_of(name).of_type("aws:ec2/instance:Instance")[0]
    return str(machine.inputs["userData"])


def main() -> None:
    for path in golden_files():
        write_text(path, golden_text(path))


if __name__ == "__main__":
    main()
