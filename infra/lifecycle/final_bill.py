"""What a run has cost: the time that its machines were there, at the prices of its bill; and what is kept costs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from infra.bill.lines import cents
from infra.cloud import asking_aws
from infra.durations import hours_between, parse_instant, write_instant
from infra.prices.table import ServicePrices, load_services
from infra.resource_types import INSTANCE
from model_runtime.fetch import split_s3
from sizing.units import GIB

BEGINS_WITHIN = timedelta(minutes=30)
"""Of the note of a run's beginning: its network and its machines, for which ten minutes' capacity may be waited."""
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
    """Machines from `since` to `until`, the rest of the stack until `removed`, at the prices that the run began with.

    `sure` is False where the end is not known and `until` is the latest that it can have been. `removed` is None where
    nobody says when the rest went: it counts as long as the machines. `kept_bytes` stay in S3 at `kept_usd_per_month`
    (None: unpriced). `earlier`: US dollars of the run's earlier attempts, which `usd` does not hold. `notes`: what is
    not counted, or counted at its most.
    """

    since: datetime
    until: datetime
    sure: bool
    lines: tuple[Spent, ...]
    unpriced: tuple[str, ...]
    kept_bytes: int
    kept_usd_per_month: Decimal | None
    removed: datetime | None = None
    earlier: Decimal = Decimal(0)
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> Decimal:
        return hours_between(self.since, self.until)

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
            "removed": None if self.removed is None else write_instant(self.removed),
            "earlier_usd": float(cents(self.earlier)),
            "notes": list(self.notes),
        }


def final_bill(
    begun: Mapping[str, Any] | None,
    since: datetime,
    until: datetime,
    kept_bytes: int,
    region: str,
    *,
    sure: bool = True,
    removed: datetime | None = None,
    prices: ServicePrices | None = None,
) -> FinalBill:
    """The bill of a run by the note with which it began (`train_begin.begun`); without one, nothing of it has a price.

    EC2 bills by the second, a minute at least (Amazon EC2 on-demand pricing). Machines that began long after the run
    were stopped and started again, or made again: they count from the run's beginning, which is the most.
    """
    notes, earlier = _attempts(begun)
    noted = parse_instant(str(begun["at"])) if begun is not None and begun.get("at") else since
    if since - noted > BEGINS_WITHIN:
        notes.append(
            f"its machines started at {write_instant(since)}, long after the run began, so it may not have been their "
            f"first start: they are counted from {write_instant(noted)}, which is the most"
        )
        since = noted
    if removed is None:
        notes.append("when the rest of its stack was removed is not known: it is counted as long as the machines")
    hours = _billed(since, until)
    beside = hours if removed is None else max(hours, _billed(since, removed))
    lines, unpriced = [], []
    if begun is None:
        unpriced = ["everything: the note with which the run began is not in S3, and it names the prices"]
    else:
        unpriced = [str(entry) for entry in begun.get("unpriced", [])]
        for line in begun.get("lines", []):
            each = Decimal(str(line["usd_per_hour"]))
            stood = hours if line.get("type", INSTANCE) == INSTANCE else beside
            lines.append(Spent(str(line["resource"]), str(line["item"]), each, each * stood, str(line["as_of"])))
    price = (prices or load_services()).find("s3", "storage", region)
    # S3 bills GB of 2^30 bytes.
    month = None if price is None else price.usd * Decimal(kept_bytes) / Decimal(GIB)
    return FinalBill(
        since, until, sure, tuple(lines), tuple(unpriced), kept_bytes, month, removed, earlier, tuple(notes)
    )


def _billed(since: datetime, until: datetime) -> Decimal:
    return max(Decimal(60), Decimal(str((until - since).total_seconds()))) / _HOUR


def _attempts(begun: Mapping[str, Any] | None) -> tuple[list[str], Decimal]:
    """Of the attempts of the same run that were interrupted: what is not known of them, and what they came to."""
    notes, earlier = [], Decimal(0)
    for attempt in (begun or {}).get("earlier", []):
        if attempt.get("usd") is None:
            notes.append(f"what the attempt that {attempt.get('by')} began at {attempt.get('at')} came to is not known")
        else:
            earlier += Decimal(str(attempt["usd"]))
    return notes, earlier


def spent_so_far(begun: Mapping[str, Any] | None, since: datetime, moment: datetime) -> Decimal | None:
    """US dollars from `since` until now; None where the prices are not known."""
    if begun is None or not begun.get("lines"):
        return None
    each = sum((Decimal(str(line["usd_per_hour"])) for line in begun["lines"]), Decimal(0))
    return each * hours_between(since, moment)


def kept_bytes(uri: str, client: Any) -> int:
    """Bytes of everything that stays under the run's prefix; earlier versions of an object are not counted.

    Raises `UserError` where S3 refuses.
    """
    bucket, prefix = split_s3(uri)
    with asking_aws(f"to list {uri}"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sum(int(item["Size"]) for page in pages for item in page.get("Contents", []))
