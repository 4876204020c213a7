"""Which machines of a stack there are: by their tags, or by the names that the programs fix."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.instances import described
from infra.operations.clients import Client, asking
from infra.settings import PROJECT, InferenceSettings, ServiceSettings
from infra.stack_files import StackFile


@dataclass(frozen=True, slots=True)
class Machines:
    """Where a stack's metrics stand. Empty or None: there is none, or none any more."""

    instances: tuple[str, ...] = ()
    group: str = ""
    balancer: str = ""
    """The load balancer as CloudWatch names it: the end of its ARN."""
    endpoint: str = ""
    endpoint_since: datetime | None = None
    endpoint_count: int | None = None
    """Instances of the endpoint's variant."""


def find(client: Client, file: StackFile) -> Machines:
    """The machines of a stack that serves."""
    settings = file.settings
    if not isinstance(settings, ServiceSettings):
        return Machines()
    if isinstance(settings, InferenceSettings):
        balanced = settings.balanced
        return Machines(
            instances=_instances(client, file),
            group=f"{PROJECT}-{file.name}" if balanced else "",
            balancer=_balancer(client, file) if balanced else "",
        )
    return _endpoint(client, f"{PROJECT}-{file.name}", file.region)


def _instances(client: Client, file: StackFile) -> tuple[str, ...]:
    """Hosts that carry the stack's tag; EC2 lists a terminated one for about an hour."""
    with asking("ec2:DescribeInstances", file.region):
        found = described(client("ec2"), {"tag:project": [PROJECT], "tag:stack": [file.name]})
    return tuple(sorted(i["InstanceId"] for i in found))


def _balancer(client: Client, file: StackFile) -> str:
    with asking("tag:GetResources", file.region):
        pages = (
            client("resourcegroupstaggingapi")
            .get_paginator("get_resources")
            .paginate(
                TagFilters=[{"Key": "project", "Values": [PROJECT]}, {"Key": "stack", "Values": [file.name]}],
                ResourceTypeFilters=["elasticloadbalancing:loadbalancer"],
            )
        )
        arns = [r["ResourceARN"] for page in pages for r in page["ResourceTagMappingList"]]
    return str(arns[0]).split(":loadbalancer/", 1)[-1] if arns else ""


def _endpoint(client: Client, name: str, region: str) -> Machines:
    with asking("sagemaker:ListEndpoints", region):
        pages = client("sagemaker").get_paginator("list_endpoints").paginate(NameContains=name)
        there = any(e["EndpointName"] == name for page in pages for e in page["Endpoints"])
    if not there:
        return Machines(endpoint=name)
    with asking("sagemaker:DescribeEndpoint", region):
        said = client("sagemaker").describe_endpoint(EndpointName=name)
    counts = [v.get("CurrentInstanceCount") for v in said.get("ProductionVariants", ())]
    count = counts[0] if counts and isinstance(counts[0], int) else None
    return Machines(endpoint=name, endpoint_since=said.get("CreationTime"), endpoint_count=count)
