"""Blocks of addresses in a stack's settings: which are private, and what a network or a caller may be."""

from __future__ import annotations

import ipaddress

_PRIVATE = tuple(ipaddress.IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))


def is_private(cidr: str) -> bool:
    """Whether a block of addresses lies in the private ranges (RFC 1918, RFC 6598)."""
    block = ipaddress.ip_network(cidr)
    return isinstance(block, ipaddress.IPv4Network) and any(block.subnet_of(p) for p in _PRIVATE)


def check_network(cidr: str) -> None:
    """Raise `ValueError` for what is no private IPv4 network of size /16 to /22."""
    try:
        block = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise ValueError(f"'{cidr}' is no IPv4 network: {error}") from None
    if not 16 <= block.prefixlen <= 22 or not is_private(cidr):
        raise ValueError(f"'{cidr}' must be a private network of size /16 to /22")


def check_caller(cidr: str) -> None:
    """Raise `ValueError` for what is no IPv4 block."""
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError as error:
        raise ValueError(f"'{cidr}' is no CIDR block: {error}") from None
    if network.version != 4:
        raise ValueError(f"'{cidr}': callers are IPv4 blocks")
