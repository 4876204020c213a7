"""On-demand, reserved and SageMaker rates from the Price List API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.catalog_refresh.clients import asking, field, unexpected

if TYPE_CHECKING:
    from mypy_boto3_pricing import PricingClient

ACTION = "pricing:GetProducts"
HOURS_OF_TERM = {"1yr": 8760, "3yr": 3 * 8760}
SAGEMAKER_USES = {"Hosting": "sagemaker_hosting_usd_h", "Training": "sagemaker_training_usd_h"}
"""`platoinstancetype` of a SageMaker product and the column that its rate goes to."""

_RESERVED = {
    ("standard", "No Upfront"): "reserved_{years}y_no_upfront_usd_h",
    ("standard", "Partial Upfront"): "reserved_{years}y_partial_upfront_usd_h",
    ("standard", "All Upfront"): "reserved_{years}y_all_upfront_usd_h",
    ("convertible", "No Upfront"): "convertible_{years}y_no_upfront_usd_h",
}
_ML_TYPE = re.compile(r"ml\.([a-z0-9-]+\.[a-z0-9]+)")


def ec2_rates(client: PricingClient, instance_type: str, region: str) -> dict[str, float]:
    """On-demand and reserved US dollars an hour of a type (Linux), by column; empty where AWS lists no price.

    Upfront terms are effective rates: hourly + upfront / (years × 8,760).
    """
    bare_metal = instance_type.endswith(".metal") or ".metal-" in instance_type
    criteria = {
        "regionCode": region,
        "instanceType": instance_type,
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "productFamily": "Compute Instance (bare metal)" if bare_metal else "Compute Instance",
    }
    # Bare metal is listed under dedicated tenancy, some types under shared as well; they cost the same.
    tenancies = ("Shared", "Dedicated") if bare_metal else ("Shared",)
    listed = list(products(client, "AmazonEC2", criteria, region))
    for tenancy in tenancies:
        for product in listed:
            attributes = field(product, ACTION, "product", "attributes")
            if attributes.get("tenancy") == tenancy and (rates := _rates(product)):
                return rates
    return {}


def sagemaker_rates(client: PricingClient, use: str, region: str) -> dict[str, float]:
    """US dollars an hour of SageMaker's ML instances for one `use` of `SAGEMAKER_USES`, by EC2 type (g5.xlarge)."""
    criteria = {"regionCode": region, "productFamily": "ML Instance", "platoinstancetype": use}
    found: dict[str, float] = {}
    for product in products(client, "AmazonSageMaker", criteria, region, without="sagemaker"):
        attributes = field(product, ACTION, "product", "attributes")
        # "ml.g5.xlarge", "ml.g5.xlarge-Hosting", or only in the usage type: "USE1-Host:ml.g5.xlarge".
        names = (attributes.get(name, "") for name in ("instanceName", "instanceType", "usagetype"))
        matches = [match for name in names if (match := _ML_TYPE.search(name))]
        rate = _on_demand(product)
        if matches and rate is not None and attributes.get("locationType", "AWS Region") == "AWS Region":
            found[matches[0][1]] = rate
    return found


def products(
    client: PricingClient, service: str, criteria: dict[str, str], region: str, without: str = ""
) -> Iterator[dict[str, Any]]:
    """All products that match every criterion; each comes as a JSON document in a string."""
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in criteria.items()]
    pages = client.get_paginator("get_products")
    with asking(ACTION, region, without):
        for page in pages.paginate(ServiceCode=service, Filters=filters):  # type: ignore[arg-type]
            for text in page["PriceList"]:
                try:
                    product = json.loads(text)
                except ValueError:
                    raise unexpected(ACTION, "an entry of PriceList is not JSON") from None
                yield product


def _rates(product: dict[str, Any]) -> dict[str, float]:
    on_demand = _on_demand(product)
    rates = {} if on_demand is None else {"on_demand_usd_h": on_demand}
    for term in product.get("terms", {}).get("Reserved", {}).values():
        terms = field(term, ACTION, "termAttributes")
        length, kind = terms.get("LeaseContractLength"), (terms.get("OfferingClass"), terms.get("PurchaseOption"))
        if length not in HOURS_OF_TERM or kind not in _RESERVED:
            continue
        upfront, hourly, priced = 0.0, 0.0, False
        for dimension in term["priceDimensions"].values():
            usd = _usd(dimension)
            if usd is None:
                continue
            priced = True
            if dimension["unit"] == "Quantity":
                upfront += usd
            else:
                hourly += usd
        effective = round(hourly + upfront / HOURS_OF_TERM[length], 6)
        if priced and effective > 0:
            rates[_RESERVED[kind].format(years=length[0])] = effective
    return rates


def _on_demand(product: dict[str, Any]) -> float | None:
    """The on-demand rate. AWS lists some products at 0 (free tiers, placeholders): that is no price of a machine."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in field(term, ACTION, "priceDimensions").values():
            usd = _usd(dimension)
            if usd and dimension.get("unit") in ("Hrs", "Hours", "hours"):
                return usd
    return None


def _usd(dimension: dict[str, Any]) -> float | None:
    """US dollars of a price dimension; None where it is priced in another currency."""
    text = field(dimension, ACTION, "pricePerUnit").get("USD")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise unexpected(ACTION, f"the price '{text}' is not a number") from None
