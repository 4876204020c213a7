"""What stands in AWS by the project's tag, asked of AWS and of nobody's notes: orphans, and proof that nothing is left.

One call to the Resource Groups Tagging API names most. What it does not cover is asked for directly, filtered by the
tag where the API can: EC2 (it goes on listing what has ended), Auto Scaling, IAM. The local AWS needs a few more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.cloud import Cloud, asking_aws
from infra.instances import ENDED, described, state_of, tags_of
from infra.settings import PROJECT


@dataclass(frozen=True, slots=True)
class Found:
    """A living resource: EC2's id or the ARN, its kind as `service:type`, and what its tags say (empty: nothing)."""

    id: str
    kind: str
    stack: str = ""
    expiry: str = ""
    owner: str = ""
    of: str = ""
    """What it belongs to and goes with: a volume's machine, a machine's auto scaling group."""

    @property
    def name(self) -> str:
        """The last part of an ARN; EC2's id as it is."""
        return re.split(r"[:/]", self.id)[-1]

    def to_json(self) -> dict[str, str | None]:
        return {
            "id": self.id,
            "kind": self.kind,
            "stack": self.stack or None,
            "expiry": self.expiry or None,
            "owner": self.owner or None,
        }


_EC2 = (
    ("describe_addresses", "Addresses", "AllocationId", "elastic-ip"),
    ("describe_flow_logs", "FlowLogs", "FlowLogId", "vpc-flow-log"),
    ("describe_internet_gateways", "InternetGateways", "InternetGatewayId", "internet-gateway"),
    ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId", "launch-template"),
    ("describe_nat_gateways", "NatGateways", "NatGatewayId", "natgateway"),
    ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId", "network-interface"),
    ("describe_route_tables", "RouteTables", "RouteTableId", "route-table"),
    ("describe_security_groups", "SecurityGroups", "GroupId", "security-group"),
    ("describe_security_group_rules", "SecurityGroupRules", "SecurityGroupRuleId", "security-group-rule"),
    ("describe_subnets", "Subnets", "SubnetId", "subnet"),
    ("describe_volumes", "Volumes", "VolumeId", "volume"),
    ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId", "vpc-endpoint"),
    ("describe_vpcs", "Vpcs", "VpcId", "vpc"),
)
_FILTER_NAMES = {"describe_flow_logs": "Filter", "describe_nat_gateways": "Filter"}
"""Of the parameter that all other calls name Filters."""
_ASKED = frozenset({f"ec2:{kind}" for *_, kind in _EC2} | {"ec2:instance", "ec2:flow-logs"})
_ENDED = frozenset({"terminated", "shutting-down", "deleted", "deleting"})
"""States of things that EC2 lists for a while after their end."""
_OF = "aws:autoscaling:groupName"
"""AWS's own tag of a group's machines; a volume is given its machine's id under this name."""
_SUFFIXED = re.compile(r"-[0-9a-f]{7}$")
"""The engine's own names end so; roles without it are another's, and are not asked for their tags."""


def standing(cloud: Cloud, stack: str = "", project: str = PROJECT) -> list[Found]:
    """Every living resource with the project's tag, or that and the stack's, by id.

    With `stack`, also what can bear no tag and has the stack's name: its schedules, dashboard and budget.
    Keys that wait for their deletion are left out, as terminated instances are. Raises `UserError`.
    """
    with asking_aws(f"to list what has the tag project={project}"):
        return listed(cloud, stack, project)


def listed(cloud: Cloud, stack: str = "", project: str = PROJECT) -> list[Found]:
    """As `standing`, but raises what boto3 raises."""
    found: dict[str, Found] = {}
    for id_, kind, tags in _tagged(cloud, project):
        if tags.get("project") == project and (not stack or tags.get("stack") == stack):
            own = (tags.get("stack", ""), tags.get("expiry", ""), tags.get("owner", ""))
            found[id_] = Found(id_, kind, *own, tags.get(_OF, ""))
    if stack:
        found.update({f.id: f for f in _untagged(cloud, stack)})
    return [found[id_] for id_ in sorted(found)]


def strays(found: Iterable[Found], known: Iterable[str]) -> list[Found]:
    """What is not among `known` (ids, names or ARNs) and does not go with what is: a known machine's volume, say."""
    owned, rest = set(known), list(found)
    while True:
        mine = [f for f in rest if f.id in owned or f.name in owned or f.of in owned]
        if not mine:
            return rest
        owned |= {name for f in mine for name in (f.id, f.name)}
        rest = [f for f in rest if f not in mine]


def kind_of_arn(arn: str) -> str:
    """`kms:key` of `arn:aws:kms:…:key/…`; buckets and topics have no type in their ARN."""
    service, rest = arn.split(":")[2], arn.split(":", 5)[5]
    plain = {"s3": "bucket", "sns": "topic"}
    return f"{service}:{plain.get(service) or re.split(r'[:/]', rest)[0]}"


def _tagged(cloud: Cloud, project: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    pages = cloud.client("resourcegroupstaggingapi").get_paginator("get_resources")
    for page in pages.paginate(TagFilters=[{"Key": "project", "Values": [project]}]):
        for entry in page["ResourceTagMappingList"]:
            arn = entry["ResourceARN"]
            kind = kind_of_arn(arn)
            if kind not in _ASKED and not _ends(cloud, arn, kind):
                yield arn, kind, _by_name(entry)
    yield from _ec2(cloud, project)
    groups = cloud.client("autoscaling").get_paginator("describe_auto_scaling_groups")
    for page in groups.paginate(Filters=[{"Name": "tag:project", "Values": [project]}]):
        for group in page["AutoScalingGroups"]:
            yield group["AutoScalingGroupARN"], "autoscaling:autoScalingGroup", _by_name(group)
    yield from _iam(cloud)
    if cloud.endpoint is not None:
        yield from _left_out_by_moto(cloud)


def _ec2(cloud: Cloud, project: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    ec2 = cloud.client("ec2")
    wanted = [{"Name": "tag:project", "Values": [project]}]
    for call, key, id_, kind in _EC2:
        asked = {_FILTER_NAMES.get(call, "Filters"): wanted}
        if ec2.can_paginate(call):
            entries = [e for page in ec2.get_paginator(call).paginate(**asked) for e in page[key]]
        else:
            entries = getattr(ec2, call)(**asked)[key]
        for entry in entries:
            if entry.get("State") not in _ENDED:
                holder = next((a["InstanceId"] for a in entry.get("Attachments", []) if a.get("InstanceId")), "")
                yield entry[id_], f"ec2:{kind}", {**_by_name(entry), **({_OF: holder} if holder else {})}
    for instance in described(ec2, {"tag:project": [project]}):
        if state_of(instance) not in ENDED:
            yield instance["InstanceId"], "ec2:instance", tags_of(instance)


def _iam(cloud: Cloud) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Lists of IAM say no tags, so those that may be ours are asked one by one."""
    iam = cloud.client("iam")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if _SUFFIXED.search(role["RoleName"]):
                yield role["Arn"], "iam:role", _by_name(iam.list_role_tags(RoleName=role["RoleName"]))
    for page in iam.get_paginator("list_instance_profiles").paginate():
        for profile in page["InstanceProfiles"]:
            name = profile["InstanceProfileName"]
            if _SUFFIXED.search(name):
                answer = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
                yield profile["Arn"], "iam:instance-profile", _by_name(answer)


def _left_out_by_moto(cloud: Cloud) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What AWS's tagging API names and moto's does not."""
    route53, watch, ecr = cloud.client("route53"), cloud.client("cloudwatch"), cloud.client("ecr")
    for repository in ecr.describe_repositories()["repositories"]:
        tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
        yield repository["repositoryArn"], "ecr:repository", _by_name({"Tags": tags})
    sagemaker = cloud.client("sagemaker")
    for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]:
        arn = config["EndpointConfigArn"]
        yield arn, "sagemaker:endpoint-config", _by_name(sagemaker.list_tags(ResourceArn=arn))
    for zone in route53.list_hosted_zones()["HostedZones"]:
        id_ = zone["Id"].rsplit("/", 1)[-1]
        answer = route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=id_)
        yield f"arn:aws:route53:::hostedzone/{id_}", "route53:hostedzone", _by_name(answer["ResourceTagSet"])
    for page in watch.get_paginator("describe_alarms").paginate():
        for alarm in page["MetricAlarms"]:
            answer = watch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])
            yield alarm["AlarmArn"], "cloudwatch:alarm", _by_name(answer)


def _untagged(cloud: Cloud, stack: str) -> Iterator[Found]:
    for page in cloud.client("scheduler").get_paginator("list_schedules").paginate(NamePrefix=f"{stack}-"):
        for schedule in page["Schedules"]:
            if _of_stack(schedule["Name"], stack):
                yield Found(schedule["Arn"], "scheduler:schedule", stack)
    dashboards = cloud.client("cloudwatch").list_dashboards(DashboardNamePrefix=f"{PROJECT}-{stack}")
    for dashboard in dashboards["DashboardEntries"]:
        if dashboard["DashboardName"] == f"{PROJECT}-{stack}":
            yield Found(dashboard["DashboardArn"], "cloudwatch:dashboard", stack)
    account = cloud.account
    for page in cloud.client("budgets").get_paginator("describe_budgets").paginate(AccountId=account):
        for budget in page.get("Budgets", []):
            if _of_stack(budget["BudgetName"], stack):
                yield Found(f"arn:aws:budgets::{account}:budget/{budget['BudgetName']}", "budgets:budget", stack)


def _of_stack(name: str, stack: str) -> bool:
    """Whether the programs of `stack` call something so; a stack's name may begin with another's."""
    parts = r"(expiry|host|group|notice|endpoint|node)(-[a-z0-9]+)+-[0-9a-f]{7}"
    return re.fullmatch(rf"{re.escape(stack)}-{parts}", name) is not None


def _by_name(described: Mapping[str, Any]) -> dict[str, str]:
    tags = described.get("Tags") or described.get("TagSet") or []
    return {tag["Key"]: tag["Value"] for tag in tags}


def _ends(cloud: Cloud, arn: str, kind: str) -> bool:
    """Whether a key waits for its deletion."""
    if kind != "kms:key":
        return False
    return bool(cloud.client("kms").describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "PendingDeletion")
