"""How one resource is removed by hand: the calls, as commands for a person to run and as calls for the sandbox."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from infra.cloud import Cloud, asking_aws
from infra.inventory import Found, standing, strays
from sizing.errors import UserError


@dataclass(frozen=True, slots=True)
class Call:
    """One call: a boto3 client, its method, its parameters."""

    service: str
    method: str
    parameters: dict[str, Any]


Calls = Callable[[Found, Cloud], list[Call]]


def _one(service: str, method: str, parameter: str, part: Callable[[Found], Any]) -> Calls:
    def calls(found: Found, _cloud: Cloud) -> list[Call]:
        return [Call(service, method, {parameter: part(found)})]

    return calls


def _id(found: Found) -> str:
    return found.id


def _ids(found: Found) -> list[str]:
    return [found.id]


def _name(found: Found) -> str:
    return found.name


def _rest(found: Found) -> str:
    """An ARN's part after its type: names that hold slashes."""
    return re.split(r"[:/]", found.id.split(":", 5)[5], maxsplit=1)[1]


def _gateway(found: Found, cloud: Cloud) -> list[Call]:
    told = cloud.client("ec2").describe_internet_gateways(InternetGatewayIds=[found.id])["InternetGateways"]
    attached = [a["VpcId"] for gateway in told for a in gateway.get("Attachments", [])]
    off = [Call("ec2", "detach_internet_gateway", {"InternetGatewayId": found.id, "VpcId": vpc}) for vpc in attached]
    return [*off, Call("ec2", "delete_internet_gateway", {"InternetGatewayId": found.id})]


def _table(found: Found, cloud: Cloud) -> list[Call]:
    told = cloud.client("ec2").describe_route_tables(RouteTableIds=[found.id])["RouteTables"]
    joined = [a for table in told for a in table.get("Associations", []) if not a.get("Main")]
    off = [Call("ec2", "disassociate_route_table", {"AssociationId": a["RouteTableAssociationId"]}) for a in joined]
    return [*off, Call("ec2", "delete_route_table", {"RouteTableId": found.id})]


def _rule(found: Found, cloud: Cloud) -> list[Call]:
    told = cloud.client("ec2").describe_security_group_rules(SecurityGroupRuleIds=[found.id])["SecurityGroupRules"]
    return [
        Call(
            "ec2",
            f"revoke_security_group_{'egress' if rule.get('IsEgress') else 'ingress'}",
            {"GroupId": rule["GroupId"], "SecurityGroupRuleIds": [found.id]},
        )
        for rule in told
    ]


def _role(found: Found, cloud: Cloud) -> list[Call]:
    iam, role = cloud.client("iam"), found.name
    inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    profiles = iam.list_instance_profiles_for_role(RoleName=role)["InstanceProfiles"]
    return [
        *(Call("iam", "delete_role_policy", {"RoleName": role, "PolicyName": name}) for name in inline),
        *(Call("iam", "detach_role_policy", {"RoleName": role, "PolicyArn": p["PolicyArn"]}) for p in attached),
        *(
            Call(
                "iam",
                "remove_role_from_instance_profile",
                {"InstanceProfileName": p["InstanceProfileName"], "RoleName": role},
            )
            for p in profiles
        ),
        Call("iam", "delete_role", {"RoleName": role}),
    ]


def _profile(found: Found, cloud: Cloud) -> list[Call]:
    told = cloud.client("iam").get_instance_profile(InstanceProfileName=found.name)["InstanceProfile"]
    own = {"InstanceProfileName": found.name}
    off = [Call("iam", "remove_role_from_instance_profile", {**own, "RoleName": r["RoleName"]}) for r in told["Roles"]]
    return [*off, Call("iam", "delete_instance_profile", own)]


def _zone(found: Found, cloud: Cloud) -> list[Call]:
    records = cloud.client("route53").list_resource_record_sets(HostedZoneId=found.name)["ResourceRecordSets"]
    own = [{"Action": "DELETE", "ResourceRecordSet": r} for r in records if r["Type"] not in ("NS", "SOA")]
    changes = {"HostedZoneId": found.name, "ChangeBatch": {"Changes": own}}
    first = [Call("route53", "change_resource_record_sets", changes)] if own else []
    return [*first, Call("route53", "delete_hosted_zone", {"Id": found.name})]


def _budget(found: Found, cloud: Cloud) -> list[Call]:
    return [Call("budgets", "delete_budget", {"AccountId": cloud.account, "BudgetName": found.name})]


def _key(found: Found, _cloud: Cloud) -> list[Call]:
    return [Call("kms", "schedule_key_deletion", {"KeyId": found.name, "PendingWindowInDays": 7})]


def _group(found: Found, _cloud: Cloud) -> list[Call]:
    return [Call("autoscaling", "delete_auto_scaling_group", {"AutoScalingGroupName": found.name, "ForceDelete": True})]


def _repository(found: Found, _cloud: Cloud) -> list[Call]:
    return [Call("ecr", "delete_repository", {"repositoryName": _rest(found), "force": True})]


_ORDERED: dict[str, Calls] = {
    "scheduler:schedule": _one("scheduler", "delete_schedule", "Name", _name),
    "autoscaling:autoScalingGroup": _group,
    "ec2:instance": _one("ec2", "terminate_instances", "InstanceIds", _ids),
    "sagemaker:endpoint": _one("sagemaker", "delete_endpoint", "EndpointName", _name),
    "sagemaker:endpoint-config": _one("sagemaker", "delete_endpoint_config", "EndpointConfigName", _name),
    "sagemaker:model": _one("sagemaker", "delete_model", "ModelName", _name),
    "elasticloadbalancing:listener": _one("elbv2", "delete_listener", "ListenerArn", _id),
    "elasticloadbalancing:loadbalancer": _one("elbv2", "delete_load_balancer", "LoadBalancerArn", _id),
    "elasticloadbalancing:targetgroup": _one("elbv2", "delete_target_group", "TargetGroupArn", _id),
    "ec2:natgateway": _one("ec2", "delete_nat_gateway", "NatGatewayId", _id),
    "ec2:vpc-endpoint": _one("ec2", "delete_vpc_endpoints", "VpcEndpointIds", _ids),
    "ec2:elastic-ip": _one("ec2", "release_address", "AllocationId", _id),
    "ec2:volume": _one("ec2", "delete_volume", "VolumeId", _id),
    "ec2:launch-template": _one("ec2", "delete_launch_template", "LaunchTemplateId", _id),
    "ec2:placement-group": _one("ec2", "delete_placement_group", "GroupName", _name),
    "ec2:vpc-flow-log": _one("ec2", "delete_flow_logs", "FlowLogIds", _ids),
    "ec2:network-interface": _one("ec2", "delete_network_interface", "NetworkInterfaceId", _id),
    "ec2:security-group-rule": _rule,
    "ec2:security-group": _one("ec2", "delete_security_group", "GroupId", _id),
    "ec2:route-table": _table,
    "ec2:subnet": _one("ec2", "delete_subnet", "SubnetId", _id),
    "ec2:internet-gateway": _gateway,
    "route53:hostedzone": _zone,
    "ec2:vpc": _one("ec2", "delete_vpc", "VpcId", _id),
    "iam:instance-profile": _profile,
    "iam:role": _role,
    "cloudwatch:alarm": _one("cloudwatch", "delete_alarms", "AlarmNames", lambda found: [found.name]),
    "cloudwatch:dashboard": _one("cloudwatch", "delete_dashboards", "DashboardNames", lambda found: [found.name]),
    "budgets:budget": _budget,
    "sns:topic": _one("sns", "delete_topic", "TopicArn", _id),
    "logs:log-group": _one("logs", "delete_log_group", "logGroupName", _rest),
    "ecr:repository": _repository,
    "s3:bucket": _one("s3", "delete_bucket", "Bucket", _name),
    "kms:key": _key,
}
"""By kind, in an order in which nothing stands in the way of what comes before it."""


def ordered(found: Iterable[Found]) -> list[Found]:
    """In the order in which they can be removed; kinds that are not known come last."""
    places = {kind: place for place, kind in enumerate(_ORDERED)}
    return sorted(found, key=lambda f: (places.get(f.kind, len(places)), f.id))


def commands(found: Found, cloud: Cloud) -> list[str]:
    """What a person runs to remove it, line by line; the last one says where to look for a kind that is not known."""
    where = f" --region {cloud.region}" + (f" --endpoint-url {cloud.endpoint}" if cloud.endpoint else "")
    if found.kind == "s3:bucket":
        # Versions hold a bucket, and the CLI has no command that removes them.
        return [f"{_empty(found.name, cloud)}", f"aws s3api delete-bucket --bucket {shlex.quote(found.name)}{where}"]
    try:
        with asking_aws(f"to look at {found.id}"):
            calls = _ORDERED[found.kind](found, cloud)
    except KeyError:
        return [f"aws resourcegroupstaggingapi get-resources --resource-arn-list {shlex.quote(found.id)}{where}"]
    except UserError as error:
        return [f"# {error}"]
    return [f"aws {call.service} {call.method.replace('_', '-')}{_arguments(call)}{where}" for call in calls]


def sweep(stack: str, cloud: Cloud, kept: Collection[str], left: Collection[str] = ()) -> tuple[Found, ...]:
    """What has the stack's tag and is not `kept`, by ids and names: what a command that was killed has made, and told
    no state. In the sandbox it is removed first, but for what is `left` in a state, whose own removal goes on.

    Raises `UserError` where AWS cannot be asked.
    """
    found = strays(standing(cloud, stack), set(kept))
    if cloud.endpoint is None or not found:
        return tuple(found)
    for one in ordered(strays(found, set(left))):
        remove(one, cloud)
    return tuple(strays(standing(cloud, stack), set(kept)))


def remove(found: Found, cloud: Cloud) -> str:
    """Remove it at once; returns what stood in the way, empty for nothing. For the sandbox: AWS itself needs waits."""
    if found.kind not in _ORDERED:
        return f"how {found.kind} is removed is not known"
    try:
        with asking_aws(f"to remove {found.id}"):
            if found.kind == "s3:bucket":
                versions = cloud.client("s3").get_paginator("list_object_versions")
                for page in versions.paginate(Bucket=found.name):
                    for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                        own = {"Bucket": found.name, "Key": entry["Key"], "VersionId": entry["VersionId"]}
                        cloud.client("s3").delete_object(**own)
            for call in _ORDERED[found.kind](found, cloud):
                getattr(cloud.client(call.service), call.method)(**call.parameters)
    except UserError as error:
        return str(error)
    return ""


def _empty(bucket: str, cloud: Cloud) -> str:
    at = f", endpoint_url={cloud.endpoint!r}" if cloud.endpoint else ""
    script = f"import boto3; boto3.resource('s3'{at}).Bucket({bucket!r}).object_versions.delete()"
    return f"python -c {shlex.quote(script)}"


def _arguments(call: Call) -> str:
    """As the AWS CLI takes them: `InstanceIds=[a]` is `--instance-ids a`, a structure is JSON, True a flag."""
    said = ""
    for name, value in call.parameters.items():
        said += f" --{_kebab(name)}"
        if value is True:
            continue
        if isinstance(value, dict):
            said += f" {shlex.quote(json.dumps(value))}"
        else:
            said += "".join(f" {shlex.quote(str(v))}" for v in (value if isinstance(value, list) else [value]))
    return said


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
