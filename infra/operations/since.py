"""From when on: `7d`, a date, or a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from infra.durations import parse_duration, parse_instant, write_instant
from sizing.errors import UserError


def parse_since(text: str, now: datetime) -> datetime:
    """The moment (UTC) that `text` names: so long before `now`, a day's beginning in UTC, or ISO 8601 with a zone.

    Raises `UserError` for anything else, and for a moment that is not before `now`.
    """
    moment = _read(text.strip(), now)
    if moment is None:
        raise UserError(f"--since is '{text}'; write 90m, 12h, 7d, 2w, a day as 2026-11-01, or 2026-11-01T08:00:00Z")
    if moment >= now:
        raise UserError(f"--since {text} lies in the future; it must be before {write_instant(now)}")
    return moment


def _read(text: str, now: datetime) -> datetime | None:
    try:
        if "T" in text:
            return parse_instant(text)
        if "-" in text:
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        lasts: timedelta | None = parse_duration(text)
    except ValueError:
        return None
    return None if lasts is None else now - lasts
