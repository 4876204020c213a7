"""Time: what the wall clock says and what has passed; an expiry holds by whichever is reached first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

JUMP_S = 30.0
"""A wall clock that moves this far against the monotonic one was set, not slewed."""


class Clock(Protocol):
    """`wall`: seconds since 1970, may jump. `monotonic`: seconds since the boot, the same for every process."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Expiry:
    """`at`: by the wall clock; `monotonic_at`: the same moment as it was foreseen when the watchdog began."""

    at: float
    monotonic_at: float

    @classmethod
    def of(cls, at: float, clock: Clock) -> Expiry:
        return cls(at, clock.monotonic() + at - clock.wall())

    def left(self, clock: Clock) -> float:
        """Seconds left by the clock that is further on, so that a clock set back lengthens nothing."""
        return min(self.at - clock.wall(), self.left_monotonic(clock))

    def left_monotonic(self, clock: Clock) -> float:
        return self.monotonic_at - clock.monotonic()


def instant(seconds: float) -> str:
    """2026-11-24T08:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def parse_instant(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 moment with its offset. Raises `ValueError`."""
    found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    if found.tzinfo is None:
        raise ValueError(f"{text!r} says no offset from UTC; write 2026-11-24T08:00:00Z")
    return found.astimezone(timezone.utc).timestamp()  # noqa: UP017 (the host's Python is 3.10)
