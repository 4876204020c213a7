"""What `pulumi` itself says of a stack that is not ready, or that the policies refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cli import EngineProject, World, needs_cli, steps
from infra_projects import SHARED, Project

from infra.engine_preview import cli, standing
from infra.preview import preview_stack
from infra.sandbox import server
from infra.stack_files import ROOT

pytestmark = [pytest.mark.engine, needs_cli]
POLICIES = str(ROOT / "infra" / "policy")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, server.Server]]:
    folder = tmp_path_factory.mktemp("engine")
    with server.locked(folder):
        started = server.start(folder)
    yield folder, started
    server.stop(folder)


def test_what_is_not_recorded_or_wrong_stops_an_up_in_one_line_before_any_resource(
    local: tuple[Path, server.Server], project: Project
) -> None:
    project.write("trial", {
        "role": "inference", "owner": "tests", "budget_per_month": 500, "model": "google/flan-t5-small",
    })  # fmt: skip
    project.write("typo", {**SHARED, "ownre": "me"})
    engine = EngineProject(project.root, project.root / "engine", local[1].endpoint)
    for stack, said in (
        ("trial", "stack trial: not yet recorded: instance_type, dtype"),
        ("trial", "run `berth settings trial --record`"),
        ("typo", "unknown key of stack typo 'ownre'; did you mean owner"),
    ):
        if stack not in engine.run("stack", "ls"):
            engine.init(stack)
        told = engine.run("up", "--yes", "--skip-preview", "--stack", stack, fails=True)
        assert said in " ".join(told.split())
        assert "Traceback" not in told
        assert [r["type"] for r in engine.state(stack) if not r["type"].startswith("pulumi:")] == []


@pytest.mark.slow
def test_a_policy_stops_pulumi_up_before_anything_is_made(local: tuple[Path, server.Server]) -> None:
    world = World(*local)
    project = world.project
    project.init("inference-dev")
    passes = project.preview("inference-dev", "--policy-pack", POLICIES)
    assert set(steps(passes).values()) == {"create"}
    project.set("inference-dev", {"budget_per_month": 10})
    told = " ".join(
        project.run("up", "--yes", "--stack", "inference-dev", "--policy-pack", POLICIES, fails=True).split()
    )
    assert "over-budget" in told
    assert "over budget_per_month" in told
    assert world.left("inference-dev") == []


@pytest.mark.slow
def test_the_bill_of_a_real_preview_is_the_difference_that_the_plans_make(tmp_path: Path) -> None:
    """Before the first `up` everything is added; another machine changes its line; a second host adds and removes."""
    with server.locked(tmp_path):
        local = server.start(tmp_path)
    try:
        project, stack, written = World(tmp_path, local).project, "inference-dev", tmp_path / "preview.json"
        project.init(stack)

        def change() -> dict[str, Any]:
            written.write_text(json.dumps(project.preview(stack)), encoding="utf-8")
            found: dict[str, Any] = preview_stack(stack, project.folder, previewed=written).to_json()["change"]
            return found

        def bill() -> float:
            return float(preview_stack(stack, project.folder).to_json()["bill"]["usd_per_month"])

        one_small = bill()
        first = change()
        assert (first["usd_per_month_before"], first["usd_per_month"]) == (0, one_small)
        project.up(stack)
        assert change()["lines"] == []
        asked = preview_stack(
            stack, project.folder, look=lambda name: standing(name, cli(project.folder, project.environ))
        )
        assert asked.compared == "pulumi's own preview, against the state"
        assert asked.changes == ()
        project.set(stack, {"instance_type": "g4dn.4xlarge"})
        larger = change()
        assert larger["usd_per_month"] == pytest.approx(bill() - one_small, abs=0.02)
        assert {line["resource"] for line in larger["lines"]} == {"inference-dev-host-instance"}
        project.set(stack, {"instance_type": "g4dn.2xlarge", "replicas": 2, "feedback": False})
        two = change()
        assert two["usd_per_month"] == pytest.approx(bill() - one_small, abs=0.02)
        touched = {line["resource"] for line in two["lines"]}
        assert {"inference-dev-host-instance", "inference-dev-group-hosts", "inference-dev-lb"} <= touched
    finally:
        server.stop(tmp_path)
