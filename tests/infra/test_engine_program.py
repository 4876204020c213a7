"""What `pulumi` itself says of a stack that is not ready, or that the policies refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_cli import EngineProject, World, needs_cli, steps
from infra_projects import SHARED, Project

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
