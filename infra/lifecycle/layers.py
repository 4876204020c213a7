"""The layers that end a stack's machines, and the moment at which each of them would: found by the stack's own tags.

A stack file says when; a schedule in the cloud terminates; on a training node the watchdog acts on the machine's tag
`expiry`, which it reads every two minutes, and sets systemd's dead man's switch anew (docs/endings.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from infra.cloud import Cloud, asking_aws
from infra.durations import parse_instant, read_once, write_instant
from infra.endings import schedule_at
from infra.instances import STANDING, Instance, described, tags_of
from infra.settings import PROJECT, MachineSettings, TrainingSettings
from infra.stack_files import StackFile

Kind = Literal["stack file", "schedule", "machine"]


@dataclass(frozen=True, slots=True)
class Layer:
    """`at`: the expiry that it holds to. `id`: the schedule's or the machine's; the file's name."""

    kind: Kind
    id: str
    at: datetime

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "id": self.id, "at": write_instant(self.at)}


def layers_of(file: StackFile, cloud: Cloud) -> tuple[Layer, ...]:
    """The layers of a stack that expires, the outermost first; none for one that never does. Raises `UserError`."""
    settings = file.settings
    if not isinstance(settings, MachineSettings):
        return ()
    found: list[Layer] = []
    if settings.expiry is not None:
        found.append(Layer("stack file", file.path.name, settings.expiry))
    with asking_aws(f"to look at what ends {file.name}"):
        offset = schedule_at(settings, datetime(2000, 1, 1, tzinfo=UTC)) - datetime(2000, 1, 1, tzinfo=UTC)
        for schedule in expiry_schedules(file.name, cloud):
            moment = scheduled(schedule)
            if moment is not None:
                found.append(Layer("schedule", str(schedule["Name"]), moment - offset))
        # A service has no watchdog: the tags of its machines are labels, and end nothing.
        if isinstance(settings, TrainingSettings):
            for machine in living(file.name, cloud):
                tag = tags_of(machine).get("expiry", "")
                if tag and tag != "never":
                    found.append(Layer("machine", machine["InstanceId"], parse_instant(tag)))
    return tuple(found)


def agree(layers: tuple[Layer, ...]) -> bool:
    """Whether all layers hold to one moment, to the minute: schedules know no finer one for certain."""
    moments = [layer.at for layer in layers]
    return not moments or max(moments) - min(moments) < timedelta(minutes=1)


def expiry_schedules(stack: str, cloud: Cloud) -> list[Mapping[str, Any]]:
    """The stack's schedules as EventBridge Scheduler has them, one a training node; those that have fired are gone."""
    client, found = cloud.client("scheduler"), []
    wanted = re.compile(rf"{re.escape(stack)}-expiry-at(-\d+)?-[0-9a-f]{{7}}")
    for page in client.get_paginator("list_schedules").paginate(NamePrefix=f"{stack}-expiry-at-"):
        for entry in page["Schedules"]:
            if wanted.fullmatch(entry["Name"]):
                found.append(client.get_schedule(Name=entry["Name"], GroupName=entry["GroupName"]))
    return found


def scheduled(schedule: Mapping[str, Any]) -> datetime | None:
    """The moment (UTC) of a schedule that runs once; None for another kind."""
    return read_once(str(schedule.get("ScheduleExpression", "")))


def living(stack: str, cloud: Cloud) -> list[Instance]:
    """The stack's machines that have not ended, as EC2 describes them."""
    filters = {"tag:project": [PROJECT], "tag:stack": [stack], "instance-state-name": STANDING}
    return described(cloud.client("ec2"), filters)
