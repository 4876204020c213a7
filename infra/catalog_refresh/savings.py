"""Savings Plans rates, paid by the hour with nothing upfront."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from infra.catalog_refresh.clients import asking, field, unexpected

if TYPE_CHECKING:
    from mypy_boto3_savingsplans import SavingsPlansClient

ACTION = "savingsplans:DescribeSavingsPlansOfferingRates"
BATCH = 25
"""Types a request."""
_BOX_USAGE = re.compile(r"(?:[A-Z0-9]+-)?BoxUsage:")
"""The machine's own hours (USW2-BoxUsage:g5.xlarge), not those of an idle capacity reservation (USW2-UnusedBox:…)."""
_SECONDS_A_YEAR = 365 * 24 * 3600
_COLUMNS = {
    "EC2Instance": "savings_ec2_{years}y_no_upfront_usd_h",
    "Compute": "savings_compute_{years}y_no_upfront_usd_h",
}


def batches(types: Sequence[str]) -> int:
    """How many steps `savings_rates` reports for these types."""
    return -(-len(types) // BATCH)


def savings_rates(
    client: SavingsPlansClient, region: str, types: Sequence[str], done: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """EC2 Instance and Compute Savings Plans' US dollars an hour (Linux, shared, no upfront), by type and column."""
    found: dict[str, dict[str, float]] = {}
    for start in range(0, len(types), BATCH):
        request: dict[str, Any] = {
            "savingsPlanPaymentOptions": ["No Upfront"],
            "savingsPlanTypes": list(_COLUMNS),
            "products": ["EC2"],
            "serviceCodes": ["AmazonEC2"],
            "filters": [
                {"name": "region", "values": [region]},
                {"name": "instanceType", "values": list(types[start : start + BATCH])},
                {"name": "productDescription", "values": ["Linux/UNIX"]},
                {"name": "tenancy", "values": ["shared"]},
            ],
            "maxResults": 1000,
        }
        while True:  # botocore has no paginator for this call
            with asking(ACTION, region, "savings"):
                answer = client.describe_savings_plans_offering_rates(**request)
            for record in answer.get("searchResults", []):
                _keep(dict(record), region, found)
            token = answer.get("nextToken")
            if not token:
                break
            if token == request.get("nextToken"):
                raise unexpected(ACTION, "the same page comes again")
            request["nextToken"] = token
        done()
    return found


def _keep(record: dict[str, Any], region: str, found: dict[str, dict[str, float]]) -> None:
    offering = field(record, ACTION, "savingsPlanOffering")
    properties = {p["name"]: p["value"] for p in record.get("properties", [])}
    years, rest = divmod(offering.get("durationSeconds", 0), _SECONDS_A_YEAR)
    wanted = (
        _BOX_USAGE.match(record.get("usageType", ""))
        and offering.get("currency") == "USD"
        and offering.get("paymentOption") == "No Upfront"
        and offering.get("planType") in _COLUMNS
        and record.get("unit") == "Hrs"
        and properties.get("region", region) == region
        and not rest
        and years in (1, 3)
        and "instanceType" in properties
    )
    if not wanted:
        return
    try:
        rate = float(record["rate"])
    except (KeyError, ValueError):
        raise unexpected(ACTION, f"the rate '{record.get('rate')}' is not a number") from None
    if rate > 0:
        column = _COLUMNS[offering["planType"]].format(years=years)
        found.setdefault(properties["instanceType"], {})[column] = round(rate, 6)
