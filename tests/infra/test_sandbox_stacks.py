"""Every stack on the local AWS: made with real ids, taken down to nothing, and whatever breaks on the way is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from infra_projects import INFERENCE, MOMENT, SHARED, STACKS, TRAINING, Project, committed
from sandbox_local import FailingAt, KeepingOne, held

from infra.programs import declare
from infra.sandbox import server, walk
from infra.sandbox.aws import Aws
from infra.sandbox.catalogue import kinds
from infra.sandbox.journal import Journal
from infra.sandbox.listing import tagged
from infra.sandbox.provider import SandboxProvider
from infra.stack_files import ROOT, StackFile, read_stack
from sizing.errors import UserError


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """A real local AWS, for all tests of this file."""
    folder = tmp_path_factory.mktemp("sandbox")
    with server.locked(folder):
        found = server.start(folder)
    yield found
    server.stop(folder)


@pytest.fixture
def aws(local: server.Server) -> Aws:
    """An account that is empty."""
    urlopen(Request(f"{local.endpoint}/moto-api/reset", method="POST")).close()  # noqa: S310
    return Aws(local.endpoint, "us-east-1")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.json", "run")


def up(name: str, provider: SandboxProvider, journal: Journal, file: StackFile | None = None) -> walk.StackRecord:
    return walk.bring_up(file or read_stack(name, ROOT), provider, journal, clock=lambda: MOMENT)


def test_every_stack_is_made_and_taken_down_to_nothing(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    before = held(aws)
    names = ["shared", *(n for n in STACKS if n != "shared")]
    records = {name: up(name, provider, journal) for name in names}
    for name, record in records.items():
        assert record.complete
        assert walk.gone(record, provider) == []
        assert not [made for made in record.made if made.lacking]
        assert {t.stack for t in tagged(aws)} >= {name}
    ids = {made.type: made.id for record in records.values() for made in record.made}
    assert ids["aws:ec2/instance:Instance"].startswith("i-")
    assert ids["aws:ec2/vpc:Vpc"].startswith("vpc-")
    assert ids["aws:lb/loadBalancer:LoadBalancer"].startswith(f"arn:aws:elasticloadbalancing:us-east-1:{aws.account}:")
    assert ids["aws:sns/topic:Topic"].startswith(f"arn:aws:sns:us-east-1:{aws.account}:")
    for name in reversed(names):
        removal = walk.take_down(name, provider, journal)
        assert removal.left == ()
        assert [t for t in tagged(aws) if t.stack == name] == []
    assert journal.stacks == {}
    assert held(aws) == before


def test_what_refers_to_a_resource_has_the_id_that_aws_gave_it(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    up("shared", provider, journal)
    made = {m.name: m for m in up("sandbox", provider, journal).made}
    machine = made["sandbox-host-instance"].id
    target = made["sandbox-expiry-at"].inputs["target"]
    assert json.loads(target["input"]) == {"InstanceIds": [machine]}
    found = aws.client("ec2").describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
    assert found["SubnetId"] == made["sandbox-network-private-use1-az1"].id
    assert found["InstanceType"] == "g4dn.xlarge"
    assert {t["Key"] for t in found["Tags"]} >= {"project", "stack", "owner", "expiry"}
    record = made["sandbox-host-name"].inputs
    assert record["records"] == [found["PrivateIpAddress"]]
    policy = made["sandbox-identity-policy"].inputs["policy"]
    assert f"arn:aws:s3:::berth-{aws.account}-us-east-1-artifacts/" in policy


def test_two_training_nodes_say_what_moto_has_nothing_of(aws: Aws, journal: Journal, project: Project) -> None:
    provider = SandboxProvider(aws)
    project.write("trial", {**TRAINING, "nodes": 2})
    walk.bring_up(read_stack("shared", project.root), provider, journal, clock=lambda: MOMENT)
    record = walk.bring_up(read_stack("trial", project.root), provider, journal, clock=lambda: MOMENT)
    assert [m.lacking for m in record.made if m.lacking] == ["placement groups"]
    assert walk.take_down("trial", provider, journal).left == ()


@pytest.mark.parametrize(
    "values",
    [
        {**INFERENCE, "purchase": "spot", "replicas": 2, "schedule": "Mon-Fri 08:00-18:00 UTC", "time_to_live": "30d"},
        {**INFERENCE, "egress": "endpoints", "purchase": "spot"},
    ],
    ids=["spot group in office hours", "no way to the internet"],
)
def test_other_forms_of_a_stack_are_made_and_taken_down(
    aws: Aws, journal: Journal, project: Project, values: dict[str, Any]
) -> None:
    provider = SandboxProvider(aws)
    project.write("trial", values)
    for name in ("shared", "trial"):
        walk.bring_up(read_stack(name, project.root), provider, journal, clock=lambda: MOMENT)
    for name in ("trial", "shared"):
        assert walk.take_down(name, provider, journal).left == ()
    assert held(aws) == {}


def test_whichever_create_fails_nothing_of_the_shared_stack_is_left(aws: Aws, journal: Journal) -> None:
    total = sum(r.custom and r.type.startswith("aws:") for r in committed("shared").resources)
    for number in range(1, total + 1):
        with pytest.raises(
            walk.StackFailedError, match=f"InsufficientCapacity; the {number - 1} resources made before"
        ):
            up("shared", FailingAt(aws, number), journal)
        assert journal.stacks == {}
        assert held(aws) == {}


def test_every_create_of_a_host_may_fail_and_nothing_is_left(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    up("shared", provider, journal)
    before = held(aws).keys()
    for number in (1, 8, 20, 30, 36, 40):
        with pytest.raises(walk.StackFailedError) as failed:
            up("sandbox", FailingAt(aws, number), journal)
        assert failed.value.left == ()
        assert list(journal.stacks) == ["shared"]
        assert held(aws).keys() == before


def test_what_cannot_be_removed_is_named_and_can_be_removed_later(aws: Aws, journal: Journal) -> None:
    up("shared", SandboxProvider(aws), journal)
    removal = walk.take_down("shared", KeepingOne(aws, "aws:ecr/repository:Repository"), journal)
    assert [(x.name, x.id) for x in removal.left] == [("shared-images", "berth/shared")]
    assert "DependencyViolation" in removal.left[0].reason
    assert [t.id.rsplit(":", 1)[-1] for t in tagged(aws)] == ["repository/berth/shared"]
    again = Journal(journal.path, "run")
    assert [m.name for m in again.stacks["shared"].made] == ["shared-images"]
    assert walk.take_down("shared", SandboxProvider(aws), again).left == ()
    assert held(aws) == {}


def test_a_failure_whose_removal_fails_says_what_is_left(aws: Aws, journal: Journal) -> None:
    class Both(FailingAt, KeepingOne):
        def __init__(self) -> None:
            SandboxProvider.__init__(self, aws)
            self.number, self.asked, self.kept = 20, 0, "aws:kms/key:Key"

    with pytest.raises(walk.StackFailedError, match=r"18 of the 19 made before were removed, left are aws:kms/key:Key"):
        up("shared", Both(), journal)


def test_a_resource_that_was_half_made_is_found_by_its_tags(aws: Aws, journal: Journal) -> None:
    """CreateVpc succeeds and the call after it fails: the VPC is in no journal, and yet it is named."""
    provider = SandboxProvider(aws)
    up("shared", provider, journal)

    def refuse(**_: Any) -> None:
        raise UserError("the network went away")

    aws.client("ec2").meta.events.register("before-call.ec2.ModifyVpcAttribute", refuse)
    with pytest.raises(walk.StackFailedError, match=r"left are vpc-[0-9a-f]+: it was made when the stack failed"):
        up("sandbox", provider, journal)


def test_what_was_removed_behind_our_back_is_gone_and_down_goes_on(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    up("shared", provider, journal)
    record = up("sandbox", provider, journal)
    machine = next(m for m in record.made if m.type == "aws:ec2/instance:Instance")
    aws.client("ec2").terminate_instances(InstanceIds=[machine.id])
    aws.client("cloudwatch").delete_dashboards(DashboardNames=["berth-sandbox"])
    assert {m.name for m in walk.gone(record, provider)} == {machine.name, "sandbox-watch-dashboard"}
    assert walk.take_down("sandbox", provider, journal).left == ()


def test_buckets_are_emptied_first(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    record = up("shared", provider, journal)
    for number in range(3):
        aws.client("s3").put_object(
            Bucket=record.outputs["artifacts_bucket"], Key="models/x", Body=str(number).encode()
        )
    removal = walk.take_down("shared", provider, journal)
    assert removal.left == ()
    assert removal.objects >= 3
    assert held(aws) == {}


def test_the_artifact_bucket_takes_uploads_and_keeps_the_rest_of_its_policy(aws: Aws, journal: Journal) -> None:
    outputs = up("shared", SandboxProvider(aws), journal).outputs
    s3 = aws.client("s3")
    s3.put_object(Bucket=outputs["artifacts_bucket"], Key="models/x", Body=b"weights")
    assert s3.get_object(Bucket=outputs["artifacts_bucket"], Key="models/x")["Body"].read() == b"weights"
    kept = json.loads(s3.get_bucket_policy(Bucket=outputs["logs_bucket"])["Policy"])["Statement"]
    assert {statement["Effect"] for statement in kept} == {"Allow"}


def test_a_stack_needs_its_shared_one_which_stays_while_it_is_used(aws: Aws, journal: Journal) -> None:
    provider = SandboxProvider(aws)
    with pytest.raises(UserError, match="stack sandbox needs shared in the sandbox"):
        up("sandbox", provider, journal)
    up("shared", provider, journal)
    with pytest.raises(UserError, match="stack shared is in the sandbox already"):
        up("shared", provider, journal)
    up("sandbox", provider, journal)
    with pytest.raises(UserError, match="stack shared is used by sandbox"):
        walk.take_down("shared", provider, journal)
    with pytest.raises(UserError, match="stack training is not in the sandbox"):
        walk.take_down("training", provider, journal)


def test_the_sandbox_knows_every_type_that_the_programs_declare(project: Project) -> None:
    from test_infra_provider import VARIANTS

    declared = set()
    for name in STACKS:
        from infra_projects import committed

        declared |= {r.type for r in committed(name).resources if r.custom}
    for values in VARIANTS.values():
        declared |= {r.type for r in project.plan(values).resources if r.custom}
    assert declared - kinds().keys() - {"pulumi:pulumi:StackReference"} == set()


def test_an_unknown_type_is_refused_by_name_and_nothing_is_left(
    aws: Aws, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pulumi_aws

    def with_a_queue(context: Any) -> dict[str, Any]:
        outputs = declare(context)
        pulumi_aws.sqs.Queue("jobs")
        return outputs

    monkeypatch.setattr(walk, "declare", with_a_queue)
    with pytest.raises(UserError, match="unknown resource type in the sandbox 'aws:sqs/queue:Queue'"):
        up("shared", SandboxProvider(aws), journal)
    assert held(aws) == {}


def test_the_journal_of_another_run_is_void_and_a_broken_one_is_named(aws: Aws, journal: Journal) -> None:
    up("shared", SandboxProvider(aws), journal)
    assert list(Journal(journal.path, "run").stacks) == ["shared"]
    assert Journal(journal.path, "later").stacks == {}
    journal.path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"is no journal of a sandbox .* `berth sandbox down --force`"):
        Journal(journal.path, "run")


def test_a_stack_of_another_region_is_made_there(local: server.Server, journal: Journal, project: Project) -> None:
    aws = Aws(local.endpoint, "eu-central-1")
    project.write("shared", SHARED, "eu-central-1")
    record = walk.bring_up(read_stack("shared", project.root), SandboxProvider(aws), journal, clock=lambda: MOMENT)
    assert record.outputs["artifacts_bucket"].endswith("-eu-central-1-artifacts")
    assert walk.take_down("shared", SandboxProvider(aws), journal).left == ()
