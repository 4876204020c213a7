"""Whether a stack does what it is for: looked at once, or waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from infra import metrics
from infra.cloud import Cloud, asking_aws
from infra.instances import RUNNING, Instance, by_id, described, state_of
from infra.lifecycle.engine import Resource
from infra.resource_types import ENDPOINT, GROUP, INSTANCE
from infra.settings import EndpointSettings, InferenceSettings, MachineSettings, Settings, TrainingSettings
from infra.start_up import start_up_seconds
from sizing.hardware.load import Hardware
from sizing.models.facts import ModelFacts

State = Literal["healthy", "starting", "failed", "unknown"]
POLL_S = 15.0
NODE_START_S = 900
"""For a training node: EC2 has started it and passed its checks. What it then does, `berth train` follows."""


@dataclass(frozen=True, slots=True)
class Health:
    """`said` names what was looked at and what it says."""

    state: State
    said: str

    def to_json(self) -> dict[str, str]:
        return {"state": self.state, "said": self.said}


class Clock(Protocol):
    """Time as `wait_healthy` needs it; the module `time` is one."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


def start_seconds(settings: Settings, hardware: Hardware, find_model: Callable[[str], ModelFacts]) -> int:
    """How long a start may take until something is wrong."""
    if isinstance(settings, TrainingSettings):
        return NODE_START_S
    if not isinstance(settings, MachineSettings):
        return 0
    facts, instance = find_model(settings.model), hardware.instance(settings.instance_type)
    return start_up_seconds(facts, instance)


def look(stack: str, settings: Settings, resources: Sequence[Resource], cloud: Cloud, since: datetime) -> Health:
    """How the stack is at this moment. `since`: what was measured earlier is an earlier life's. Raises `UserError`."""
    if isinstance(settings, EndpointSettings):
        return _endpoint(resources, cloud)
    if isinstance(settings, TrainingSettings):
        return _nodes(resources, cloud)
    if isinstance(settings, InferenceSettings):
        if cloud.endpoint is not None:
            return _machines(resources, cloud)
        groups = _ids(resources, "aws:lb/targetGroup:TargetGroup")
        return _targets(groups[0], settings.replicas, cloud) if groups else _host(stack, resources, cloud, since)
    return Health("healthy", "it has no machines; what it consists of was made")


def wait_healthy(
    look_once: Callable[[], Health],
    *,
    timeout_s: float,
    tell: Callable[[Health], None] = lambda _: None,
    clock: Clock = time,
    every_s: float = POLL_S,
) -> Health:
    """Look until the stack is healthy, has failed or cannot be known, for at most `timeout_s`.

    Whoever stops waiting (`KeyboardInterrupt` passes through) stops nothing but the waiting.
    """
    until = clock.monotonic() + timeout_s
    last = ""
    while True:
        found = look_once()
        if found.said != last:
            tell(found)
            last = found.said
        if found.state != "starting":
            return found
        if clock.monotonic() + every_s > until:
            return Health("failed", f"not healthy within {timeout_s:.0f} s: {found.said}")
        clock.sleep(every_s)


def _ids(resources: Sequence[Resource], type_: str) -> list[str]:
    return [r.id for r in resources if r.type == type_]


def states(resources: Sequence[Resource], cloud: Cloud, more: Iterable[str] = ()) -> dict[str, Instance]:
    """The stack's machines, and those with the ids `more`, as EC2 describes them; those it has forgotten are left out.

    Raises `UserError`.
    """
    groups = _ids(resources, GROUP)
    with asking_aws("to describe the machines"):
        found = by_id(cloud.client("ec2"), [*_ids(resources, INSTANCE), *more])
        if groups:
            found += described(cloud.client("ec2"), {"tag:aws:autoscaling:groupName": groups})
    return {i["InstanceId"]: i for i in found}


def _machines(resources: Sequence[Resource], cloud: Cloud) -> Health:
    """In the sandbox: what moto tells. No machine is behind it."""
    found = states(resources, cloud)
    words = ", ".join(f"{id_} is {state_of(i)}" for id_, i in sorted(found.items())) or "there is no machine"
    return Health("unknown", f"moto runs no machine, so nothing answers at the address; it says: {words}")


def _host(stack: str, resources: Sequence[Resource], cloud: Cloud, since: datetime) -> Health:
    for id_, machine in states(resources, cloud).items():
        state = state_of(machine)
        if state not in RUNNING:
            why = machine.get("StateReason", {}).get("Message", "")
            return Health("failed", f"{id_} is {state}{': ' + why if why else ''}")
    ready = _last(stack, metrics.READY, cloud, since)
    if ready == 0:
        return Health("failed", f"the host said that it was not ready in time (metric {metrics.READY} 0)")
    if _last(stack, metrics.HEALTHY, cloud, since) == 1 or ready == 1:
        return Health("healthy", "the host answers its health check")
    return Health("starting", "the host starts: image, model and server have not answered yet")


def _last(stack: str, name: str, cloud: Cloud, since: datetime) -> float | None:
    """The newest data point of a host's metric, None where there is none."""
    until = datetime.now(UTC) + timedelta(minutes=1)
    if since >= until:  # by a clock that goes wrong, or a stack that is only being made
        return None
    with asking_aws(f"to read the metric {name}"):
        points = cloud.client("cloudwatch").get_metric_statistics(
            Namespace=metrics.NAMESPACE,
            MetricName=name,
            Dimensions=[{"Name": metrics.STACK_DIMENSION, "Value": stack}],
            StartTime=max(since, until - timedelta(hours=12)),
            EndTime=until,
            Period=60,
            Statistics=["Minimum"],
        )["Datapoints"]
    newest = max(points, key=lambda p: p["Timestamp"], default=None)
    return None if newest is None else float(newest["Minimum"])


def _targets(group: str, wanted: int, cloud: Cloud) -> Health:
    with asking_aws("to read the load balancer's health checks"):
        found = cloud.client("elbv2").describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    well = sum(t["TargetHealth"]["State"] == "healthy" for t in found)
    if well >= wanted:
        return Health("healthy", f"{well} hosts answer the load balancer")
    return Health("starting", f"{well} of {wanted} hosts answer the load balancer")


def _endpoint(resources: Sequence[Resource], cloud: Cloud) -> Health:
    names = _ids(resources, ENDPOINT)
    if not names:
        return Health("failed", "the stack has no endpoint")
    with asking_aws("to describe the endpoint"):
        found = cloud.client("sagemaker").describe_endpoint(EndpointName=names[0])
    status, why = found["EndpointStatus"], found.get("FailureReason", "")
    said = f"endpoint {names[0]} is {status}{': ' + why if why else ''}"
    if status == "InService":
        return Health("healthy", said)
    return Health("failed" if status in ("Failed", "OutOfService", "UpdateRollbackFailed") else "starting", said)


def _nodes(resources: Sequence[Resource], cloud: Cloud) -> Health:
    ids = _ids(resources, INSTANCE)
    found = states(resources, cloud)
    ended = [f"{i} is {state_of(found[i]) if i in found else 'gone'}" for i in ids if not _alive(found.get(i))]
    if ended or not ids:
        return Health("failed", ", ".join(ended) or "the stack has no node")
    if all(state_of(found[i]) == "running" for i in ids):
        return Health("healthy", f"{len(ids)} node{'s' if len(ids) > 1 else ''} running; `berth train` follows the run")
    return Health("starting", "the nodes start")


def _alive(machine: Instance | None) -> bool:
    return machine is not None and state_of(machine) in RUNNING


def address(outputs: Mapping[str, Any], resources: Sequence[Resource]) -> str:
    """Where the stack answers or works, in a word; empty for a stack that has no such place."""
    if outputs.get("url"):
        return str(outputs["url"])
    endpoints = _ids(resources, ENDPOINT)
    if endpoints:
        return f"SageMaker endpoint {endpoints[0]}"
    return ", ".join(str(i) for i in outputs.get("instances", []))
