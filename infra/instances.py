"""EC2 instances as EC2 describes them: asked for by filters or ids, and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

RUNNING = ("pending", "running")
STANDING = (*RUNNING, "stopping", "stopped")
"""States of an instance that has not ended: it can run, or run again."""
ENDED = ("shutting-down", "terminated")
_TRANSITION = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
"""The moment in `StateTransitionReason`: "User initiated (2026-11-24 08:00:00 GMT)"."""

Instance = Mapping[str, Any]
"""An entry of EC2's `DescribeInstances`."""


def described(ec2: Any, filters: Mapping[str, Iterable[str]]) -> list[Instance]:
    """The instances that pass every filter (its name: the values that pass), by boto3's client of EC2.

    Raises what boto3 raises.
    """
    asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=asked)
    return [i for page in pages for reservation in page["Reservations"] for i in reservation["Instances"]]


def by_id(ec2: Any, ids: Iterable[str]) -> list[Instance]:
    """The instances with these ids; those that EC2 has forgotten are left out.

    By a filter: a call by ids fails as a whole where one of them is forgotten.
    """
    wanted = list(ids)
    return described(ec2, {"instance-id": wanted}) if wanted else []


def state_of(instance: Instance) -> str:
    """`pending`, `running`, `stopping`, `stopped`, `shutting-down` or `terminated`."""
    return str(instance["State"]["Name"])


def tags_of(instance: Instance) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def ended_at(instance: Instance) -> datetime | None:
    """When EC2 took an instance out of service, by its own words; None where it has none."""
    found = _TRANSITION.search(str(instance.get("StateTransitionReason", "")))
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None


def first_seen(instance: Instance) -> datetime:
    """When an instance was made, as far as EC2 tells: its last start, or when its volumes and interfaces were attached.

    One that has ended has neither of these any more.
    """
    attached = [m.get("Ebs", {}).get("AttachTime") for m in instance.get("BlockDeviceMappings", [])]
    attached += [n.get("Attachment", {}).get("AttachTime") for n in instance.get("NetworkInterfaces", [])]
    return min(at.astimezone(UTC) for at in (instance["LaunchTime"], *attached) if at is not None)
