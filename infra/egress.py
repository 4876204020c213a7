"""How machines without a public address reach AWS's APIs: a NAT gateway or interface endpoints, by their price."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from infra.prices.table import ServicePrices, load_services


def nat_per_hour(region: str, prices: ServicePrices) -> Decimal | None:
    """US dollars an hour of one NAT gateway with its address, traffic apart; None where unpriced."""
    gateway, address = prices.find("ec2", "nat_gateway", region), prices.find("ec2", "public_ipv4", region)
    return None if gateway is None or address is None else gateway.usd + address.usd


def endpoints_per_hour(region: str, services: Sequence[str], zones: int, prices: ServicePrices) -> Decimal | None:
    """US dollars an hour of an interface endpoint for each service in each zone; None where unpriced."""
    endpoint = prices.find("ec2", "interface_endpoint", region)
    return None if endpoint is None else endpoint.usd * len(services) * zones


def choose_egress(
    wished: str, region: str, services: Sequence[str], zones: int, prices: ServicePrices | None = None
) -> str:
    """`nat`, `endpoints` or `none`. `auto` takes the cheaper by the hour, and endpoints where a price is missing.

    Weights and image layers come through the free S3 gateway endpoint either way, so traffic hardly counts.
    """
    if not services:
        return "none"
    if wished != "auto":
        return wished
    prices = prices or load_services()
    nat, endpoints = nat_per_hour(region, prices), endpoints_per_hour(region, services, zones, prices)
    return "nat" if nat is not None and endpoints is not None and nat < endpoints else "endpoints"
