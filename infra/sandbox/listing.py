"""What stands in the sandbox by its tags, asked of AWS and not of Berth's own notes, so that nothing hides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.provider import asking
from infra.settings import PROJECT


@dataclass(frozen=True, slots=True)
class Tagged:
    """A resource with the project's tag: its ARN, or EC2's id, and the stack that its tag names."""

    id: str
    stack: str


_EC2 = (
    ("describe_addresses", "Addresses", "AllocationId"),
    ("describe_flow_logs", "FlowLogs", "FlowLogId"),
    ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    ("describe_route_tables", "RouteTables", "RouteTableId"),
    ("describe_security_groups", "SecurityGroups", "GroupId"),
    ("describe_security_group_rules", "SecurityGroupRules", "SecurityGroupRuleId"),
    ("describe_subnets", "Subnets", "SubnetId"),
    ("describe_volumes", "Volumes", "VolumeId"),
    ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    ("describe_vpcs", "Vpcs", "VpcId"),
)
_ENDED = frozenset({"terminated", "shutting-down", "deleted", "deleting"})
"""States of things that EC2 lists for a while after their end."""


def tagged(aws: Aws, project: str = PROJECT) -> list[Tagged]:
    """Every living resource with the tag of the project, by id.

    Asks the Resource Groups Tagging API, as one would in an account, and EC2, IAM, Route 53, ECR and CloudWatch for
    what moto's tagging API leaves out. Keys that wait for their deletion are left out, as terminated instances are.
    Routes, policies and bucket settings have no tags: they go with what they belong to, and are read one by one.
    """
    found: dict[str, str] = {}
    with asking("what has", f"the tag project={project}", "to list it"):
        for id_, tags in _everything(aws):
            if tags.get("project") == project:
                found[id_] = tags.get("stack", "")
    return [Tagged(id_, stack) for id_, stack in sorted(found.items())]


def _everything(aws: Aws) -> Iterator[tuple[str, dict[str, str]]]:
    for page in aws.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate():
        for entry in page["ResourceTagMappingList"]:
            arn = entry["ResourceARN"]
            if arn.split(":")[2] != "ec2" and not _key_that_ends(aws, arn):
                yield arn, _by_name(entry)
    yield from _ec2(aws)
    iam = aws.client("iam")
    for role in iam.list_roles()["Roles"]:
        yield role["Arn"], _by_name(iam.list_role_tags(RoleName=role["RoleName"]))
    for profile in iam.list_instance_profiles()["InstanceProfiles"]:
        name = profile["InstanceProfileName"]
        yield profile["Arn"], _by_name(iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"])
    route53 = aws.client("route53")
    for zone in route53.list_hosted_zones()["HostedZones"]:
        id_ = zone["Id"].rsplit("/", 1)[-1]
        answer = route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=id_)
        yield f"arn:aws:route53:::hostedzone/{id_}", _by_name(answer["ResourceTagSet"])
    for page in aws.client("cloudwatch").get_paginator("describe_alarms").paginate():
        for alarm in page["MetricAlarms"]:
            answer = aws.client("cloudwatch").list_tags_for_resource(ResourceARN=alarm["AlarmArn"])
            yield alarm["AlarmArn"], _by_name(answer)
    for repository in aws.client("ecr").describe_repositories()["repositories"]:
        answer = aws.client("ecr").list_tags_for_resource(resourceArn=repository["repositoryArn"])
        yield repository["repositoryArn"], {tag["Key"]: tag["Value"] for tag in answer["tags"]}
    for group in aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]:
        yield group["AutoScalingGroupARN"], _by_name(group)


def _ec2(aws: Aws) -> Iterator[tuple[str, dict[str, str]]]:
    ec2 = aws.client("ec2")
    for call, key, id_ in _EC2:
        for found in getattr(ec2, call)()[key]:
            if found.get("State") not in _ENDED:
                yield found[id_], _by_name(found)
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] not in _ENDED:
                yield instance["InstanceId"], _by_name(instance)


def _by_name(described: Mapping[str, Any]) -> dict[str, str]:
    tags = described.get("Tags") or described.get("TagSet") or []
    return {tag["Key"]: tag["Value"] for tag in tags}


def _key_that_ends(aws: Aws, arn: str) -> bool:
    if arn.split(":")[2] != "kms":
        return False
    return bool(aws.client("kms").describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "PendingDeletion")
