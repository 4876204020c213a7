"""Every committed stack through Pulumi's own engine, over the sandbox: up, no changes, a change, gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine_cli import World, needs_cli, steps

from infra.lifecycle.place import Place
from infra.new_stack import record_choice
from infra.sandbox import server

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_cli]

CHANGES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "inference-dev": ({"latency_ms": 2000}, {"inference-dev-watch-slow": "updated"}),
    "inference-prod": (
        {"replicas": 3, "instance_type": "g4dn.4xlarge"},
        {"inference-prod-group-template": "updated", "inference-prod-group-hosts": "updated"},
    ),
    "endpoint-prod": (
        {"instance_type": "g4dn.4xlarge"},
        {"endpoint-prod-sm-config": "replaced", "endpoint-prod-sm-endpoint": "updated"},
    ),
    "training": ({"budget_per_month": 2100}, {"training-notice-budget": "updated"}),
}
"""A change of each stack's settings, and what AWS does for it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("engine")
    with server.locked(folder):
        local = server.start(folder)
    try:
        yield World(folder, local)
    finally:
        server.stop(folder)


@pytest.mark.parametrize("stack", CHANGES)
def test_a_stack_goes_up_stays_the_same_changes_and_goes(world: World, stack: str) -> None:
    project, (values, expected) = world.project, CHANGES[stack]
    project.init(stack)
    record_choice(stack, project.folder)
    assert set(project.up(stack).values()) == {"created"}
    world.made_as_planned(stack)
    assert world.left(stack)
    project.unchanged(stack)
    project.set(stack, values)
    assert project.up(stack) == expected
    project.destroy(stack)
    assert (project.state(stack), world.left(stack)) == ([], [])


def test_the_sandbox_stack_step_by_step(world: World) -> None:
    """Preview, up, preview, refresh, an owner's change that replaces nothing, a machine lost and made again, gone."""
    project = world.project
    project.init("sandbox")
    record_choice("sandbox", project.folder)
    previewed = project.preview("sandbox")
    assert set(steps(previewed).values()) == {"create"}
    assert project.up("sandbox").keys() < steps(previewed).keys()
    project.run("preview", "--expect-no-changes", "--stack", "sandbox")
    project.run("refresh", "--yes", "--skip-preview", "--expect-no-changes", "--stack", "sandbox")
    project.set("sandbox", {"owner": "them"})
    changed = steps(project.preview("sandbox"))
    assert changed["sandbox-host-instance"] == "update"
    assert set(changed.values()) == {"update"}
    assert project.up("sandbox").keys() == changed.keys()
    machine = next(r["id"] for r in project.state("sandbox") if r["urn"].endswith("::sandbox-host-instance"))
    described = world.aws.client("ec2").describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    assert {"Key": "owner", "Value": "them"} in described["Tags"]
    world.aws.client("ec2").terminate_instances(InstanceIds=[machine])
    project.run("refresh", "--yes", "--skip-preview", "--stack", "sandbox")
    assert steps(project.preview("sandbox"))["sandbox-host-instance"] == "create"
    assert project.up("sandbox")["sandbox-host-instance"] == "created"
    project.destroy("sandbox")
    assert (project.state("sandbox"), world.left("sandbox")) == ([], [])


def test_the_shared_stack_is_protected_and_its_artifacts_are_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    from infra.lifecycle.pulumi_engine import PulumiEngine

    folder = tmp_path_factory.mktemp("shared")
    with server.locked(folder):
        local = server.start(folder)
    try:
        world = World(folder, local)
        project = world.project
        world.made_as_planned("shared")
        project.unchanged("shared")
        project.set("shared", {"log_retention_days": 90})
        logs = {f"shared-logs-{role}": "updated" for role in ("inference", "endpoint", "training")}
        assert project.up("shared") == logs
        before = world.left("shared")
        assert "protected" in project.run("destroy", "--yes", "--skip-preview", "--stack", "shared", fails=True)
        assert world.left("shared") == before
        removal = PulumiEngine(project.folder, project.sandbox, Place(folder, local, project.folder, folder)).destroy(
            "shared"
        )
        assert (removal.left, removal.kept) == ((), ())
        assert world.left("shared") == []
    finally:
        server.stop(folder)
