"""What `status` and `down` make of a state and of AWS: overdue stacks, layers at odds, what is kept and left."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from infra_projects import INFERENCE
from lifecycle_sandbox import AsAws, Standing, World

from infra.durations import write_instant
from infra.lifecycle.census import by_tags, census
from infra.lifecycle.down import departure, take_down
from infra.lifecycle.engine import Resource
from infra.resolve import now
from infra.stack_files import read_stack
from sizing.errors import UserError

IN_FORCE = now() + timedelta(hours=2)
MADE = write_instant(now() - timedelta(hours=1))


@pytest.fixture
def engine(world: World) -> Standing:
    """A host of `trial` with its schedule, and the shared stack's protected bucket."""
    world.project.write("trial", {**INFERENCE, "time_to_live": "2h", "expires_at": write_instant(IN_FORCE)})
    world.schedule("trial", IN_FORCE)
    host = Resource(
        "aws:ec2/instance:Instance", "trial-host-instance", world.machine("trial"), "urn:host",
        inputs={"instanceType": "g4dn.2xlarge"}, created=MADE,
    )  # fmt: skip
    world.aws.client("s3").create_bucket(Bucket="kept")
    tags = [{"Key": "project", "Value": "berth"}, {"Key": "stack", "Value": "shared"}]
    world.aws.client("s3").put_bucket_tagging(Bucket="kept", Tagging={"TagSet": tags})
    bucket = Resource("aws:s3/bucket:Bucket", "shared-artifacts", "kept", "urn:kept", protect=True, created=MADE)
    gone = Resource("aws:sns/topic:Topic", "shared-topic", "arn:x", "urn:topic", created=MADE)
    return Standing(world.project.root, {"trial": (host,), "shared": (bucket, gone)})


def test_a_stack_past_its_moment_is_overdue_and_layers_that_disagree_are_told(world: World, engine: Standing) -> None:
    found = census(engine, lambda _: world.aws)
    trial = next(s for s in found.stacks if s.name == "trial")
    assert (trial.expires_at, trial.overdue(found.at)) == (IN_FORCE, False)
    assert trial.per_hour is not None
    assert trial.spent is not None
    assert trial.overdue(IN_FORCE + timedelta(minutes=1))
    assert found.orphans == ()  # the schedule bears no tag, and the machine is the state's
    later = write_instant(IN_FORCE + timedelta(hours=1))
    world.project.write("trial", {**INFERENCE, "time_to_live": "2h", "expires_at": later})
    trial = next(s for s in census(engine, lambda _: world.aws).stacks if s.name == "trial")
    assert (trial.expires_at, {x.kind for x in trial.layers}) == (IN_FORCE, {"stack file", "schedule"})
    machine = trial.machines[0].id
    world.aws.client("ec2").terminate_instances(InstanceIds=[machine])
    trial = next(s for s in census(engine, lambda _: world.aws).stacks if s.name == "trial")
    assert (trial.per_hour, trial.overdue(IN_FORCE + timedelta(days=1))) == (Decimal(0), False)


def test_without_a_state_the_tags_tell_and_nobody_calls_anything_an_orphan(world: World, engine: Standing) -> None:
    files = {name: read_stack(name, world.project.root) for name in ("shared", "trial")}
    found = by_tags(files, lambda _: world.aws)
    assert found.orphans is None
    assert [(s.name, len(s.machines), s.summary) for s in found.stacks] == [("shared", 0, None), ("trial", 1, None)]


def test_a_state_whose_file_is_missing_is_told_and_nothing_more(world: World, engine: Standing) -> None:
    (world.project.root / "stacks" / "Pulumi.trial.yaml").unlink()
    trial = next(s for s in census(engine, lambda _: world.aws).stacks if s.name == "trial")
    assert trial.problems == ("its file stacks/Pulumi.trial.yaml is missing, so nothing but its state is known",)


def test_down_keeps_what_is_protected_and_says_so(world: World, engine: Standing) -> None:
    cloud = AsAws(world.aws)
    with pytest.raises(UserError, match="stack shared is used by trial; take that down first"):
        departure("shared", engine, cloud)
    engine.held["trial"] = ()
    found = departure("shared", engine, cloud)
    assert ([r.name for r in found.going], [r.name for r in found.kept]) == (["shared-topic"], ["shared-artifacts"])
    assert found.strays == ()


def test_what_a_destroy_leaves_is_named_and_the_next_one_goes_on(world: World, engine: Standing) -> None:
    machine = engine.held["trial"][0].id
    engine.unremovable = {machine}
    cloud = AsAws(world.aws)
    gone = take_down(departure("trial", engine, cloud), engine, cloud)
    assert [(x.id, x.reason) for x in gone.removal.left] == [(machine, "DependencyViolation")]
    assert {f.kind for f in gone.standing} >= {"ec2:instance", "scheduler:schedule"}
    assert not gone.whole
    assert read_stack("trial", world.project.root).given["expires_at"] == write_instant(IN_FORCE)
    engine.unremovable = set()
    world.aws.client("ec2").terminate_instances(InstanceIds=[machine])
    world.aws.client("scheduler").delete_schedule(Name="trial-expiry-at-0a1b2c3")
    gone = take_down(departure("trial", engine, world.aws), engine, world.aws)
    assert gone.whole
    assert gone.spent is not None
    assert "expires_at" not in read_stack("trial", Path(world.project.root)).given
