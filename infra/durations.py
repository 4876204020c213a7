"""Times as people write them in a stack file: how long it lives, when its office is open, when it ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"(\d{1,4})([mhdw])")
_SCHEDULE = re.compile(r"([A-Za-z]{3})(?:-([A-Za-z]{3}))? (\d{2}):(\d{2})-(\d{2}):(\d{2}) (\S+)")
_ONCE = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
WEEKS_PER_MONTH = 365.0 / 7.0 / 12.0


def parse_duration(text: str) -> timedelta | None:
    """`90m`, `12h`, `30d`, `2w`; None for `off`. Raises `ValueError` with what is allowed."""
    if text == "off":
        return None
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"'{text}' is no duration; write 90m, 12h, 30d, 2w or off")
    return int(found[1]) * _UNITS[found[2]]


def parse_instant(text: str) -> datetime:
    """A moment in UTC from ISO 8601 with a zone (`2026-11-30T18:00:00Z`). Raises `ValueError` without one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is no moment; write it as 2026-11-30T18:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"'{text}' names no time zone; end it with Z for UTC")
    return moment.astimezone(UTC)


def hours_between(since: datetime, until: datetime) -> Decimal:
    """Hours from one moment to a later one, to the microsecond; 0 where it is not later."""
    return Decimal(str(max(0.0, (until - since).total_seconds()))) / 3600


def write_instant(moment: datetime) -> str:
    """The moment in UTC to the second, as `parse_instant` reads it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def once_at(moment: datetime) -> str:
    """How EventBridge Scheduler writes a schedule that runs once; its time zone stands beside it."""
    return f"at({moment:%Y-%m-%dT%H:%M:%S})"


def read_once(expression: str, zone: tzinfo = UTC) -> datetime | None:
    """The moment of a schedule that runs once, None for another kind."""
    found = _ONCE.fullmatch(expression)
    return datetime.fromisoformat(found[1]).replace(tzinfo=zone) if found else None


@dataclass(frozen=True, slots=True)
class OfficeHours:
    """From `start` to `stop` (minutes after midnight) on the days `first` to `last` (0 Monday), in a time zone."""

    first: int
    last: int
    start: int
    stop: int
    zone: str

    @property
    def hours_per_month(self) -> float:
        """Hours that a machine runs in an average month (365/12 days)."""
        return (self.last - self.first + 1) * (self.stop - self.start) / 60.0 * WEEKS_PER_MONTH

    @property
    def days(self) -> str:
        return DAYS[self.first] if self.first == self.last else f"{DAYS[self.first]}-{DAYS[self.last]}"

    def cron(self, minutes: int) -> str:
        """Five fields, as auto scaling reads them."""
        return f"{minutes % 60} {minutes // 60} * * {self.days}"

    def scheduler_cron(self, minutes: int) -> str:
        """Six fields, as EventBridge Scheduler reads them."""
        return f"cron({minutes % 60} {minutes // 60} ? * {self.days} *)"


@cache
def parse_schedule(text: str) -> OfficeHours | None:
    """`Mon-Fri 08:00-18:00 Europe/Berlin`; None for the empty text. Raises `ValueError` with what is wrong."""
    if not text:
        return None
    found = _SCHEDULE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text}' is no schedule; write it as: Mon-Fri 08:00-18:00 Europe/Berlin")
    days = [found[1].upper(), (found[2] or found[1]).upper()]
    for day in days:
        if day not in DAYS:
            raise ValueError(f"'{day}' is no day; the days are {', '.join(d.title() for d in DAYS)}")
    first, last = DAYS.index(days[0]), DAYS.index(days[1])
    hours = [int(found[i]) for i in (3, 4, 5, 6)]
    start, stop = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if first > last or max(hours[1], hours[3]) > 59 or not 0 <= start < stop < 24 * 60:
        raise ValueError(f"'{text}' must go from an earlier to a later day and hour of one week and day")
    try:
        ZoneInfo(found[7])
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"'{found[7]}' is no time zone; write one as Europe/Berlin or UTC") from None
    return OfficeHours(first, last, start, stop, found[7])
