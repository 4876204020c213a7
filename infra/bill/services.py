"""Pricers of everything that is no machine."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from infra.bill.lines import Line
from infra.bill.pricing import Pricing, number
from infra.plan import PlannedResource

Pricer = Callable[[PlannedResource, Pricing], list[Line]]


def nat_gateway(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    find, region = pricing.prices.find, pricing.region
    return [
        pricing.hourly(resource, "NAT gateway", find("ec2", "nat_gateway", region)),
        pricing.by_usage(resource, "NAT traffic", find("ec2", "nat_gateway_data", region), "nat_gb"),
    ]


def address(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    return [pricing.hourly(resource, "public IPv4", pricing.prices.find("ec2", "public_ipv4", pricing.region))]


def vpc_endpoint(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """Gateway endpoints are free; interface endpoints cost by the zone."""
    if resource.inputs.get("vpcEndpointType", "Gateway") == "Gateway":
        return [Line(resource.name, resource.type, "", "free")]
    find, region = pricing.prices.find, pricing.region
    zones = Decimal(len(resource.inputs.get("subnetIds") or [None]))
    return [
        pricing.hourly(resource, "interface endpoint", find("ec2", "interface_endpoint", region), zones),
        pricing.by_usage(resource, "endpoint traffic", find("ec2", "interface_endpoint_data", region), "endpoint_gb"),
    ]


def load_balancer(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    find, region = pricing.prices.find, pricing.region
    kind = "nlb" if resource.inputs.get("loadBalancerType") == "network" else "alb"
    units = pricing.usage.get("load_balancer_capacity_units")
    lines = [pricing.hourly(resource, kind.upper(), find("elb", kind, region))]
    price = find("elb", f"{kind}_lcu", region)
    if units is not None:
        lines.append(pricing.hourly(resource, "capacity units", price, units))
    else:
        lines.append(pricing.by_usage(resource, "capacity units", price, "load_balancer_capacity_units"))
    if resource.inputs.get("internal") is False:
        zones = Decimal(len(resource.inputs.get("subnets") or [None]))
        lines.append(pricing.hourly(resource, "public IPv4", find("ec2", "public_ipv4", region), zones))
        lines.append(
            pricing.by_usage(
                resource, "traffic to the internet", find("transfer", "internet_out", region), "internet_out_gb"
            )
        )
    if len(resource.inputs.get("subnets") or []) > 1:
        lines.append(
            pricing.by_usage(
                resource, "traffic between zones", find("transfer", "between_zones", region), "between_zones_gb"
            )
        )
    return lines


def key(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    find, region = pricing.prices.find, pricing.region
    return [
        pricing.monthly(resource, "KMS key", find("kms", "key", region)),
        pricing.by_usage(resource, "KMS requests", find("kms", "requests", region), "kms_requests", Decimal(10_000)),
    ]


def bucket(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """The usage file gives one figure for all buckets; the artifact bucket bears it."""
    if not resource.name.endswith("artifacts"):
        return [
            Line(
                resource.name,
                resource.type,
                "",
                "usage",
                note="access logs, which expire; their GB are part of artifact_storage_gb",
            )
        ]
    find, region = pricing.prices.find, pricing.region
    return [
        pricing.by_usage(resource, "S3 storage", find("s3", "storage", region), "artifact_storage_gb"),
        pricing.by_usage(
            resource, "S3 writes", find("s3", "put_requests", region), "artifact_put_requests", Decimal(1000)
        ),
    ]


def log_group(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """The usage file gives one figure for all groups; the first group by name bears it."""
    groups = sorted(r.name for r in pricing.resources.values() if r.type == resource.type)
    find, region = pricing.prices.find, pricing.region
    if groups[0] != resource.name:
        return [Line(resource.name, resource.type, "", "usage", note=f"counted with {groups[0]}")]
    return [
        pricing.by_usage(resource, "logs written", find("logs", "ingested", region), "log_gb"),
        pricing.by_usage(resource, "logs kept", find("logs", "stored", region), "log_stored_gb"),
    ]


def alarm(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    item = "alarm_high_resolution" if number(resource.inputs.get("period"), 60) < 60 else "alarm"
    metrics = Decimal(max(1, len(resource.inputs.get("metricQueries") or [])))
    return [pricing.monthly(resource, "alarm", pricing.prices.find("cloudwatch", item, pricing.region), metrics)]


def custom_metrics(resource: PlannedResource, pricing: Pricing) -> Line:
    """What hosts send to CloudWatch is no resource; the stack's dashboard, of which there is one, bears it."""
    price = pricing.prices.find("cloudwatch", "custom_metric", pricing.region)
    return pricing.by_usage(resource, "custom metrics", price, "custom_metrics")


def dashboard(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    price = pricing.prices.find("cloudwatch", "dashboard", pricing.region)
    return [pricing.monthly(resource, "dashboard", price), custom_metrics(resource, pricing)]


def zone(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    return [pricing.monthly(resource, "hosted zone", pricing.prices.find("route53", "zone", pricing.region))]


def repository(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    price = pricing.prices.find("ecr", "storage", pricing.region)
    return [pricing.by_usage(resource, "image storage", price, "image_storage_gb")]


def topic(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    price = pricing.prices.find("sns", "email", pricing.region)
    mails = pricing.usage.get("email_notifications")
    if mails is not None and mails <= 1000:
        return [Line(resource.name, resource.type, "e-mail", "free", note="the first 1,000 mails a month are free")]
    return [pricing.by_usage(resource, "e-mail", price, "email_notifications", Decimal(100_000))]
