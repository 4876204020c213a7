"""By when a stack's machines are gone after their expiry, whatever has failed on them.

The layers of a training node stand in this order, each with time for the one before it: its watchdog halts it at most 5
minutes after the expiry, when its uploads are done or not (`model_runtime.watch.limits`); systemd powers it off after 8
(`DEAD_MAN_AFTER_EXPIRY`); the cloud's schedule terminates it after 9; after 10 it is gone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from infra.settings import Settings, TrainingSettings

DEAD_MAN_AFTER_EXPIRY = timedelta(minutes=8)
"""When systemd powers a training node off, should its watchdog not have: as `model_runtime.watch.limits` says it."""
SCHEDULE_AFTER_EXPIRY = timedelta(minutes=9)
"""When the schedule ends a training node: a minute after all that acts on the node itself, so that it never cuts off an
upload, and a minute before the promise, since EventBridge Scheduler invokes within 60 seconds of the moment named
(EventBridge Scheduler user guide, "Schedule types": precision of one minute)."""
GONE_AFTER_EXPIRY = timedelta(minutes=10)
"""The promise, and what the worst case counts."""


def dead_man_at(expires_at: datetime) -> str:
    """The moment (UTC) at which systemd powers a training node off, as its timer reads it."""
    return f"{expires_at + DEAD_MAN_AFTER_EXPIRY:%Y-%m-%d %H:%M:%S} UTC"


def schedule_at(settings: Settings, expires_at: datetime) -> datetime:
    """The moment that the cloud's schedule names. A service has nothing to save and ends at its expiry."""
    return expires_at + (SCHEDULE_AFTER_EXPIRY if isinstance(settings, TrainingSettings) else timedelta(0))


def gone_at(settings: Settings, expires_at: datetime) -> datetime:
    """Until when a stack's machines may run, and cost, at worst."""
    return expires_at + (GONE_AFTER_EXPIRY if isinstance(settings, TrainingSettings) else timedelta(0))
