"""The fault table of `berth train`: whatever breaks, the machine is gone in time, what is safe stays safe, and the next
command says what happened. docs/endings.md lists the rows, the watchdog's own among them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from train_world import GONE, MACHINE, SCHEDULE, STACK, Node, World, a_run, an_aws, begun, ended, succeeds

from infra.lifecycle.interlock import check
from infra.lifecycle.saved import saved_under
from infra.lifecycle.train_begin import RunStandsError, begin
from infra.lifecycle.train_end import attend
from infra.lifecycle.train_prepare import Prepared, prepare
from infra.lifecycle.train_run import standing_run
from infra.sandbox.aws import Aws
from sizing.errors import UserError


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


BEFORE_A_MACHINE = ("shared stack", "data", "bundle", "settings", "note", "stack")
WITH_A_MACHINE = ("instance made", "schedule made", "machines")


@pytest.mark.parametrize("point", BEFORE_A_MACHINE)
def test_killed_before_there_is_a_machine_the_command_begins_again(
    world: World, prepared: Prepared, point: str
) -> None:
    run = world.fresh(prepared)
    world.killed_at(point, lambda at: begin(run, world.desk(), step=at))
    assert world.alive() == []
    try:
        told = " ".join(ended(world).sentences)
    except UserError as error:
        told = str(error)
    assert "has no run" in told or "has no machine: it was interrupted before one began" in told
    world.node.does = succeeds()
    world.begin(prepared)
    assert ended(world).succeeded


@pytest.mark.parametrize("point", WITH_A_MACHINE)
def test_killed_with_a_machine_another_command_goes_on_to_the_end(world: World, prepared: Prepared, point: str) -> None:
    run = world.fresh(prepared)
    world.killed_at(point, lambda at: begin(run, world.desk(at), step=at))
    assert len(world.alive()) == 1
    world.node.does = succeeds()
    end = ended(world)
    assert end.succeeded and end.verdict.kind in ("verified", "gone") and world.alive() == []
    assert world.desk().engine.resources(STACK) == ()
    assert any("broke off" in line for line in world.said) == (point in ("instance made", "schedule made"))
    assert end.bill is not None and end.bill.usd > 0


@pytest.mark.parametrize("point", WITH_A_MACHINE)
def test_killed_and_nobody_comes_back_the_machine_ends_by_itself(world: World, prepared: Prepared, point: str) -> None:
    run = world.fresh(prepared)
    world.killed_at(point, lambda at: begin(run, world.desk(at), step=at))
    world.clock.stride = 300
    # One layer at a time: the schedule stands from then on; before, the machine's own layers alone.
    world.node.watchdog = point == "instance made"
    world.until_gone(world.clock.moment + timedelta(hours=4))
    expires = world.node.expires
    assert world.alive() == [] and expires is not None and world.clock.moment <= expires + GONE
    end = ended(world)
    assert not end.succeeded and "never said a word" in " ".join(end.sentences)
    assert world.desk().engine.resources(STACK) == ()


@pytest.mark.parametrize("point", ["destroy", "expiry removed", "node removed"])
def test_killed_while_it_destroys_the_next_one_finishes_and_keeps_the_artifact(
    world: World, prepared: Prepared, point: str
) -> None:
    def waits(node: Node, moment: datetime) -> None:
        node.bring("artifact")
        node.say("delivering", moment, reason="job-succeeded")

    world.node.does = waits
    run = begun(world, prepared)
    world.killed_at(point, lambda at: attend(STACK, world.desk(at)))
    end = ended(world)
    assert end.succeeded and end.clean and world.alive() == []
    assert world.desk().engine.resources(STACK) == ()
    assert saved_under(run.uri, world.aws.client("s3")).artifact is not None


def test_killed_while_it_follows_nothing_happens_to_the_run(world: World, prepared: Prepared) -> None:
    begun(world, prepared)

    def follow(at: Any) -> None:
        attend(STACK, world.desk(wait=lambda _: at("following")))

    world.killed_at("following", follow)
    assert len(world.alive()) == 1
    world.node.does = succeeds()
    assert ended(world).succeeded and world.alive() == []


def test_interrupted_the_run_stands(world: World, prepared: Prepared) -> None:
    begun(world, prepared)

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ended(world, wait=interrupt)
    assert len(world.alive()) == 1 and standing_run(STACK, world.desk()) is not None


def test_a_silent_watchdog_leaves_the_end_to_the_schedule_and_its_checkpoint_is_verified(
    world: World, prepared: Prepared
) -> None:
    def dies(node: Node, moment: datetime) -> None:
        if node.minutes(moment) < 30:
            node.bring("checkpoints/checkpoint-10")
            node.say("watching", moment)

    world.node.does, world.node.watchdog, world.clock.stride = dies, False, 300
    begun(world, prepared)
    end = ended(world)
    assert world.node.expires is not None and world.clock.moment <= world.node.expires + GONE
    assert world.alive() == [] and not end.succeeded
    told = " ".join(end.sentences)
    assert "last heard of" in told and "a whole checkpoint is" in told and "checkpoint-10" in told


def test_s3_that_cannot_be_reached_for_a_while_holds_nothing_up(world: World, prepared: Prepared) -> None:
    world.node.does = succeeds(after=10)
    begun(world, prepared)
    end = ended(world, cloud=Cut(world, until=world.clock.moment + timedelta(minutes=5)))
    assert end.succeeded and world.alive() == []
    assert any("the run goes on" in line for line in world.said)


def test_credentials_that_expire_while_it_follows_stop_nothing(world: World, prepared: Prepared) -> None:
    expired = ClientError({"Error": {"Code": "ExpiredToken", "Message": "The security token is expired"}}, "any")
    world.node.does = succeeds(after=10)
    begun(world, prepared)
    until = world.clock.moment + timedelta(minutes=30)
    end = ended(world, cloud=Cut(world, until=until, services=None, error=expired))
    assert end.succeeded and end.bill is not None and world.alive() == []
    assert world.clock.moment >= until
    said = [line for line in world.said if "The security token is expired" in line]
    assert said and all("the run goes on" in line for line in said)


def test_the_network_that_breaks_while_the_bundle_goes_up_leaves_no_machine(world: World, prepared: Prepared) -> None:
    cut = Cut(world, until=world.clock.moment + timedelta(days=1), only={"put_object", "upload_file"})
    world.desk().engine.up("shared")
    with pytest.raises(UserError, match="was not taken"):
        begin(world.fresh(prepared), world.desk(cloud=cut))
    assert world.alive() == []
    world.node.does = succeeds()
    world.begin(prepared)
    assert ended(world).succeeded


def test_s3_that_refuses_to_the_end_costs_no_more_than_until_the_expiry(world: World, prepared: Prepared) -> None:
    world.node.watchdog, world.clock.stride = False, 300
    run = begun(world, prepared)
    cut = Cut(world, until=world.clock.moment + timedelta(days=1))
    with pytest.raises(UserError, match="cannot be read"):
        check(run.outputs, cut, world.clock)
    world.until_gone(world.clock.moment + timedelta(hours=4))
    assert world.node.expires is not None and world.clock.moment <= world.node.expires + GONE
    assert not ended(world).succeeded


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "manifest missing"])
def test_a_damaged_artifact_does_not_free_the_node_until_it_is_whole(
    world: World, prepared: Prepared, damage: str
) -> None:
    s3 = world.aws.client("s3")
    seen: list[str] = []

    def does(node: Node, moment: datetime) -> None:
        place = node.uri.removeprefix(f"s3://{world.bucket}/") + "/artifact"
        if not seen:
            node.bring("artifact")
            key = f"{place}/{'manifest.json' if damage == 'manifest missing' else 'model.safetensors'}"
            if damage in ("truncated", "altered"):
                body = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
                s3.put_object(Bucket=world.bucket, Key=key, Body=body[:-1] + (b"" if damage == "truncated" else b"?"))
            else:
                s3.delete_object(Bucket=world.bucket, Key=key)
            seen.append(damage)
        if node.minutes(moment) < 6:
            node.say("delivering", moment, reason="job-succeeded")
            assert node.instance in world.alive(), "destroyed with a damaged artifact"
        else:
            s3.delete_object(Bucket=world.bucket, Key=f"{place}/model.safetensors")
            node.bring("artifact")
            node.say("ended", moment, reason="job-succeeded", halted="verified", brought="artifact")

    world.node.does = does
    run = begun(world, prepared)
    world.clock.wait(60)
    verdict = check(run.outputs, world.aws, world.clock)
    assert verdict.kind == "working" and not verdict.may_destroy and "--abandon" in verdict.sentence
    end = ended(world)
    assert end.succeeded and world.clock.moment - world.node.since >= timedelta(minutes=6)  # type: ignore[operator]


FAILURES = {
    "disk full": ("job-failed", {"state": "failed", "exit_code": 1, "last_line": "OSError: No space left on device"}),
    "hung": ("gpu-idle", {"state": "failed", "signal": 9, "detail": "killed: out of memory, or by hand"}),
    "out of memory": (
        "job-failed",
        {"state": "failed", "exit_code": 2, "last_line": "out of memory with batch 1"},
    ),
    "exit code 1": ("job-failed", {"state": "failed", "exit_code": 1, "last_line": "ValueError: the tokenizer"}),
    "spot notice": ("spot-notice", {"state": "failed", "exit_code": 75, "detail": "stopped with a checkpoint"}),
}
REASON = {"gpu-idle": "nothing to do", "job-failed": "the job failed", "spot-notice": "took the spot machine back"}


@pytest.mark.parametrize("fault", FAILURES)
def test_a_failed_job_is_told_with_its_reason_and_its_checkpoint(world: World, prepared: Prepared, fault: str) -> None:
    reason, job = FAILURES[fault]

    def does(node: Node, moment: datetime) -> None:
        node.bring("checkpoints/checkpoint-10")
        if fault == "spot notice":  # in the middle of the next one, whose manifest never came
            key = f"{node.uri.removeprefix(f's3://{world.bucket}/')}/checkpoints/checkpoint-20/model.safetensors"
            world.aws.client("s3").put_object(Bucket=world.bucket, Key=key, Body=b"half")
        node.say("ended", moment, reason=reason, halted="verified", brought="checkpoints/checkpoint-10", **job)
        if fault != "hung":
            node.halt()

    world.node.does = does
    begun(world, prepared)
    end = ended(world)
    told = " ".join(end.sentences)
    assert not end.succeeded and end.clean and world.alive() == []
    assert end.verdict.kind == ("checkpoint" if fault == "hung" else "gone")
    assert REASON[reason] in told and str(job.get("last_line", "")) in told
    assert "checkpoint-10" in told and "checkpoint-20" not in told


def test_the_same_data_again_goes_on_from_the_checkpoint_that_is_left(world: World, prepared: Prepared) -> None:
    def does(node: Node, moment: datetime) -> None:
        node.bring("checkpoints/checkpoint-10")
        node.halt()

    world.node.does = does
    begun(world, prepared)
    assert not ended(world).succeeded
    again = prepare(STACK, str(world.data()), world.folder / "again", world.desk())
    assert again.run == prepared.run and any("gone on with" in note for note in again.notes)
    other = prepare(STACK, str(world.data(rows=41)), world.folder / "other", world.desk())
    assert other.run != prepared.run


def test_a_run_that_left_nothing_says_so(world: World, prepared: Prepared) -> None:
    def does(node: Node, moment: datetime) -> None:
        node.say("ended", moment, reason="job-failed", halted="nothing", state="failed", exit_code=2)

    world.node.does = does  # and its halt never comes through
    begun(world, prepared)
    end = ended(world)
    assert end.verdict.kind == "nothing" and not end.succeeded and world.alive() == []
    assert "no whole checkpoint or artifact on its disk" in " ".join(end.sentences)


def test_work_may_come_home_after_the_expiry_within_its_margin(world: World, prepared: Prepared) -> None:
    def does(node: Node, moment: datetime) -> None:
        late = node.expires is not None and moment >= node.expires + timedelta(minutes=4)
        node.say("delivering", moment, reason="expiry")
        if late:
            node.bring("artifact")
            node.say("ended", moment, reason="expiry", halted="verified", brought="artifact")

    world.node.does, world.clock.stride = does, 240
    begun(world, prepared)
    end = ended(world)
    assert end.succeeded and world.alive() == []
    assert world.node.expires is not None and world.clock.moment <= world.node.expires + GONE


def test_past_its_expiry_a_node_goes_whatever_is_not_safe(world: World, prepared: Prepared) -> None:
    world.node.watchdog, world.clock.stride = False, 300
    world.clock.passed[1:] = []  # the schedule fails as well
    begun(world, prepared)
    end = ended(world)
    assert end.verdict.kind == "expired" and world.alive() == [] and not end.succeeded
    assert world.node.expires is not None and world.clock.moment <= world.node.expires + GONE


def test_a_moved_expiry_holds_though_the_state_names_the_earlier_one(world: World, prepared: Prepared) -> None:
    run = begun(world, prepared)
    later = world.clock.moment + timedelta(hours=9)
    tag = {"Key": "expiry", "Value": f"{later:%Y-%m-%dT%H:%M:%SZ}"}
    world.aws.client("ec2").create_tags(Resources=list(run.instances), Tags=[tag])
    world.clock.moment += timedelta(hours=3)
    assert check(run.outputs, world.aws, world.clock).kind == "working"
    world.clock.moment = later + timedelta(minutes=5)
    assert check(run.outputs, world.aws, world.clock).kind == "working", "its watchdog may be bringing work home"
    world.clock.moment = later + timedelta(minutes=6)
    assert check(run.outputs, world.aws, world.clock).kind == "expired"


def test_a_computer_with_a_wrong_clock_does_not_find_a_node_expired(world: World, prepared: Prepared) -> None:
    from infra.lifecycle.skew import cloud_clock

    run = begun(world, prepared)
    said: list[str] = []
    clock = cloud_clock(world.aws, lambda: datetime.now(tz=world.clock.moment.tzinfo) + timedelta(days=2), said.append)
    assert check(run.outputs, world.aws, clock).kind == "working"
    assert "ahead of AWS's" in said[0]
    assert check(run.outputs, world.aws).kind == "working"  # without a clock of the caller's it is AWS's


@pytest.mark.parametrize("type_", [MACHINE, SCHEDULE])
def test_a_destroy_that_fails_half_way_is_said_and_gone_on_with(world: World, prepared: Prepared, type_: str) -> None:
    world.node.does = succeeds()
    begun(world, prepared)
    desk = world.desk()
    desk.engine.refuse = {type_}  # type: ignore[attr-defined]
    first = attend(STACK, desk)
    assert first.succeeded and not first.clean and first.removal is not None
    assert [left.reason for left in first.removal.left] == ["DependencyViolation"]
    assert world.alive() == [], "the machine had halted by itself"
    second = ended(world)
    assert second.succeeded and second.clean and world.desk().engine.resources(STACK) == ()


def test_a_second_person_with_the_same_command_begins_nothing(world: World, prepared: Prepared) -> None:
    begun(world, prepared)
    with pytest.raises(RunStandsError, match="--attach"):
        world.begin(prepared)
    assert len(world.alive()) == 1


def test_of_two_people_who_follow_one_destroys_and_the_other_tells_so(world: World, prepared: Prepared) -> None:
    world.node.does = succeeds()
    begun(world, prepared)
    at_work, go_on = threading.Event(), threading.Event()
    waited: list[str] = []

    def slow(point: str) -> None:
        if point == "destroy":
            at_work.set()
            assert go_on.wait(30)

    ends: list[Any] = []
    first = threading.Thread(target=lambda: ends.append(attend(STACK, world.desk(slow))))
    first.start()
    assert at_work.wait(30)

    def other(line: str) -> None:
        waited.append(line)
        if "is changing the stack" in line:
            go_on.set()
            first.join(30)

    second = ended(world, say=other, wait=lambda _: None)
    first.join(30)
    assert ends[0].succeeded and ends[0].removal is not None and not ends[0].by
    assert second.succeeded and second.removal is None and second.by
    assert any("is changing the stack" in line for line in waited) and world.alive() == []
    third = ended(world)  # much later, when nothing stands
    assert third.succeeded and third.by and "is over" in third.sentences[0]
    assert third.bill is not None and ends[0].bill is not None and third.bill.usd == ends[0].bill.usd


def test_what_an_earlier_run_left_under_the_same_prefix_frees_no_node(world: World, prepared: Prepared) -> None:
    run = begun(world, prepared)
    world.node.bring("artifact")
    later: dict[str, Any] = {"BlockDeviceMappings": [], "NetworkInterfaces": []}  # what it was made with says when, too
    old = [{**n, **later, "LaunchTime": n["LaunchTime"] + timedelta(hours=1)} for n in _described(world)]
    verdict = check(run.outputs, Later(world, old), world.clock)
    assert verdict.kind == "working" and "before this node began" in verdict.sentence


def test_what_is_left_without_a_machine_is_removed_and_said(world: World, prepared: Prepared) -> None:
    run = world.fresh(prepared)
    world.killed_at("schedule made", lambda at: begin(run, world.desk(at), step=at))
    desk = world.desk()
    engine: Any = desk.engine
    engine._keep(STACK, {"outputs": {}, "resources": [r.to_json() for r in desk.engine.resources(STACK)][1:]})
    world.aws.client("ec2").terminate_instances(InstanceIds=world.alive())
    end = ended(world)
    assert desk.engine.resources(STACK) == () and end.removal is not None and not end.succeeded
    assert any("no machine, but other resources" in line for line in world.said)


def test_an_s3_that_fails_at_the_very_end_keeps_no_node_alive(world: World, prepared: Prepared) -> None:
    world.node.does = lambda node, moment: node.say("watching", moment)
    begun(world, prepared)
    cut = Cut(world, until=world.clock.moment + timedelta(days=1))
    end = attend(STACK, world.desk(cloud=cut), abandon=True)
    assert world.alive() == [] and end.bill is None and end.clean
    assert any("There is no final bill" in line for line in world.said)
    assert "could not be seen" in end.verdict.sentence


def test_abandoned_the_node_goes_at_once(world: World, prepared: Prepared) -> None:
    world.node.does = lambda node, moment: node.say("watching", moment)
    begun(world, prepared)
    end = attend(STACK, world.desk(), abandon=True)
    assert end.verdict.kind == "abandoned" and world.alive() == []


def _described(world: World) -> list[dict[str, Any]]:
    mine = [{"Name": "tag:world", "Values": [world.bucket]}]
    found = world.aws.client("ec2").describe_instances(Filters=mine)["Reservations"]
    return [dict(i) for r in found for i in r["Instances"]]


class Cut:
    """The local AWS behind a network that is cut `until` a moment: `services` (None: all) answer with `error`."""

    endpoint = "http://127.0.0.1"

    def __init__(
        self,
        world: World,
        until: datetime,
        only: set[str] | None = None,
        services: tuple[str, ...] | None = ("s3",),
        error: Exception | None = None,
    ) -> None:
        self.world, self.until, self.only, self.region = world, until, only, world.aws.region
        self.account, self.services = world.aws.account, services
        self.error = error or EndpointConnectionError(endpoint_url="https://s3")

    def client(self, service: str) -> Any:
        inner = self.world.aws.client(service)
        return _Broken(inner, self) if self.services is None or service in self.services else inner


class _Broken:
    def __init__(self, inner: Any, cut: Cut) -> None:
        self._inner, self._cut = inner, cut

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        broken = self._cut.only is None or name in self._cut.only
        if not callable(found) or not broken or self._cut.world.clock.moment >= self._cut.until:
            return found

        def refuse(*_: Any, **__: Any) -> Any:
            raise self._cut.error

        return refuse


class Later:
    """The local AWS with other machines than it has."""

    endpoint = "http://127.0.0.1"

    def __init__(self, world: World, machines: list[dict[str, Any]]) -> None:
        self.world, self.machines, self.region, self.account = world, machines, world.aws.region, world.aws.account

    def client(self, service: str) -> Any:
        return self if service == "ec2" else self.world.aws.client(service)

    def get_paginator(self, _operation: str) -> Any:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"Reservations": [{"Instances": self.machines}]}]
