"""What a stack has cost so far: the hours that each of its parts has stood, times its price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from infra.bill.bill import Bill, bill_of
from infra.bill.lines import MONTH, Line, cents
from infra.cloud import Cloud, asking_aws
from infra.durations import parse_instant, write_instant
from infra.instances import RUNNING, Instance, by_id, ended_at, state_of
from infra.lifecycle.engine import Resource
from infra.lifecycle.outlook import as_planned
from infra.plan import Plan
from infra.resource_types import INSTANCE
from infra.settings import MachineSettings, Settings

_HOUR = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Life:
    """From when until when something stood. `until` is None while it does."""

    since: datetime
    until: datetime | None = None

    def hours(self, moment: datetime) -> Decimal:
        seconds = ((self.until or moment) - self.since).total_seconds()
        return Decimal(str(max(0.0, seconds))) / _HOUR


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

    A minute is the least that EC2 bills for a machine, and prices are those of the catalogue: AWS's invoice says the
    last word.
    """

    usd: Decimal
    since: datetime | None
    at: datetime
    lines: tuple[SpentLine, ...]
    unpriced: tuple[str, ...]
    by_use: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "usd": float(cents(self.usd)),
            "since": write_instant(self.since) if self.since else None,
            "until": write_instant(self.at),
            "lines": [line.to_json() for line in self.lines],
            "unpriced": list(self.unpriced),
            "depends_on_usage": list(self.by_use),
        }


def standing_bill(stack: str, region: str, settings: Settings, resources: Sequence[Resource], moment: datetime) -> Bill:
    """The bill of what stands, by the settings of its file."""
    expires = settings.expiry if isinstance(settings, MachineSettings) else None
    return bill_of(Plan(stack, region, settings, as_planned(resources), {}, (), expires, moment))


def lives_of_machines(resources: Iterable[Resource], cloud: Cloud) -> dict[str, Life]:
    """The lives of the stack's single machines by the resource's name, as EC2 tells them; those it forgot are left out.

    A stopped machine counts until it was stopped. Raises `UserError`.
    """
    names = {r.id: r.name for r in resources if r.type == INSTANCE and r.id}
    with asking_aws("to describe the machines"):
        return {names[i["InstanceId"]]: _life(i) for i in by_id(cloud.client("ec2"), sorted(names))}


def spent(
    bill: Bill, resources: Sequence[Resource], moment: datetime, machines: Mapping[str, Life] | None = None
) -> Spent:
    """What the priced lines of a bill have come to at `moment`.

    Each part counts from its creation as the state tells it, a machine by its own life where `machines` has it.
    Machines with office hours count with their average.
    """
    own = dict(machines or {})
    made = {r.name: Life(parse_instant(r.created)) for r in resources if r.created}
    earliest = min((life.since for life in made.values()), default=None)
    lines: list[SpentLine] = []
    unpriced = [f"{x.resource}: {x.item}" for x in bill.with_status("unpriced")]
    for line in bill.with_status("priced"):
        rate = _rate(line)
        life = own.get(line.resource) or made.get(line.resource) or (Life(earliest) if earliest else None)
        if rate is None or life is None:
            unpriced.append(f"{line.resource}: {line.item} (nobody says since when)")
            continue
        hours = life.hours(moment)
        lines.append(SpentLine(line.resource, line.item, hours, rate * hours))
    return Spent(
        sum((x.usd for x in lines), Decimal(0)),
        earliest,
        moment,
        tuple(lines),
        tuple(unpriced),
        tuple(f"{x.resource}: {x.item}" for x in bill.with_status("usage") if x.item),
    )


def _rate(line: Line) -> Decimal | None:
    """US dollars an hour of its existence: the average where it does not run all the time."""
    average = None if line.per_month is None else line.per_month / MONTH
    if line.per_hour is None or average is None:
        return line.per_hour if average is None else average
    return min(line.per_hour, average)


def _life(machine: Instance) -> Life:
    since: datetime = machine["LaunchTime"].astimezone(UTC)
    return Life(since, None if state_of(machine) in RUNNING else ended_at(machine))
