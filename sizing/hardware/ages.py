"""How old the catalogue's data are, group by group."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date

from sizing.hardware.load import Hardware
from sizing.hardware.tables import GROUPS

STALE_DAYS = 180
"""Data older than this deserve a warning: AWS cut the P family's prices by up to 44 % within one quarter (2025)."""


@dataclass(frozen=True, slots=True)
class Age:
    """How many rows a group has and from when. Dates are as the data state them (2026-07-20, 2026-05, 2021)."""

    group: str
    rows: int
    oldest: str
    """The oldest date of a row; "" where every row is undated."""
    newest: str
    undated: int
    days: int | None
    """Days since `oldest` (a month or a year counts from its first day); None where every row is undated."""

    @property
    def stale(self) -> bool:
        return self.days is not None and self.days > STALE_DAYS


def ages(hardware: Hardware, today: date, region: str | None = None, types: Collection[str] | None = None) -> list[Age]:
    """The age of every group of data, over all regions and types or some. Groups without rows are there with 0 rows."""

    def within(name: str, where: str | None = None) -> bool:
        return (types is None or name in types) and (region is None or where is None or where == region)

    instances = [i for i in hardware.instances.values() if within(i.name)]
    gpus = {i.gpu.name for i in instances if i.gpu}
    prices = [price for price in hardware.prices.values() if within(price.instance_type, price.region)]
    offerings = [o for o in hardware.offerings.values() if within(o.instance_type, o.region) and o.az_count is not None]
    blocks = [b for b in hardware.capacity_blocks if within(b.instance_type, b.region)]
    groups: list[tuple[str, Iterable[str]]] = [
        ("instance_types", (i.as_of for i in instances)),
        ("accelerators", (gpu.as_of for gpu in hardware.accelerators if gpu.name in gpus)),
        ("offerings", (o.as_of for o in offerings)),
        *((group, [price.as_of[group] for price in prices if group in price.as_of]) for group in GROUPS),
        ("capacity_blocks", (b.as_of for b in blocks)),
    ]
    return [_age(group, list(dates), today) for group, dates in groups]


def _age(group: str, dates: list[str], today: date) -> Age:
    dated = sorted((d for d in dates if not d.startswith("undated")), key=_day)
    return Age(
        group=group,
        rows=len(dates),
        oldest=dated[0] if dated else "",
        newest=dated[-1] if dated else "",
        undated=len(dates) - len(dated),
        days=(today - _day(dated[0])).days if dated else None,
    )


def _day(text: str) -> date:
    year, month, day = (*(int(part) for part in text.split("-")), 1, 1)[:3]
    return date(year, month, day)
