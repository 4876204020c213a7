"""What a stack has cost so far: the hours that each of its parts has stood, times its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from infra.bill.bill import Bill, bill_of
from infra.bill.lines import MONTH, Line, cents
from infra.durations import parse_instant, write_instant
from infra.endings import gone_at
from infra.lifecycle.engine import Resource
from infra.lifecycle.lives import Life
from infra.lifecycle.outlook import as_planned
from infra.plan import Plan
from infra.resource_types import INSTANCE
from infra.settings import MachineSettings, Settings, TrainingSettings

REPLACED_AFTER = timedelta(hours=1)
"""A machine that is younger than its stack by more than this was not made with it: it may have had a predecessor."""


@dataclass(frozen=True, slots=True)
class SpentLine:
    """One priced part: US dollars for `hours`."""

    resource: str
    item: str
    hours: Decimal
    usd: Decimal

    def to_json(self) -> dict[str, Any]:
        return {
            "resource": self.resource,
            "item": self.item,
            "hours": round(float(self.hours), 4),
            "usd": round(float(self.usd), 6),
        }


@dataclass(frozen=True, slots=True)
class Spent:
    """US dollars until `at`; what has no price, or depends on use, is listed and counts nothing.

    `missing`: hours that nobody tells, in sentences; with any, `usd` is the least that it can have been. `most`: what
    was counted at its most. A minute is the least that EC2 bills for a machine, and prices are those of the catalogue:
    AWS's invoice says the last word.
    """

    usd: Decimal
    since: datetime | None
    at: datetime
    lines: tuple[SpentLine, ...]
    unpriced: tuple[str, ...]
    by_use: tuple[str, ...]
    missing: tuple[str, ...] = ()
    most: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "usd": float(cents(self.usd)),
            "since": write_instant(self.since) if self.since else None,
            "until": write_instant(self.at),
            "lines": [line.to_json() for line in self.lines],
            "unpriced": list(self.unpriced),
            "depends_on_usage": list(self.by_use),
            "at_least": bool(self.missing),
            "missing": list(self.missing),
            "at_most": list(self.most),
        }


def standing_bill(stack: str, region: str, settings: Settings, resources: Sequence[Resource], moment: datetime) -> Bill:
    """The bill of what stands, by the settings of its file."""
    expires = settings.expiry if isinstance(settings, MachineSettings) else None
    return bill_of(Plan(stack, region, settings, as_planned(resources), {}, (), expires, moment))


def latest_end(settings: Settings) -> datetime | None:
    """By when a training node is gone whatever happens; None for machines that may live on."""
    if not isinstance(settings, TrainingSettings) or settings.expiry is None:
        return None
    return gone_at(settings, settings.expiry)


def spent(
    bill: Bill, resources: Sequence[Resource], moment: datetime, machines: Mapping[str, Life] | None = None
) -> Spent:
    """What the priced lines of a bill have come to at `moment`.

    Each part counts from its creation as the state tells it; a machine counts the time that it ran, by its own life
    where `machines` has it, and its disks the time that it stood. Machines with office hours count the time that they
    stood with their average.
    """
    own = dict(machines or {})
    made = {r.name: Life(parse_instant(r.created)) for r in resources if r.created}
    earliest = min((life.since for life in made.values()), default=None)
    lines: list[SpentLine] = []
    missing: list[str] = []
    most: list[str] = []
    unpriced = [f"{x.resource}: {x.item}" for x in bill.with_status("unpriced")]
    for line in bill.with_status("priced"):
        rate, average = _rate(line)
        life = own.get(line.resource) or made.get(line.resource) or (Life(earliest) if earliest else None)
        if rate is None or life is None:
            unpriced.append(f"{line.resource}: {line.item} (nobody says since when)")
            continue
        runs = line.type == INSTANCE and line.unit == "hour"
        hours = life.ran_hours(moment) if runs and not average else life.hours(moment)
        lines.append(SpentLine(line.resource, line.item, hours, rate * hours))
        if runs:
            missing += _missing(line, life, earliest, rate, average)
            most += _most(line, life, moment)
        elif line.unit == "hour" and line.worst_per_hour is not None and line.worst_per_hour > (line.per_hour or 0):
            missing.append(
                f"{line.resource}: counted with {line.quantity:g} × {line.item}; what came under load is not"
            )
    return Spent(
        sum((x.usd for x in lines), Decimal(0)),
        earliest,
        moment,
        tuple(lines),
        tuple(unpriced),
        tuple(f"{x.resource}: {x.item}" for x in bill.with_status("usage") if x.item),
        tuple(missing),
        tuple(most),
    )


def _most(line: Line, life: Life, moment: datetime) -> list[str]:
    if life.sure:
        return []
    until = write_instant(life.until or moment)
    return [f"{line.resource}: EC2 knows it no more, and when it ended is not known: it is counted until {until}"]


def _missing(line: Line, life: Life, earliest: datetime | None, rate: Decimal, average: bool) -> list[str]:
    """What of a machine's hours nobody tells."""
    found = []
    if life.unknown_hours and not average:
        found.append(
            f"{line.resource}: it was stopped and started again at {write_instant(life.started or life.since)}; how "
            f"long it ran since {write_instant(life.since)} before that is not known: at most "
            f"{life.unknown_hours:.1f} h more, ${cents(rate * life.unknown_hours):,}"
        )
    if earliest is not None and life.since - earliest > REPLACED_AFTER:
        found.append(
            f"{line.resource}: it was made at {write_instant(life.since)}, later than its stack; a machine that it "
            "has replaced is not counted"
        )
    return found


def _rate(line: Line) -> tuple[Decimal | None, bool]:
    """US dollars an hour of its existence, and whether that is the average of what does not run all the time."""
    average = None if line.per_month is None else line.per_month / MONTH
    if average is None or line.per_hour is None:
        return (line.per_hour, False) if average is None else (average, line.per_hour is not None)
    return min(line.per_hour, average), average < line.per_hour
