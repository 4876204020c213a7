"""Moving an expiry: every layer, in an order that loses no work whatever breaks; the same command completes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from infra_projects import TRAINING, Project
from lifecycle_sandbox import Standing, World

from infra.durations import write_instant
from infra.endings import SCHEDULE_AFTER_EXPIRY
from infra.lifecycle.extend import extend, moved, plan_extension, tell_state
from infra.lifecycle.layers import Layer, agree, layers_of
from infra.resolve import now
from infra.sandbox.aws import Aws
from infra.stack_files import read_stack
from model_runtime.watch.limits import Limits
from sizing.errors import UserError

RUN = {**TRAINING, "instance_type": "g4dn.xlarge", "dtype": "fp32", "time_to_live": "24h"}
IN_FORCE = now() + timedelta(hours=5)


@pytest.fixture
def machine(world: World) -> str:
    """A training node that stands until `IN_FORCE`, by its file, its schedule and its tag."""
    world.project.write("run", {**RUN, "expires_at": write_instant(IN_FORCE)})
    world.schedule("run", IN_FORCE + SCHEDULE_AFTER_EXPIRY)
    return world.machine("run", expiry=write_instant(IN_FORCE), owner="tests")


def moments(world: World) -> dict[str, datetime]:
    return {x.kind: x.at for x in layers_of(read_stack("run", world.project.root), world.aws)}


def refusing(world: World, call: str) -> Aws:
    """The local AWS, which refuses one call."""
    aws = Aws(world.local.endpoint, "us-east-1")
    service, method = call.split(".")

    def refuse(**_: Any) -> None:
        raise UserError(f"{method}: the network went away")

    aws.client(service).meta.events.register(f"before-call.{service}.{method}", refuse)
    return aws


def test_all_layers_move_by_the_same_amount(world: World, machine: str) -> None:
    assert moments(world) == {"stack file": IN_FORCE, "schedule": IN_FORCE, "machine": IN_FORCE}
    found = plan_extension("run", "2h", world.project.root, world.aws)
    assert (found.earlier, found.later, found.over) == (IN_FORCE, IN_FORCE + timedelta(hours=2), "")
    assert found.added > 1
    assert [m.problem for m in extend(found, world.aws)] == [""] * 5
    assert set(moments(world).values()) == {found.later}


@pytest.mark.parametrize(
    ("call", "reached"),
    [
        ("scheduler.UpdateSchedule", {"stack file"}),
        pytest.param("autoscaling.DescribeAutoScalingGroups", {"stack file", "schedule"}, marks=pytest.mark.slow),
        ("ec2.CreateTags", {"stack file", "schedule"}),
    ],
)
def test_what_breaks_leaves_the_earlier_moment_in_force_and_the_same_command_completes_it(
    world: World, machine: str, call: str, reached: set[str]
) -> None:
    found = plan_extension("run", "2h", world.project.root, world.aws)
    moves = extend(found, refusing(world, call))
    assert "the network went away" in next(m.problem for m in moves if m.problem)
    after = moments(world)
    assert {kind for kind, at in after.items() if at == found.later} == reached
    # The watchdog acts before anything outside does: it never believes in more time than the schedule gives.
    assert after["machine"] <= after["schedule"]
    again = plan_extension("run", "2h", world.project.root, world.aws)
    assert (again.completes, again.later) == (True, found.later)
    assert [m.problem for m in extend(again, world.aws)] == [""] * 5
    assert set(moments(world).values()) == {found.later}


def test_the_schedule_of_every_node_moves(world: World, machine: str) -> None:
    world.schedule("run", IN_FORCE + SCHEDULE_AFTER_EXPIRY, node=1)
    world.schedule("run-2", IN_FORCE + SCHEDULE_AFTER_EXPIRY)  # another stack's
    found = plan_extension("run", "2h", world.project.root, world.aws)
    schedules = {x.id for x in found.layers if x.kind == "schedule"}
    assert schedules == {"run-expiry-at-0a1b2c3", "run-expiry-at-1-0a1b2c3"}
    assert [m.problem for m in extend(found, world.aws)] == [""] * 5
    after = layers_of(read_stack("run", world.project.root), world.aws)
    assert {(x.kind, x.at) for x in after} == {(k, found.later) for k in ("stack file", "schedule", "machine")}


def test_the_budget_of_a_run_counts_from_the_start_of_its_machines(world: World) -> None:
    world.project.write("run", {**RUN, "expires_at": write_instant(IN_FORCE), "budget_per_run": 4})
    world.schedule("run", IN_FORCE + SCHEDULE_AFTER_EXPIRY)
    world.machine("run", expiry=write_instant(IN_FORCE))
    assert plan_extension("run", "1h", world.project.root, world.aws).over == ""
    found = plan_extension("run", "4h", world.project.root, world.aws)
    assert "over budget_per_run (4)" in found.over
    with pytest.raises(UserError, match="over budget_per_run"):
        extend(found, world.aws)
    assert set(moments(world).values()) == {IN_FORCE}


def test_a_watchdog_that_has_begun_to_save_is_not_talked_out_of_it(world: World, machine: str) -> None:
    limits = Limits()
    soon = IN_FORCE - timedelta(seconds=limits.lead_s + limits.heartbeat_s)
    with pytest.raises(UserError, match="its watchdog has asked the job to save"):
        plan_extension("run", "2h", world.project.root, world.aws, clock=lambda: soon)
    with pytest.raises(UserError, match="its end has begun and cannot be put off"):
        plan_extension("run", "2h", world.project.root, world.aws, clock=lambda: IN_FORCE)


@pytest.mark.parametrize(
    ("stack", "by", "said"),
    [
        ("run", "two", "--by 'two' is no duration; write 90m, 12h"),
        ("run", "off", "would let it live for ever"),
        ("shared", "2h", "it has no machines and never expires"),
        ("run", "2h", "nothing ends stack run: it is not up"),
    ],
)
def test_what_cannot_be_extended_says_why(project: Project, world: World, stack: str, by: str, said: str) -> None:
    project.write("run", RUN)
    with pytest.raises(UserError, match=said):
        plan_extension(stack, by, project.root, world.aws)


def test_the_state_is_told_in_every_form_in_which_the_programs_write_a_moment(world: World, machine: str) -> None:
    settings = read_stack("run", world.project.root).settings
    old, new = datetime(2026, 11, 24, 8, tzinfo=UTC), datetime(2026, 11, 24, 10, tzinfo=UTC)
    script = "#!/bin/bash\nBERTH_EXPIRES_AT=2026-11-24T08:00:00Z\ndate -d '2026-11-24 08:08:00 UTC'\n"
    state = {"tags": {"expiry": "2026-11-24T08:00:00Z"}, "at": ["at(2026-11-24T08:09:00)", 3], "userData": script}
    assert moved(state, old, new, settings) == {
        "tags": {"expiry": "2026-11-24T10:00:00Z"},
        "at": ["at(2026-11-24T10:09:00)", 3],
        "userData": script.replace("T08:00", "T10:00").replace(" 08:08", " 10:08"),
    }
    found = plan_extension("run", "2h", world.project.root, world.aws)
    behind = IN_FORCE - timedelta(hours=1)  # the state missed an earlier extension
    engine = Standing(world.project.root, {}, {"run": {"expires_at": write_instant(behind)}})
    assert tell_state(found, engine).problem == ""
    assert engine.said["run"] == {"expires_at": write_instant(found.later)}


def test_layers_agree_to_the_minute() -> None:
    def at(seconds: int) -> Layer:
        return Layer("machine", str(Path("i")), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))

    assert agree(())
    assert agree((at(0), at(59)))
    assert not agree((at(0), at(60)))
