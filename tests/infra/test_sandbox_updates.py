"""What a kind claims AWS changes in place is changed on the local AWS, and read back where moto tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from infra_projects import MOMENT, STACKS

from infra.sandbox import server, walk
from infra.sandbox.aws import Aws
from infra.sandbox.catalogue import kind_of, kinds
from infra.sandbox.journal import Journal, Made
from infra.sandbox.provider import SandboxProvider
from infra.stack_files import ROOT, read_stack


class Stacks:
    """All committed stacks on one local AWS, and what each resource's inputs are by the time."""

    def __init__(self, local: server.Server, folder: Path) -> None:
        self.aws = Aws(local.endpoint, "us-east-1")
        self.provider = SandboxProvider(self.aws)
        journal = Journal(folder / "journal.json", "run")
        self.made: list[Made] = []
        for name in ("shared", *(n for n in STACKS if n != "shared")):
            self.made += walk.bring_up(read_stack(name, ROOT), self.provider, journal, clock=lambda: MOMENT).made

    def first(self, type_: str) -> Made:
        return next(m for m in self.made if m.type == type_)

    def change(self, made: Made, values: dict[str, Any]) -> dict[str, Any]:
        """Change inputs in place; returns the outputs. The resource is what it was afterwards, for the next test."""
        old, new = dict(made.inputs), {**made.inputs, **values}
        change = self.provider.diff(made.type, made.name, old, new)
        assert (set(change.changed), change.replaces) == (set(values), ())
        outputs = self.provider.update(made.type, made.name, made.id, old, new)
        assert {key: outputs[key] for key in values} == values
        self.provider.update(made.type, made.name, made.id, new, old)
        return outputs


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    folder = tmp_path_factory.mktemp("updates")
    with server.locked(folder):
        local = server.start(folder)
    try:
        yield Stacks(local, folder)
    finally:
        server.stop(folder)


TAGGED = sorted(t for t, k in kinds().items() if "tags" in k.in_place and t != "aws:autoscaling/group:Group")


@pytest.mark.parametrize("type_", TAGGED)
def test_tags_are_changed_in_place(stacks: Stacks, type_: str) -> None:
    made = stacks.first(type_)
    stacks.change(made, {"tags": {**(made.inputs.get("tags") or {}), "owner": "them", "extra": "one"}})


def _disk(made: Made) -> dict[str, Any]:
    return {**made.inputs["rootBlockDevice"], "volumeSize": made.inputs["rootBlockDevice"]["volumeSize"] + 50}


ALARM, GROUP, INSTANCE = (
    "aws:cloudwatch/metricAlarm:MetricAlarm", "aws:autoscaling/group:Group", "aws:ec2/instance:Instance",
)  # fmt: skip
CHANGES: list[tuple[str, Callable[[Made], dict[str, Any]]]] = [
    (ALARM, lambda m: {"threshold": m.inputs["threshold"] + 1, "evaluationPeriods": 9}),
    ("aws:cloudwatch/dashboard:Dashboard", lambda _: {"dashboardBody": '{"widgets": []}'}),
    ("aws:cloudwatch/logGroup:LogGroup", lambda _: {"retentionInDays": 90}),
    (GROUP, lambda _: {"minSize": 1, "tags": [{"key": "owner", "value": "them", "propagateAtLaunch": True}]}),
    (GROUP, lambda _: {"targetGroupArns": []}),
    (INSTANCE, lambda _: {"instanceType": "g4dn.4xlarge"}),
    (INSTANCE, lambda m: {"rootBlockDevice": _disk(m)}),
    (INSTANCE, lambda m: {"metadataOptions": {**m.inputs["metadataOptions"], "httpPutResponseHopLimit": 3}}),
    ("aws:ec2/launchTemplate:LaunchTemplate", lambda _: {"instanceType": "g4dn.8xlarge"}),
    ("aws:ec2/vpc:Vpc", lambda m: {"enableDnsHostnames": not m.inputs["enableDnsHostnames"]}),
    ("aws:ec2/vpcEndpoint:VpcEndpoint", lambda _: {"routeTableIds": []}),
    ("aws:ecr/lifecyclePolicy:LifecyclePolicy", lambda m: {"policy": m.inputs["policy"] + " "}),
    ("aws:ecr/repository:Repository", lambda _: {"imageScanningConfiguration": {"scanOnPush": False}}),
    ("aws:iam/role:Role", lambda _: {"description": "another"}),
    ("aws:iam/rolePolicy:RolePolicy", lambda m: {"policy": m.inputs["policy"].replace("Allow", "Deny")}),
    ("aws:kms/key:Key", lambda _: {"description": "another"}),
    ("aws:lb/targetGroup:TargetGroup", lambda _: {"deregistrationDelay": 77}),
    ("aws:lb/loadBalancer:LoadBalancer", lambda _: {"idleTimeout": 99}),
    ("aws:route53/record:Record", lambda _: {"ttl": 61}),
    ("aws:route53/zone:Zone", lambda _: {"comment": "another"}),
    (
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        lambda m: {"rules": [{**m.inputs["rules"][0], "id": "another"}]},
    ),
    ("aws:scheduler/schedule:Schedule", lambda _: {"scheduleExpression": "at(2030-01-01T00:00:00)"}),
    ("aws:sns/topic:Topic", lambda _: {"displayName": "another"}),
    ("aws:budgets/budget:Budget", lambda _: {"limitAmount": "77"}),
    ("aws:appautoscaling/target:Target", lambda m: {"maxCapacity": int(m.inputs["maxCapacity"]) + 1}),
    ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", lambda _: {"description": "another"}),
]


@pytest.mark.parametrize(
    ("type_", "values"), CHANGES, ids=[f"{t.rsplit(':')[-1]} {n}" for n, (t, _) in enumerate(CHANGES)]
)
def test_an_input_is_changed_in_place(stacks: Stacks, type_: str, values: Callable[[Made], dict[str, Any]]) -> None:
    made = stacks.first(type_)
    stacks.change(made, values(made))


def test_aws_has_what_was_changed(stacks: Stacks) -> None:
    """A machine's type, disk and profile, read from AWS while they are changed."""
    ec2, made = stacks.aws.client("ec2"), stacks.first(INSTANCE)
    old = dict(made.inputs)
    profile = next(
        m.id for m in stacks.made if m.type.endswith(":InstanceProfile") and m.id != old["iamInstanceProfile"]
    )
    new = {**old, "instanceType": "g4dn.4xlarge", "rootBlockDevice": _disk(made), "iamInstanceProfile": profile}
    stacks.provider.update(INSTANCE, made.name, made.id, old, new)
    found = ec2.describe_instances(InstanceIds=[made.id])["Reservations"][0]["Instances"][0]
    assert (found["InstanceType"], found["State"]["Name"]) == ("g4dn.4xlarge", "running")
    volume = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == _disk(made)["volumeSize"]
    associations = ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    mine = [a["IamInstanceProfile"]["Arn"] for a in associations if a["InstanceId"] == made.id]
    assert mine[0].endswith(f"/{profile}")
    stacks.provider.update(INSTANCE, made.name, made.id, new, old)


def test_a_template_s_number_is_unknown_until_it_is_changed(stacks: Stacks) -> None:
    made = stacks.first("aws:ec2/launchTemplate:LaunchTemplate")
    outputs = stacks.provider.read(made.type, made.name, made.id, made.inputs)
    assert outputs is not None
    known = stacks.provider.settled(made.type, made.inputs, {**made.inputs, "instanceType": "g4dn.8xlarge"}, outputs)
    assert known["arn"] == outputs["arn"]
    assert not {"latestVersion", "defaultVersion"} & known.keys()
    assert kind_of(made.type).moving == {"latestVersion", "defaultVersion"}


def test_an_endpoint_takes_another_configuration_under_its_name(stacks: Stacks) -> None:
    sagemaker, endpoint = stacks.aws.client("sagemaker"), stacks.first("aws:sagemaker/endpoint:Endpoint")
    config = stacks.first("aws:sagemaker/endpointConfiguration:EndpointConfiguration")
    other, _ = stacks.provider.create(config.type, "other", {**config.inputs, "name": "other"})
    old, new = dict(endpoint.inputs), {**endpoint.inputs, "endpointConfigName": other}
    outputs = stacks.provider.update(endpoint.type, endpoint.name, endpoint.id, old, new)
    described = sagemaker.describe_endpoint(EndpointName=endpoint.id)
    assert (described["EndpointConfigName"], described["EndpointArn"]) == (other, outputs["arn"])
    stacks.provider.update(endpoint.type, endpoint.name, endpoint.id, new, old)
