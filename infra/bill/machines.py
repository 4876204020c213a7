"""Pricers of machines: EC2 instances, auto scaling groups, SageMaker endpoints, and their volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

from infra.bill.lines import MONTH, Line
from infra.bill.pricing import Pricing, number
from infra.plan import PlannedResource
from infra.resource_types import TEMPLATE
from sizing.hardware.types import CapacityBlock, Pay, Price

GP3_FREE_IOPS = Decimal(3000)
GP3_FREE_MIBPS = Decimal(125)
_GROUPS = {"on-demand": "on_demand", "spot": "spot", "savings-1y": "savings_plan", "savings-3y": "savings_plan"}
COMMITTED = ("reserved-1y", "reserved-3y", "savings-1y", "savings-3y")


def instance(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """`aws:ec2/instance:Instance`, its type and disk its own or its launch template's."""
    inputs = {**_template_inputs(resource, pricing), **resource.inputs}
    lines = [_compute(resource, pricing, str(inputs.get("instanceType", "")), Decimal(1))]
    lines += _volumes(resource, pricing, _own_volumes(inputs), Decimal(1))
    if inputs.get("associatePublicIpAddress") in (True, "true"):
        lines.append(pricing.hourly(resource, "public IPv4", pricing.prices.find("ec2", "public_ipv4", pricing.region)))
    return lines


def group(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """`aws:autoscaling/group:Group`: its least hosts always, its most in the worst case."""
    template = _template_inputs(resource, pricing)
    least, most = number(resource.inputs.get("minSize")), number(resource.inputs.get("maxSize"))
    lines = [_compute(resource, pricing, str(template.get("instanceType", "")), least, most)]
    return lines + _volumes(resource, pricing, _own_volumes(template), least, most)


def endpoint_configuration(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """`aws:sagemaker/endpointConfiguration:EndpointConfiguration`: what its variants run on."""
    asynchronous = bool(resource.inputs.get("asyncInferenceConfig"))
    target = pricing.first_of("aws:appautoscaling/target:Target")
    lines = []
    for variant in resource.inputs.get("productionVariants", []):
        type_ = str(variant.get("instanceType", "")).removeprefix("ml.")
        count = number(variant.get("initialInstanceCount"))
        most = number(target.inputs.get("maxCapacity")) if target else count
        lines.append(_hosting(resource, pricing, type_, count, most, asynchronous))
    return lines


def volume(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """`aws:ebs/volume:Volume`."""
    kind, *rest = (resource.inputs.get(key) for key in ("type", "size", "iops", "throughput"))
    size, iops, throughput = rest
    return _volumes(resource, pricing, [(kind or "gp2", size, iops, throughput)], Decimal(1))


def capacity_block(resource: PlannedResource, pricing: Pricing) -> list[Line]:
    """`aws:ec2/capacityBlockReservation:CapacityBlockReservation`: paid up front, at a fee that AWS offers anew."""
    return [pricing.unpriced(resource, "reservation", Decimal(1), "fee", "AWS names the fee with each offer")]


def _template_inputs(resource: PlannedResource, pricing: Pricing) -> Mapping[str, Any]:
    """Inputs of the launch template that a resource names: under a preview its id is unknown, its sibling is not."""
    if not resource.inputs.get("launchTemplate"):
        return {}
    wanted = str(resource.inputs["launchTemplate"].get("id", ""))
    siblings = pricing.parent_of_kind(resource, TEMPLATE)
    named = [t for t in siblings if wanted == f"{t.name}-id"]
    prefixed = [t for t in siblings if t.name == f"{resource.name}-template"]
    found = named or prefixed or siblings[:1]
    return found[0].inputs if found else {}


def _price(pricing: Pricing, type_: str) -> Price | None:
    return pricing.hardware.prices.get((type_, pricing.region))


def _compute(
    resource: PlannedResource, pricing: Pricing, type_: str, least: Decimal, most: Decimal | None = None
) -> Line:
    """Hours of `least` machines on average, of `most` in the worst case, by the stack's way of paying."""
    item, purchase = f"{type_ or 'instance'} ({pricing.purchase})", pricing.purchase
    if purchase == "capacity-block":
        return _block_line(resource, pricing, type_, item, least)
    price = _price(pricing, type_)
    rate = None if price is None else price.usd_per_hour.get(cast(Pay, purchase))
    if price is None or rate is None:
        return pricing.unpriced(
            resource, item, least, "hour", f"no {purchase} rate of {type_ or 'this type'} is known in {pricing.region}"
        )
    each = Decimal(str(rate))
    on_demand = price.usd_per_hour.get("on-demand")
    ceiling, notes = each, []
    if purchase == "spot":
        # A spot price never exceeds the on-demand one.
        ceiling = each if on_demand is None else max(each, Decimal(str(on_demand)))
        notes.append("spot: mean over zones; at worst the on-demand rate")
    if terms := price.terms.get(purchase):
        notes.append(terms)
    hours, why = (MONTH, "") if purchase in COMMITTED else pricing.running_hours()
    if why:
        notes.append(why)
    most = least if most is None else most
    above = Decimal(0)
    if most > least:
        notes.append(f"up to {most:g} under load")
        # Hosts above the committed number are paid on demand.
        extra = on_demand if purchase in COMMITTED and on_demand is not None else float(ceiling)
        above = (most - least) * Decimal(str(extra))
    return Line(
        resource.name, resource.type, item, "priced", least, "hour", each, each * least, each * least * hours,
        ceiling * least + above, price.as_of.get(_GROUPS.get(purchase, "reserved"), "undated"), price.source,
        "; ".join(notes),
    )  # fmt: skip


def _block_line(resource: PlannedResource, pricing: Pricing, type_: str, item: str, count: Decimal) -> Line:
    blocks: list[CapacityBlock] = [
        b for b in pricing.hardware.capacity_blocks if b.instance_type == type_ and b.region in (pricing.region, "")
    ]
    if not blocks:
        return pricing.unpriced(resource, item, count, "hour", f"no Capacity Block rate of {type_} is known here")
    block = blocks[0]
    each = Decimal(str(block.usd_per_hour)) * count
    return Line(
        resource.name, resource.type, item, "priced", count, "hour", Decimal(str(block.usd_per_hour)), each,
        each * MONTH, each, block.as_of, block.source, "; ".join(n for n in ("paid up front", block.note) if n),
    )  # fmt: skip


def _hosting(
    resource: PlannedResource, pricing: Pricing, type_: str, count: Decimal, most: Decimal, asynchronous: bool
) -> Line:
    item = f"ml.{type_} hosting"
    price = _price(pricing, type_)
    if price is None or price.sagemaker_hosting is None:
        return pricing.unpriced(resource, item, count, "hour", f"no hosting rate is known in {pricing.region}")
    if pricing.purchase != "on-demand":
        return pricing.unpriced(resource, item, count, "hour", f"no SageMaker {pricing.purchase} rate is known")
    each = Decimal(str(price.sagemaker_hosting))
    as_of, notes = price.as_of.get("sagemaker", "undated"), [price.terms.get("sagemaker_hosting", "")]
    hours, per_hour = MONTH * count, each * count
    if most > count:
        notes.append(f"up to {most:g} under load")
    if asynchronous:
        used = pricing.usage.get("endpoint_hours")
        if used is None:
            notes.append("scales to zero; counted as always on until a usage file gives endpoint_hours")
        else:
            hours = used
            notes.append(f"usage file: {used:g} instance hours a month")
    else:
        share, why = pricing.running_hours()
        hours = share * count
        notes.append(why)
    return Line(
        resource.name, resource.type, item, "priced", count, "hour", each, per_hour, each * hours,
        each * max(count, most), as_of, price.source, "; ".join(n for n in notes if n),
    )  # fmt: skip


_Volume = tuple[Any, Any, Any, Any]


def _own_volumes(inputs: Mapping[str, Any]) -> list[_Volume]:
    """(type, GiB, IOPS, MiB/s) of the root and further volumes of an instance or launch template."""
    found = []
    for mapping in inputs.get("blockDeviceMappings") or []:
        found.append(dict(mapping.get("ebs") or {}))
    root = inputs.get("rootBlockDevice")
    if root:
        # A root device given on the instance replaces the template's.
        found = [dict(root)]
    found += [dict(extra) for extra in inputs.get("ebsBlockDevices") or []]
    return [(v.get("volumeType", "gp2"), v.get("volumeSize"), v.get("iops"), v.get("throughput")) for v in found]


def _volumes(
    resource: PlannedResource, pricing: Pricing, volumes: list[_Volume], least: Decimal, most: Decimal | None = None
) -> list[Line]:
    """gp3: size, IOPS above 3,000, throughput above 125 MiB/s; kept whether the machine runs or is stopped."""
    lines: list[Line] = []
    for kind, size, iops, throughput in volumes:
        if kind != "gp3" or size is None:
            why = "its size is the image's" if size is None else f"no price of {kind} volumes is known"
            lines.append(pricing.unpriced(resource, f"{kind} volume", least, "GB-month", why))
            continue
        parts = [
            ("gp3_storage", f"gp3 {size} GiB", number(size)),
            ("gp3_iops", "gp3 IOPS", max(Decimal(0), number(iops or 0) - GP3_FREE_IOPS)),
            ("gp3_throughput", "gp3 throughput", max(Decimal(0), number(throughput or 0) - GP3_FREE_MIBPS)),
        ]
        for key, item, quantity in parts:
            if quantity:
                line = pricing.monthly(
                    resource, item, pricing.prices.find("ec2", key, pricing.region), quantity * least
                )
                if most is not None and most > least and line.worst_per_hour is not None:
                    line = replace(line, worst_per_hour=line.worst_per_hour / least * most if least else None)
                lines.append(line)
    return lines
