"""Moving a stack's expiry to a later moment: every layer, within the budget, and in an order in which no work is lost.

The order is from the outside in: the stack file, the cloud's schedule, what else names the moment, and last the tags
of the machines, which the watchdog obeys. So whatever breaks on the way, nothing outside ends a machine before its
watchdog has saved its work, and the earliest of all moments stays in force. The new moment is counted from that
earliest one: the same command again moves what has not been moved and nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from infra.bill.bill import Bill, bill_of
from infra.cloud import Cloud, asking_aws
from infra.durations import once_at, parse_duration, write_instant
from infra.endings import dead_man_at, schedule_at
from infra.instances import tags_of
from infra.inventory import Found, standing
from infra.lifecycle.engine import Engine
from infra.lifecycle.interlock import expiry_of
from infra.lifecycle.layers import Layer, agree, expiry_schedules, layers_of, living
from infra.plan import plan_stack
from infra.resolve import now
from infra.settings import MachineSettings, TrainingSettings
from infra.stack_files import StackFile, read_stack, record
from model_runtime.watch.limits import Limits
from sizing.errors import UserError

_TAG_BATCH = 20
"""ARNs that one call of the tagging API takes."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What an extension would do. `added`: US dollars at worst. `over`: empty, or which budget it passes."""

    file: StackFile
    layers: tuple[Layer, ...]
    earlier: datetime
    later: datetime
    bill: Bill
    added: Decimal
    over: str

    @property
    def completes(self) -> bool:
        """Whether an earlier extension was broken off."""
        return not agree(self.layers)


@dataclass(frozen=True, slots=True)
class Move:
    """A layer and what became of it; `problem` is empty where it was moved."""

    name: str
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "moved": not self.problem, "problem": self.problem or None}


def span_of(by: str) -> timedelta:
    """The duration that `--by` gives (2h, 30m, 1d). Raises `UserError` for one that is none, and for `off`."""
    try:
        span = parse_duration(by)
    except ValueError as error:
        raise UserError(f"--by {error}") from None
    if span is None:
        raise UserError("--by off would let it live for ever; give a duration such as 2h")
    return span


def plan_extension(stack: str, by: str, project: Path, cloud: Cloud, clock: Callable[[], datetime] = now) -> Extension:
    """What moving the expiry of `stack` by `by` (2h, 30m, 1d) means.

    Raises `UserError` for a stack that never ends or whose end has begun, and for a duration that is none.
    """
    file, moment, span = read_stack(stack, project), clock(), span_of(by)
    settings = file.settings
    if not isinstance(settings, MachineSettings):
        raise UserError(f"stack {stack} is the shared one: it has no machines and never expires")
    layers = layers_of(file, cloud)
    acting = [layer for layer in layers if layer.kind != "stack file"]
    if not acting:
        raise UserError(
            f"nothing ends stack {stack}: it is not up, never expires (time_to_live off), or its schedule has fired; "
            f"`berth status {stack}` tells which"
        )
    earlier = min(layer.at for layer in layers)
    if earlier <= moment:
        raise UserError(f"stack {stack} expired at {write_instant(earlier)}: its end has begun and cannot be put off")
    if isinstance(settings, TrainingSettings) and earlier - moment <= _too_late():
        minutes = int(_too_late().total_seconds() // 60)
        raise UserError(
            f"stack {stack} expires at {write_instant(earlier)}, in less than {minutes} minutes: its watchdog has "
            "asked the job to save and stop, or will before it can hear of a later moment"
        )
    later = earlier + span
    with asking_aws("to see since when the machines run"):
        started = [m["LaunchTime"] for m in living(stack, cloud)]
    # From the start of the machines that live: a budget is for the whole run.
    plan = replace(plan_stack(stack, project, clock=lambda: moment), made_at=min([moment, *started]))
    old, new = (bill_of(replace(plan, expires_at=at)) for at in (earlier, later))
    return Extension(file, layers, earlier, later, new, new.worst_case - old.worst_case, new.over_budget())


def extend(found: Extension, cloud: Cloud, tell: Callable[[Move], None] = lambda _: None) -> tuple[Move, ...]:
    """Move the layers in their order, up to the first that cannot be moved; returns what became of each."""
    if found.over:
        raise UserError(f"stack {found.file.name}: {found.over}")
    steps: list[tuple[str, Callable[[], None]]] = [
        (f"stack file {found.file.path.name}", lambda: _file(found)),
        ("cloud schedule", lambda: _schedule(found, cloud)),
        ("office hours", lambda: _hours(found, cloud)),
        ("tags", lambda: _tags(found, cloud)),
        ("machines", lambda: _machines(found, cloud)),
    ]
    moves: list[Move] = []
    for number, (name, step) in enumerate(steps):
        try:
            with asking_aws(f"to move the {name}"):
                step()
        except UserError as error:
            moves.append(Move(name, str(error)))
            moves += [Move(rest, "not tried: the one before it could not be moved") for rest, _ in steps[number + 1 :]]
            for move in moves[number:]:
                tell(move)
            return tuple(moves)
        moves.append(Move(name))
        tell(moves[-1])
    return tuple(moves)


def tell_state(found: Extension, engine: Engine) -> Move:
    """Write the new moment into the engine's state, whose outputs say it too."""
    try:
        # The state may be further back than the layers: an earlier extension may have ended before it was told.
        earlier = expiry_of(engine.outputs(found.file.name)) or found.earlier
        engine.rewrite(found.file.name, lambda value: moved(value, earlier, found.later, found.file.settings))
    except UserError as error:
        return Move("state", str(error))
    return Move("state")


def moved(value: Any, earlier: datetime, later: datetime, settings: Any, key: str = "") -> Any:
    """Inputs or outputs with the earlier moment replaced by the later one, at every depth and in every form in which
    the programs write it: tags, schedules, a training node's script."""
    if isinstance(value, str):
        if key == "userData" and value and not value.startswith("#!"):
            return _in_base64(value, earlier, later, settings)
        for form in _forms(settings):
            value = value.replace(form(earlier), form(later))
        return value
    if isinstance(value, Mapping):
        return {name: moved(inner, earlier, later, settings, name) for name, inner in value.items()}
    return [moved(inner, earlier, later, settings) for inner in value] if isinstance(value, list) else value


def _forms(settings: Any) -> tuple[Callable[[datetime], str], ...]:
    return (
        write_instant,
        lambda at: once_at(schedule_at(settings, at)),
        dead_man_at,
    )


def _in_base64(value: str, earlier: datetime, later: datetime, settings: Any) -> str:
    """A launch template's script; what is no text in base64, such as a hash, stays as it is."""
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return value
    return base64.b64encode(str(moved(text, earlier, later, settings)).encode()).decode()


def _too_late() -> timedelta:
    """Before the expiry: the watchdog's own lead, and the time after which it hears of a moved one for certain."""
    limits = Limits()
    return timedelta(seconds=limits.lead_s + limits.heartbeat_s)


def _file(found: Extension) -> None:
    record(found.file.path, {"expires_at": write_instant(found.later)})


_KEPT = (
    "ActionAfterCompletion", "Description", "EndDate", "FlexibleTimeWindow", "GroupName", "KmsKeyArn", "Name",
    "ScheduleExpression", "ScheduleExpressionTimezone", "StartDate", "State", "Target",
)  # fmt: skip
"""What an update must be given again: what is left out falls back to its default."""


def _update(cloud: Cloud, schedule: Mapping[str, Any], **changed: Any) -> None:
    same = {key: schedule[key] for key in _KEPT if schedule.get(key) is not None}
    cloud.client("scheduler").update_schedule(**{**same, **changed})


def _schedule(found: Extension, cloud: Cloud) -> None:
    schedules = expiry_schedules(found.file.name, cloud)
    if not schedules:
        raise UserError(f"the schedule of {found.file.name} is gone; `berth up {found.file.name}` makes it anew")
    moment = schedule_at(found.file.settings, found.later)
    for schedule in schedules:
        _update(cloud, schedule, ScheduleExpression=once_at(moment), ScheduleExpressionTimezone="UTC")


def _hours(found: Extension, cloud: Cloud) -> None:
    """Office hours end with the stack: the schedules of a single host, the scheduled actions of a group."""
    client, stack = cloud.client("scheduler"), found.file.name
    for page in client.get_paginator("list_schedules").paginate(NamePrefix=f"{stack}-host-"):
        for entry in page["Schedules"]:
            schedule = client.get_schedule(Name=entry["Name"], GroupName=entry["GroupName"])
            if schedule.get("EndDate") is not None:
                _update(cloud, schedule, EndDate=found.later)
    scaling = cloud.client("autoscaling")
    for group in _groups(stack, cloud):
        name = group["AutoScalingGroupName"]
        actions = scaling.describe_scheduled_actions(AutoScalingGroupName=name)["ScheduledUpdateGroupActions"]
        for action in actions:
            if action.get("EndTime") is None:
                continue
            keys = ("ScheduledActionName", "Recurrence", "TimeZone", "MinSize", "MaxSize", "DesiredCapacity")
            same = {key: action[key] for key in keys if action.get(key) is not None}
            scaling.put_scheduled_update_group_action(AutoScalingGroupName=name, EndTime=found.later, **same)


def _groups(stack: str, cloud: Cloud) -> list[Mapping[str, Any]]:
    pages = cloud.client("autoscaling").get_paginator("describe_auto_scaling_groups")
    wanted = [{"Name": "tag:stack", "Values": [stack]}]
    return [g for page in pages.paginate(Filters=wanted) for g in page["AutoScalingGroups"]]


def _tags(found: Extension, cloud: Cloud) -> None:
    """The tag `expiry` of everything else that has one; machines come last."""
    later, stack = write_instant(found.later), found.file.name
    tag = [{"Key": "expiry", "Value": later}]
    tagged = [f for f in standing(cloud, stack) if f.expiry not in ("", later)]
    ec2 = [f.id for f in tagged if f.kind.startswith("ec2:") and not f.id.startswith("arn:") and f.kind != _MACHINE]
    if ec2:
        cloud.client("ec2").create_tags(Resources=ec2, Tags=tag)
    for group in [f for f in tagged if f.kind == "autoscaling:autoScalingGroup"]:
        own = {"ResourceId": group.name, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": True}
        cloud.client("autoscaling").create_or_update_tags(Tags=[{**tag[0], **own}])
    for one in tagged:
        if one.kind == "iam:role":
            cloud.client("iam").tag_role(RoleName=one.name, Tags=tag)
        elif one.kind == "iam:instance-profile":
            cloud.client("iam").tag_instance_profile(InstanceProfileName=one.name, Tags=tag)
        elif one.kind == "route53:hostedzone":  # global: the tagging API of one region knows it alone
            cloud.client("route53").change_tags_for_resource(
                ResourceType="hostedzone", ResourceId=one.name, AddTags=tag
            )
    _tag_others([f for f in tagged if _by_tagging_api(f)], later, cloud)


_MACHINE = "ec2:instance"


def _by_tagging_api(found: Found) -> bool:
    return found.id.startswith("arn:") and found.kind.split(":")[0] not in ("iam", "autoscaling", "ec2", "route53")


def _tag_others(found: list[Found], later: str, cloud: Cloud) -> None:
    """The tagging API says which of many it could not tag; these tags are labels, and end nothing."""
    client = cloud.client("resourcegroupstaggingapi")
    for start in range(0, len(found), _TAG_BATCH):
        arns = [f.id for f in found[start : start + _TAG_BATCH]]
        client.tag_resources(ResourceARNList=arns, Tags={"expiry": later})


def _machines(found: Extension, cloud: Cloud) -> None:
    later = write_instant(found.later)
    ids = [m["InstanceId"] for m in living(found.file.name, cloud) if tags_of(m).get("expiry") != later]
    if ids:
        cloud.client("ec2").create_tags(Resources=ids, Tags=[{"Key": "expiry", "Value": later}])
