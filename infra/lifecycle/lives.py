"""How long machines have stood and run: from EC2's own words, and CloudWatch's where one was stopped in between.

EC2 tells the last start alone (`LaunchTime`). That a machine is older is told by its volumes and interfaces, which have
been attached since it was made, and by the engine's state. What it ran in between is counted by CloudWatch's status
checks, which come once a minute from every machine that runs, cost nothing, and are kept for 455 days (Amazon EC2 user
guide, "View the status checks"; Amazon CloudWatch user guide, "Metrics retention"): whoever stopped it, by an API or
from inside, so that no trail of calls needs to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.cloud import Cloud, asking_aws
from infra.durations import hours_between, parse_instant
from infra.instances import RUNNING, STANDING, Instance, by_id, ended_at, first_seen, state_of
from infra.lifecycle.engine import Resource
from infra.resource_types import INSTANCE

RESTARTED_AFTER = timedelta(minutes=10)
"""A last start that is later than the making by more than this is another start."""
_HOUR = Decimal(3600)
_MOST_POINTS = 1440
"""That one GetMetricStatistics answers with (Amazon CloudWatch API reference)."""


@dataclass(frozen=True, slots=True)
class Life:
    """From when until when something stood and, if it is a machine, ran; both ends None while it does.

    `until`: when it ran last; `gone`: when it was gone, and its disks with it. `started`: its last start, where it had
    been stopped before; `ran`: the hours of `since` to `started` in which it ran, None where nobody tells. `sure` is
    False where `until` is the latest that it can have been.
    """

    since: datetime
    until: datetime | None = None
    gone: datetime | None = None
    started: datetime | None = None
    ran: Decimal | None = None
    sure: bool = True

    def hours(self, moment: datetime) -> Decimal:
        """That it stood: a stopped machine stands on."""
        return hours_between(self.since, self.gone or moment)

    def ran_hours(self, moment: datetime) -> Decimal:
        """That it ran, as far as that is known."""
        return hours_between(self.started or self.since, self.until or moment) + (self.ran or Decimal(0))

    @property
    def unknown_hours(self) -> Decimal:
        """Hours between its making and its last start of which nobody tells whether it ran."""
        if self.started is None or self.ran is not None:
            return Decimal(0)
        return hours_between(self.since, self.started)


def lives_of_machines(
    resources: Iterable[Resource], cloud: Cloud, moment: datetime, gone_by: datetime | None = None
) -> dict[str, Life]:
    """The lives of the stack's single machines by the resource's name, until `moment`.

    EC2 forgets a machine about an hour after its end; `gone_by` is the latest that one can have ended. One that nobody
    dates is left out. Raises `UserError` where EC2 cannot be asked; CloudWatch that cannot be leaves hours unknown.
    """
    own = {r.id: r for r in resources if r.type == INSTANCE and r.id}
    with asking_aws("to describe the machines"):
        found = {str(i["InstanceId"]): i for i in by_id(cloud.client("ec2"), sorted(own))}
    lives = {own[id_].name: _life(i, own[id_].created, cloud) for id_, i in found.items()}
    for id_ in own.keys() - found.keys():
        if own[id_].created:
            lives[own[id_].name] = _forgotten(id_, parse_instant(own[id_].created), moment, gone_by, cloud)
    return lives


def _life(instance: Instance, created: str, cloud: Cloud) -> Life:
    launched: datetime = instance["LaunchTime"].astimezone(UTC)
    first = min(first_seen(instance), parse_instant(created) if created else launched)
    until = None if state_of(instance) in RUNNING else ended_at(instance)
    gone = None if state_of(instance) in STANDING else until
    if launched - first <= RESTARTED_AFTER:
        return Life(launched, until, gone)
    return Life(first, until, gone, launched, _ran(instance["InstanceId"], first, launched, cloud))


def _forgotten(instance: str, since: datetime, moment: datetime, gone_by: datetime | None, cloud: Cloud) -> Life:
    latest = moment if gone_by is None else max(since, min(moment, gone_by))
    ran = _ran(instance, since, latest, cloud)
    if ran is None:
        return Life(since, latest, latest, sure=False)
    end = since + timedelta(seconds=float(ran * _HOUR))  # had it never been stopped
    return Life(since, end, end)


def _ran(instance: str, start: datetime, end: datetime, cloud: Cloud) -> Decimal | None:
    """Hours between two moments, by the number of status checks; None where CloudWatch has none or cannot be asked."""
    samples, at, step = Decimal(0), start, timedelta(hours=_MOST_POINTS)
    client = cloud.client("cloudwatch")
    while at < end:
        asked: dict[str, Any] = {"StartTime": at, "EndTime": min(at + step, end), "Period": 3600}
        try:
            found = client.get_metric_statistics(
                Namespace="AWS/EC2", MetricName="StatusCheckFailed", Statistics=["SampleCount"],
                Dimensions=[{"Name": "InstanceId", "Value": instance}], **asked,
            )  # fmt: skip
        except (ClientError, BotoCoreError):
            return None
        samples += sum((Decimal(str(point["SampleCount"])) for point in found["Datapoints"]), Decimal(0))
        at += step
    return min(samples / 60, hours_between(start, end)) if samples else None
