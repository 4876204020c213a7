"""What stands by its tags, what of it belongs to nobody, and how each kind is removed, by command and by call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lifecycle_sandbox import World

from infra.inventory import Found, standing, strays
from infra.lifecycle.remove import commands, ordered, remove

TAGS = {"project": "berth", "stack": "old", "expiry": "never"}
PAIRS = [{"Key": k, "Value": v} for k, v in TAGS.items()]


def spec(kind: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": PAIRS}]


def make_all(world: World) -> None:
    """One of many kinds, in each other's way: a network and what is in it, roles, a bucket with versions."""
    ec2, iam = world.aws.client("ec2"), world.aws.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=spec("vpc"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", TagSpecifications=spec("subnet"))["Subnet"]
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=spec("route-table"))["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
    gateway = ec2.create_internet_gateway(TagSpecifications=spec("internet-gateway"))["InternetGateway"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    group = ec2.create_security_group(
        GroupName="old", Description="old", VpcId=vpc, TagSpecifications=spec("security-group")
    )
    assert group["GroupId"]
    world.machine("old")
    iam.create_role(RoleName="old-role-0a1b2c3", AssumeRolePolicyDocument="{}", Tags=PAIRS)
    may = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::old-things/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    iam.put_role_policy(RoleName="old-role-0a1b2c3", PolicyName="own", PolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="old-profile-0a1b2c3", Tags=PAIRS)
    iam.add_role_to_instance_profile(InstanceProfileName="old-profile-0a1b2c3", RoleName="old-role-0a1b2c3")
    world.aws.client("sns").create_topic(Name="old", Tags=PAIRS)
    world.aws.client("logs").create_log_group(logGroupName="/berth/old", tags=TAGS)
    world.aws.client("ecr").create_repository(repositoryName="berth/old", tags=PAIRS)
    world.aws.client("kms").create_key(Tags=[{"TagKey": k, "TagValue": v} for k, v in TAGS.items()])
    s3 = world.aws.client("s3")
    s3.create_bucket(Bucket="old-things")
    s3.put_bucket_tagging(Bucket="old-things", Tagging={"TagSet": PAIRS})
    s3.put_bucket_versioning(Bucket="old-things", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket="old-things", Key="a", Body=body)


KINDS = {
    "ec2:instance", "ec2:internet-gateway", "ec2:route-table", "ec2:security-group", "ec2:subnet", "ec2:vpc",
    "ecr:repository", "iam:instance-profile", "iam:role", "kms:key", "logs:log-group", "s3:bucket", "sns:topic",
}  # fmt: skip


def test_everything_is_found_and_removed_in_an_order_that_works(world: World) -> None:
    make_all(world)
    world.aws.client("sns").create_topic(Name="another", Tags=[{"Key": "project", "Value": "other"}])
    found = standing(world.aws)
    assert {f.kind for f in found} >= KINDS
    assert {f.stack for f in found} == {"old"}
    assert standing(world.aws, "older") == []
    assert "DependencyViolation" in remove(next(f for f in found if f.kind == "ec2:vpc"), world.aws)
    assert [remove(f, world.aws) for f in ordered(found)] == [""] * len(found)
    assert standing(world.aws) == []


def test_commands_are_what_the_aws_cli_takes(world: World) -> None:
    make_all(world)
    by_kind = {f.kind: (f, commands(f, world.aws)) for f in standing(world.aws)}
    where = f" --region us-east-1 --endpoint-url {world.local.endpoint}"
    assert by_kind["iam:role"][1] == [
        f"aws iam delete-role-policy --role-name old-role-0a1b2c3 --policy-name own{where}",
        "aws iam remove-role-from-instance-profile --instance-profile-name old-profile-0a1b2c3 "
        f"--role-name old-role-0a1b2c3{where}",
        f"aws iam delete-role --role-name old-role-0a1b2c3{where}",
    ]
    assert by_kind["ecr:repository"][1] == [f"aws ecr delete-repository --repository-name berth/old --force{where}"]
    assert by_kind["logs:log-group"][1] == [f"aws logs delete-log-group --log-group-name /berth/old{where}"]
    key, said = by_kind["kms:key"]
    assert said == [f"aws kms schedule-key-deletion --key-id {key.name} --pending-window-in-days 7{where}"]
    gateway, said = by_kind["ec2:internet-gateway"]
    assert said[0].startswith(f"aws ec2 detach-internet-gateway --internet-gateway-id {gateway.id} --vpc-id vpc-")
    emptied, deleted = by_kind["s3:bucket"][1]
    assert "Bucket('old-things').object_versions.delete()" in emptied.replace("'\"'\"'", "'")
    assert deleted == f"aws s3api delete-bucket --bucket old-things{where}"


def test_a_kind_that_is_not_known_is_shown_and_not_removed(world: World) -> None:
    strange = Found("arn:aws:sqs:us-east-1:1:jobs", "sqs:jobs", "old")
    assert commands(strange, world.aws)[0].startswith("aws resourcegroupstaggingapi get-resources")
    assert remove(strange, world.aws) == "how sqs:jobs is removed is not known"


def test_ended_machines_and_keys_that_wait_for_their_end_are_gone(world: World) -> None:
    machine = world.machine("old")
    key = world.aws.client("kms").create_key(Tags=[{"TagKey": "project", "TagValue": "berth"}])["KeyMetadata"]["KeyId"]
    assert len(standing(world.aws)) == 2
    world.aws.client("ec2").terminate_instances(InstanceIds=[machine])
    world.aws.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert standing(world.aws) == []


def test_what_goes_with_something_known_is_no_stray() -> None:
    machine, disk = Found("i-1", "ec2:instance", of="group"), Found("vol-1", "ec2:volume", of="i-1")
    alone = Found("arn:aws:sns:us-east-1:1:x", "sns:topic")
    assert strays([disk, machine, alone], {"group"}) == [alone]
    assert strays([disk, machine, alone], {"i-1", "x"}) == []
    assert strays([disk], {"i-2"}) == [disk]


@pytest.mark.parametrize("name", ["stack-2-expiry-at-0a1b2c3", "stack-other-at-0a1b2c3"])
def test_a_schedule_of_another_stack_is_not_taken_for_its_own(world: World, name: str) -> None:
    for given in (name, "stack-expiry-at-0a1b2c3"):
        world.aws.client("scheduler").create_schedule(
            Name=given, ScheduleExpression="at(2030-01-01T00:00:00)", FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:scheduler:::aws-sdk:x", "RoleArn": "arn:aws:iam::1:role/r"},
        )  # fmt: skip
    assert [f.name for f in standing(world.aws, "stack")] == ["stack-expiry-at-0a1b2c3"]
