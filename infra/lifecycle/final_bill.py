"""What a run has cost: the time that its machines were there, at the prices of its bill; and what is kept costs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from infra.bill.lines import cents
from infra.cloud import asking_aws
from infra.durations import write_instant
from infra.prices.table import ServicePrices, load_services
from model_runtime.fetch import split_s3
from sizing.units import GIB

_HOUR = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Spent:
    """One line of the run's bill. US dollars; `usd` is `usd_per_hour` for as long as the run took."""

    resource: str
    item: str
    usd_per_hour: Decimal
    usd: Decimal
    as_of: str


@dataclass(frozen=True, slots=True)
class FinalBill:
    """From `since` to `until`, at the prices that the run began with. `sure` is False where the end is not known and
    `until` is the latest that it can have been. `kept_bytes` stay in S3 at `kept_usd_per_month` (None: unpriced)."""

    since: datetime
    until: datetime
    sure: bool
    lines: tuple[Spent, ...]
    unpriced: tuple[str, ...]
    kept_bytes: int
    kept_usd_per_month: Decimal | None

    @property
    def hours(self) -> Decimal:
        return Decimal(str(max(0.0, (self.until - self.since).total_seconds()))) / _HOUR

    @property
    def usd(self) -> Decimal:
        return sum((line.usd for line in self.lines), Decimal(0))

    def to_json(self) -> dict[str, Any]:
        return {
            "since": write_instant(self.since),
            "until": write_instant(self.until),
            "until_is_known": self.sure,
            "hours": round(float(self.hours), 4),
            "lines": [
                {
                    "resource": line.resource,
                    "item": line.item,
                    "usd_per_hour": float(line.usd_per_hour),
                    "usd": float(cents(line.usd)),
                    "as_of": line.as_of or None,
                }
                for line in self.lines
            ],
            "usd": float(cents(self.usd)),
            "unpriced": list(self.unpriced),
            "kept_bytes": self.kept_bytes,
            "kept_usd_per_month": None if self.kept_usd_per_month is None else float(cents(self.kept_usd_per_month)),
        }


def final_bill(
    begun: Mapping[str, Any] | None,
    since: datetime,
    until: datetime,
    kept_bytes: int,
    region: str,
    *,
    sure: bool = True,
    prices: ServicePrices | None = None,
) -> FinalBill:
    """The bill of a run by the note with which it began (`train_begin.begun`); without one, nothing of it has a price.

    EC2 bills by the second, a minute at least (Amazon EC2 on-demand pricing).
    """
    hours = max(Decimal(60), Decimal(str((until - since).total_seconds()))) / _HOUR
    lines, unpriced = [], []
    if begun is None:
        unpriced = ["everything: the note with which the run began is not in S3, and it names the prices"]
    else:
        unpriced = [str(entry) for entry in begun.get("unpriced", [])]
        for line in begun.get("lines", []):
            each = Decimal(str(line["usd_per_hour"]))
            lines.append(Spent(str(line["resource"]), str(line["item"]), each, each * hours, str(line["as_of"])))
    price = (prices or load_services()).find("s3", "storage", region)
    # S3 bills GB of 2^30 bytes.
    month = None if price is None else price.usd * Decimal(kept_bytes) / Decimal(GIB)
    return FinalBill(since, until, sure, tuple(lines), tuple(unpriced), kept_bytes, month)


def spent_so_far(begun: Mapping[str, Any] | None, since: datetime, moment: datetime) -> Decimal | None:
    """US dollars from `since` until now; None where the prices are not known."""
    if begun is None or not begun.get("lines"):
        return None
    each = sum((Decimal(str(line["usd_per_hour"])) for line in begun["lines"]), Decimal(0))
    return each * Decimal(str(max(0.0, (moment - since).total_seconds()))) / _HOUR


def kept_bytes(uri: str, client: Any) -> int:
    """Bytes of everything that stays under the run's prefix; earlier versions of an object are not counted.

    Raises `UserError` where S3 refuses.
    """
    bucket, prefix = split_s3(uri)
    with asking_aws(f"to list {uri}"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sum(int(item["Size"]) for page in pages for item in page.get("Contents", []))
