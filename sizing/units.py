"""Units of memory. Inside Berth every size is bytes; GiB (2^30) when shown unless GB (10^9) is said."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
GB = 10**9
HOURS_PER_MONTH = 730.0
"""AWS's own month: 8,760 hours / 12 (AWS Pricing Calculator)."""
HOURS_PER_YEAR = 8760.0


def gib(size_bytes: float) -> str:
    """`size_bytes` as text in GiB, two decimals: `10.62 GiB`."""
    return f"{size_bytes / GIB:,.2f} GiB"


def whole(number: float) -> str:
    """A number of things with separators: `5,000`; with decimals only below one."""
    return f"{number:,.0f}" if number >= 1 else f"{number:.3g}"


def count(number: float) -> str:
    """A large count in words people use: `2.85B`, `770M`, `60.5M`."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            value = number / size
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.3g}{letter}"
    return f"{number:g}"


def things(number: float, one: str, many: str = "") -> str:
    """So many of a thing, in words: `1 epoch`, `2.5 epochs`, `1,000 answers`; `many` where an s is not enough."""
    said = f"{number:,.6g}" if isinstance(number, float) else f"{number:,}"
    return f"{said} {one if number == 1 else many or one + 's'}"
