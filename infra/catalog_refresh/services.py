"""Prices of everything beside machines (gateways, endpoints, disks, logs, keys …) from the Price List API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from infra.catalog_refresh.clients import field
from infra.catalog_refresh.pricelist import ACTION, products
from infra.prices.table import COLUMNS

if TYPE_CHECKING:
    from mypy_boto3_pricing import PricingClient

_PREFIX = r"(?!TS-)(?:[A-Z]{2,4}\d?-|[a-z]{2}(?:-[a-z]+)+-\d-)?"
"""Usage types begin with their region (EUC1-, EU-, eu-central-1-), except in us-east-1, where many have no prefix.
TS- marks the trust stores of load balancers."""
Cells = dict[str, str]


@dataclass(frozen=True, slots=True)
class Item:
    """One row of services.csv and how AWS lists it. `unit` is ours; `units` are AWS's with what makes ours of them."""

    service: str
    item: str
    unit: str
    usage: str
    """The usage type without its region."""
    units: Mapping[str, Decimal]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: a service's price list narrowed to a few products, and the items among them."""

    code: str
    criteria: Mapping[str, str]
    items: tuple[Item, ...]


_ONE = Decimal(1)
_HOURS = {"Hrs": _ONE, "hours": _ONE, "Hours": _ONE}
_GB = {"GB": _ONE, "Gigabytes": _ONE}
_GB_MONTH = {"GB-Mo": _ONE, "GB-month": _ONE}
QUESTIONS: tuple[Question, ...] = (
    Question("AmazonEC2", {"productFamily": "NAT Gateway"}, (
        Item("ec2", "nat_gateway", "hour", "NatGateway-Hours", _HOURS),
        Item("ec2", "nat_gateway_data", "GB", "NatGateway-Bytes", _GB),
    )),
    Question("AmazonVPC", {"productFamily": "VpcEndpoint"}, (
        Item("ec2", "interface_endpoint", "hour", "VpcEndpoint-Hours", _HOURS, "per zone"),
        Item("ec2", "interface_endpoint_data", "GB", "VpcEndpoint-Bytes", _GB, "first PB"),
    )),
    Question("AWSELB", {"productFamily": "Load Balancer-Application"}, (
        Item("elb", "alb", "hour", "LoadBalancerUsage", _HOURS),
        Item("elb", "alb_lcu", "LCU-hour", "LCUUsage", {"LCU-Hrs": _ONE}),
    )),
    Question("AWSELB", {"productFamily": "Load Balancer-Network"}, (
        Item("elb", "nlb", "hour", "LoadBalancerUsage", _HOURS),
        Item("elb", "nlb_lcu", "LCU-hour", "LCUUsage", {"LCU-Hrs": _ONE}),
    )),
    Question("AmazonEC2", {"volumeApiName": "gp3"}, (
        Item("ec2", "gp3_storage", "GB-month", "EBS:VolumeUsage.gp3", _GB_MONTH),
        Item("ec2", "gp3_iops", "IOPS-month", "EBS:VolumeP-IOPS.gp3", {"IOPS-Mo": _ONE}, "above 3,000"),
        Item("ec2", "gp3_throughput", "MiBps-month", "EBS:VolumeP-Throughput.gp3",
             {"MiBps-mo": _ONE, "GiBps-mo": _ONE / 1024}, "above 125"),
    )),
    Question("awskms", {}, (
        Item("kms", "key", "month", "KMS-Keys", {"Keys": _ONE, "Months": _ONE}),
        Item("kms", "requests", "10k requests", "KMS-Requests", {"Requests": Decimal(10_000)}),
    )),
    Question("AmazonCloudWatch", {}, (
        Item("logs", "ingested", "GB", "DataProcessing-Bytes", _GB),
        Item("logs", "stored", "GB-month", "TimedStorage-ByteHrs", _GB_MONTH),
        Item("cloudwatch", "alarm", "month", "CW:AlarmMonitorUsage", {"Alarms": _ONE}, "standard resolution"),
        Item("cloudwatch", "alarm_high_resolution", "month", "CW:HighResAlarmMonitorUsage", {"Alarms": _ONE}),
        Item("cloudwatch", "custom_metric", "metric-month", "CW:MetricMonitorUsage", {"Metrics": _ONE}, "first 10,000"),
    )),
    Question("AmazonS3", {"productFamily": "Storage"}, (
        Item("s3", "storage", "GB-month", "TimedStorage-ByteHrs", _GB_MONTH, "first 50 TB"),
    )),
    Question("AmazonS3", {"productFamily": "API Request"}, (
        Item("s3", "put_requests", "1k requests", "Requests-Tier1", {"Requests": Decimal(1000)}),
    )),
    Question("AmazonECR", {}, (Item("ecr", "storage", "GB-month", "TimedStorage-ByteHrs", _GB_MONTH),)),
    Question("AmazonSNS", {}, (
        Item("sns", "email", "100k notifications", "DeliveryAttempts-SMTP",
             {"Notifications": Decimal(100_000)}, "over 1,000 a month"),
    )),
)  # fmt: skip
"""Everything that the bill prices by region, but for dashboards and data transfer, which AWS lists otherwise."""


def service_rows(
    client: PricingClient, region: str, today: str, advance: Callable[[], None]
) -> tuple[list[Cells], list[str]]:
    """The rows of a region, dated `today`, and a note for what AWS does not list as expected: that stays as it was.

    Of tiers the first that costs something counts. A usage type with several rates is not taken, since nothing says
    which one is meant. Raises `UserError` where AWS refuses.
    """
    rows: list[Cells] = []
    missing: list[str] = []
    for question in QUESTIONS:
        criteria = {"regionCode": region, **question.criteria}
        listed = list(products(client, question.code, criteria, region, without="services"))
        for item in question.items:
            rates = {rate for product in listed if _is(product, item.usage) for rate in _first_tier(product, item)}
            if len(rates) == 1:
                rows.append(_row(item, region, rates.pop(), today, question.code))
            else:
                missing.append(f"{item.service} {item.item}")
        advance()
    said = f"{region}: AWS lists no single price of {', '.join(missing)}: those stay as they were" if missing else ""
    return rows, [said] if said else []


def _is(product: Mapping[str, Any], usage: str) -> bool:
    attributes = field(product, ACTION, "product", "attributes")
    found = re.fullmatch(_PREFIX + re.escape(usage), str(attributes.get("usagetype", "")))
    return found is not None and attributes.get("locationType", "AWS Region") == "AWS Region"


def _first_tier(product: Mapping[str, Any], item: Item) -> list[Decimal]:
    """The rate of the lowest tier that costs something, in the item's own unit; none where AWS's unit is another."""
    tiers: list[tuple[Decimal, Decimal]] = []
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in field(term, ACTION, "priceDimensions").values():
            text, unit = field(dimension, ACTION, "pricePerUnit").get("USD"), str(dimension.get("unit", ""))
            try:
                usd, begins = Decimal(str(text)), Decimal(str(dimension.get("beginRange", "0")))
            except InvalidOperation:
                continue
            if unit in item.units and usd.is_finite() and usd > 0:
                tiers.append((begins, usd * item.units[unit]))
    return [min(tiers)[1]] if tiers else []


def _row(item: Item, region: str, usd: Decimal, today: str, code: str) -> Cells:
    row = {
        "service": item.service,
        "item": item.item,
        "region": region,
        "unit": item.unit,
        "usd": format(round(usd, 8).normalize(), "f"),
        "as_of": today,
        "note": item.note,
        "source": f"AWS Price List, GetProducts {code}, usage type {item.usage}",
    }
    return {name: row[name] for name in COLUMNS}
