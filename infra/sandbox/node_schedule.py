"""Does what the sandbox's schedules say, at their moment: moto keeps EventBridge's schedules and fires none.

`python -m infra.sandbox.node_schedule ENDPOINT REGION LOCK` runs until the local AWS ends.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from infra.durations import read_once
from infra.errors import one_line
from infra.resolve import now
from infra.sandbox.aws import Aws
from infra.sandbox.node_process import alone, spawn
from model_runtime.flock import take

POLL_S = 1.0
_SILENCE_S = 20.0
"""Without an answer for this long the local AWS has ended."""
_CALL = re.compile(r"arn:[a-z-]+:scheduler:::aws-sdk:([a-z0-9]+):([A-Za-z0-9]+)")


@dataclass(frozen=True, slots=True)
class Fired:
    """A schedule whose moment came, and what it called; `problem` is empty where that was done."""

    name: str
    call: str
    problem: str = ""


def fire_due(aws: Aws, moment: datetime) -> list[Fired]:
    """Do what every one-time schedule says whose moment has come; one that is done is deleted where it says so.

    A call that fails keeps its schedule, so that the next look tries it again, as EventBridge's retries do. Schedules
    that recur end no machine in the sandbox and are passed over.
    """
    client, fired = aws.client("scheduler"), []
    for page in client.get_paginator("list_schedules").paginate():
        for listed in page["Schedules"]:
            place = {"Name": listed["Name"], "GroupName": listed.get("GroupName", "default")}
            found = client.get_schedule(**place)
            at = read_once(found["ScheduleExpression"], ZoneInfo(found.get("ScheduleExpressionTimezone") or "UTC"))
            if at is None or at > moment or found.get("State", "ENABLED") != "ENABLED":
                continue
            done = _call(aws, listed["Name"], found["Target"])
            fired.append(done)
            if not done.problem and found.get("ActionAfterCompletion") == "DELETE":
                client.delete_schedule(**place)
    return fired


def _call(aws: Aws, name: str, target: dict[str, Any]) -> Fired:
    """EventBridge's universal target: an operation of an AWS service, with its input in the service's own names."""
    found = _CALL.fullmatch(target["Arn"])
    if found is None:
        return Fired(name, target["Arn"], "the sandbox's schedules call AWS's own operations only")
    call = f"{found[1]}:{found[2]}"
    try:
        operation = getattr(aws.client(found[1]), xform_name(found[2][:1].upper() + found[2][1:]))
        operation(**json.loads(target.get("Input") or "{}"))
    except (ClientError, BotoCoreError, ParamValidationError, AttributeError, ValueError) as error:
        return Fired(name, call, one_line(error, 300))
    return Fired(name, call)


def run(aws: Aws, clock: Callable[[], datetime] = now, wait: Callable[[float], Any] = time.sleep) -> None:
    """Until the local AWS has not answered for a while."""
    heard = time.monotonic()
    while time.monotonic() - heard < _SILENCE_S:
        try:
            for done in fire_due(aws, clock()):
                sys.stderr.write(f"{clock().isoformat()} {done.name}: {done.call} {done.problem or 'done'}\n")
            heard = time.monotonic()
        except (ClientError, BotoCoreError) as error:
            sys.stderr.write(f"the local AWS does not answer: {error}\n")
        wait(POLL_S)


def start(aws: Aws, folder: Path) -> bool:
    """Start the process of the region where none runs; False where one does. It outlives its starter."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"schedule-{aws.region}.lock"
    with lock.open("ab") as file:
        if not take(file):
            return False
    spawn(["infra.sandbox.node_schedule", aws.endpoint, aws.region, str(lock)], lock.with_suffix(".log"))
    return True


def main(arguments: list[str] | None = None) -> int:
    alone()
    endpoint, region, lock = (sys.argv[1:] if arguments is None else arguments)[:3]
    with Path(lock).open("ab") as file:
        if take(file):  # else another one runs
            run(Aws(endpoint, region))
    return 0


if __name__ == "__main__":
    sys.exit(main())
