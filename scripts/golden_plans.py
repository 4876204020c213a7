"""Writes tests/infra/golden/: the plan of every committed stack as text, and a host's first-start script.

Run after a change of the programs (`make golden`), and read what changed before committing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from infra.plan import Plan, plan_stack
from infra.plan_text import plan_text
from infra.stack_files import ROOT, stack_names, write_text

FOLDER = ROOT / "tests" / "infra" / "golden"
MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def plan(name: str) -> Plan:
    return plan_stack(name, ROOT, clock=lambda: MOMENT)


def goldens(plan_of: Callable[[str], Plan] = plan) -> Iterator[tuple[Path, str]]:
    """(file, what it must hold) of every golden file."""
    for name in stack_names(ROOT):
        yield FOLDER / f"{name}.txt", plan_text(plan_of(name))
    for name in ("inference-dev", "training"):
        machine = plan_of(name).of_type("aws:ec2/instance:Instance")[0]
        yield FOLDER / f"{name}.user-data.sh", str(machine.inputs["userData"])


def main() -> None:
    for path, text in goldens():
        write_text(path, text)


if __name__ == "__main__":
    main()
