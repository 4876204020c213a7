"""What a run leaves behind and what it has cost, when a command was killed, a machine ended by itself, or it was gone
on with: nothing that stands or costs is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from lifecycle_sandbox import AsAws
from train_world import MACHINE, STACK, Node, World, a_run, an_aws, begun, ended, succeeds

from infra.inventory import standing
from infra.lifecycle.down import departure, take_down
from infra.lifecycle.remove import sweep
from infra.lifecycle.train_begin import begin
from infra.lifecycle.train_prepare import Prepared
from infra.lifecycle.train_run import BEGUN, ENDED, note, read_note
from infra.sandbox.aws import Aws
from sizing.errors import UserError

WITH_A_MACHINE = ("instance made", "schedule made", "machines")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with an_aws(tmp_path_factory.mktemp("sandbox")) as found:
        yield found


@pytest.fixture(scope="module")
def prepared(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """What every row runs, prepared once."""
    world = World(aws, tmp_path_factory.mktemp("prepared"))
    return a_run(tmp_path_factory.mktemp("run"), world)


@pytest.fixture
def world(aws: Aws, tmp_path: Path) -> World:
    return World(aws, tmp_path)


def test_the_bill_of_a_run_that_was_gone_on_with_names_what_its_first_attempt_came_to(
    world: World, prepared: Prepared
) -> None:
    def fails(node: Node, _moment: datetime) -> None:
        node.bring("checkpoints/checkpoint-10")
        node.halt()

    world.node.does = fails
    begun(world, prepared)
    first = ended(world)
    assert first.bill is not None and first.bill.usd > 0 and first.bill.earlier == 0
    world.clock.wait(3600)
    world.node = replace(world.node, instance="", does=succeeds())
    world.clock.passed[0] = world.node.tick
    world.begin(prepared)
    second = ended(world)
    assert second.succeeded and second.bill is not None
    assert float(second.bill.earlier) == pytest.approx(float(first.bill.usd), abs=0.01)
    # The end of the first attempt is not taken for that of the second.
    noted = read_note(second.uri, ENDED, world.aws)
    assert noted is not None and noted["succeeded"] and not second.by
    again = ended(world)
    assert again.bill is not None and again.bill.usd == second.bill.usd and again.succeeded


def test_what_stands_beside_a_machine_that_has_ended_costs_until_it_is_removed(
    world: World, prepared: Prepared
) -> None:
    lines = [
        {"resource": "node", "type": MACHINE, "item": "a machine", "usd_per_hour": "10", "as_of": ""},
        {"resource": "nat", "type": "aws:ec2/natGateway:NatGateway", "item": "nat", "usd_per_hour": "1", "as_of": ""},
    ]
    run = begun(world, prepared)
    note(run.uri, BEGUN, {**(read_note(run.uri, BEGUN, world.aws) or {}), "lines": lines}, world.aws)
    world.node.halt()
    world.clock.wait(timedelta(hours=5).total_seconds())  # before anybody comes
    bill = ended(world).bill
    assert bill is not None and bill.removed is not None
    spent = {line.resource: float(line.usd) for line in bill.lines}
    assert spent["node"] < 2 and 4.9 < spent["nat"] < 6


@pytest.mark.parametrize("point", WITH_A_MACHINE)
def test_killed_with_a_machine_it_is_not_taken_down_while_its_work_is_not_safe(
    world: World, prepared: Prepared, point: str
) -> None:
    run = world.fresh(prepared)
    world.killed_at(point, lambda at: begin(run, world.desk(at), step=at))
    (node,), engine = world.alive(), world.desk().engine
    found = departure(STACK, engine, world.aws, clock=world.clock)
    with pytest.raises(UserError, match="is not taken down"):
        take_down(found, engine, world.aws, clock=world.clock)
    assert world.alive() == [node]
    assert take_down(departure(STACK, engine, world.aws, abandon=True), engine, world.aws).whole
    assert world.alive() == []


def test_what_no_state_knows_is_found_by_its_tag_when_a_run_ends(world: World, prepared: Prepared) -> None:
    """An `up` that is killed between AWS's answer and the engine's state leaves what only its tag tells of."""
    world.node.does = succeeds()
    begun(world, prepared)
    tags = [{"Key": "project", "Value": "berth"}, {"Key": "stack", "Value": STACK}]
    address = world.aws.client("ec2").allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}]
    )["AllocationId"]
    end = ended(world, cloud=AsAws(world.aws))
    assert end.succeeded and not end.clean
    (left,) = end.removal.left if end.removal else ()
    assert left.id == address and "it is in no state; `berth status` names the command" in left.reason
    # The sandbox, where nothing is of worth, takes it away by itself.
    assert sweep(STACK, world.aws, ()) == () and standing(world.aws, STACK) == []
