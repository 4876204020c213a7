"""Spot rates as they stand, from EC2's price history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING

from infra.catalog_refresh.clients import asking, unexpected

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

ACTION = "ec2:DescribeSpotPriceHistory"


def spot_rates(client: EC2Client, region: str, types: Sequence[str], now: datetime) -> dict[str, dict[str, float]]:
    """Mean, lowest and highest spot US dollars an hour over a region's zones, by type and column.

    A history that starts now holds one entry a type and zone: the rate in force. Local Zones are left out.
    """
    zone = re.compile(re.escape(region) + r"[a-z]\Z")
    latest: dict[tuple[str, str], tuple[datetime, float]] = {}
    pages = client.get_paginator("describe_spot_price_history")
    with asking(ACTION, region, "spot"):
        for page in pages.paginate(InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=now):  # type: ignore[arg-type]
            for record in page["SpotPriceHistory"]:
                key = record["InstanceType"], record["AvailabilityZone"]
                if not zone.match(key[1]):
                    continue
                try:
                    entry = record["Timestamp"], float(record["SpotPrice"])
                except ValueError:
                    raise unexpected(ACTION, f"the price '{record['SpotPrice']}' is not a number") from None
                if key not in latest or entry[0] > latest[key][0]:
                    latest[key] = entry
    by_type: dict[str, list[float]] = {}
    for (name, _), (_, usd) in latest.items():
        by_type.setdefault(name, []).append(usd)
    return {
        name: {
            "spot_usd_h": round(fmean(rates), 6),
            "spot_min_usd_h": min(rates),
            "spot_max_usd_h": max(rates),
        }
        for name, rates in by_type.items()
    }
