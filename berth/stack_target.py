"""Where a stack answers and how it is reached from here: for `berth verify STACK`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from berth.options import sandbox_flag
from sizing.errors import UserError

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.lifecycle.engine import Engine, Resource
    from infra.stack_files import StackFile
    from model_runtime.verify.plan import Stack

CONNECT_SECONDS = 4.0
LOCAL_PORT = 8080
_FORWARD = "AWS-StartPortForwardingSession"
_FORWARD_TO = "AWS-StartPortForwardingSessionToRemoteHost"


@dataclass(frozen=True, slots=True)
class Target:
    """`url` of the service, or `endpoint`: the name of a SageMaker endpoint. Tokens and seconds are the settings'."""

    stack: Stack
    url: str
    endpoint: str
    input_tokens: int
    output_tokens: int
    latency_s: float | None


def reachable(url: str) -> bool:
    """Whether a connection to the host and port of `url` can be made within some seconds."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def find_target(
    file: StackFile,
    engine: Engine | None,
    cloud: Cloud | None,
    *,
    sandbox: bool,
    url: str = "",
    connects: Callable[[str], bool] = reachable,
) -> Target:
    """Where the stack of `file` answers; `url` instead of what it says itself, and then no engine or cloud is asked.

    Raises `UserError` for a stack that is not up, that answers nothing, or that cannot be reached from here: then with
    the command that makes a way to it.
    """
    from infra.settings import EndpointSettings, InferenceSettings, ServiceSettings
    from model_runtime.verify.plan import Stack

    settings, name = file.settings, file.name
    if not isinstance(settings, ServiceSettings):
        raise UserError(f"stack {name} has the role {settings.role} and answers no requests; verify an inference stack")
    outputs = {} if url or engine is None else engine.outputs(name)
    if not outputs and not url:
        raise UserError(f"stack {name} is not up; `berth up {name}{sandbox_flag(sandbox)}` makes it")
    where, endpoint = url, ""
    if not url and sandbox:
        raise UserError(
            "the sandbox runs no machine, so nothing answers at the stack's address: `berth serve "
            f"{name} --sandbox` stands in for it; give its address with --url http://127.0.0.1:{LOCAL_PORT}"
        )
    if not url and isinstance(settings, EndpointSettings):
        endpoint = _endpoint(name, outputs)
        where = f"https://runtime.sagemaker.{file.region}.amazonaws.com/endpoints/{endpoint}"
    elif not url and isinstance(settings, InferenceSettings):
        where = str(outputs.get("url") or "")
        if not where:
            raise UserError(f"stack {name} has no address among its outputs; `berth up {name}` makes it whole")
        if not connects(where):
            resources = () if engine is None else engine.resources(name)
            raise _unreachable(name, where, file.region, resources, cloud, balanced=settings.balanced)
    stack = Stack(
        name=name,
        role=settings.role,
        region=file.region,
        address=where,
        model=settings.model,
        dtype=settings.dtype,
        instance_type=settings.instance_type.removeprefix("ml."),
        batch=settings.batch,
        stand_in=sandbox,
    )
    seconds = settings.latency_ms / 1000 or None
    return Target(stack, "" if endpoint else where, endpoint, settings.input_tokens, settings.output_tokens, seconds)


def _endpoint(name: str, outputs: Mapping[str, Any]) -> str:
    if outputs.get("invocation") == "async":
        raise UserError(
            f"stack {name} is an asynchronous endpoint: it answers through S3, where no latency can be measured; "
            "verify its model folder on a machine (berth verify FOLDER), or set invocation to real-time"
        )
    endpoint = str(outputs.get("endpoint") or "")
    if not endpoint:
        raise UserError(f"stack {name} has no endpoint among its outputs; `berth up {name}` makes it whole")
    return endpoint


def _unreachable(
    name: str, url: str, region: str, resources: Sequence[Resource], cloud: Cloud | None, *, balanced: bool
) -> UserError:
    """One line with the command that forwards a port through Session Manager, which every host allows."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    instance = _instance(resources, cloud)
    local = f"{parts.scheme}://127.0.0.1:{LOCAL_PORT}"
    if balanced:
        document = _FORWARD_TO
        values = f'{{"host":["{parts.hostname}"],"portNumber":["{port}"],"localPortNumber":["{LOCAL_PORT}"]}}'
    else:
        document = _FORWARD
        values = f'{{"portNumber":["{port}"],"localPortNumber":["{LOCAL_PORT}"]}}'
    session = f"aws ssm start-session --region {region} --target {instance}"
    command = f"{session} --document-name {document} --parameters '{values}'"
    return UserError(
        f"stack {name} answers at {url}, inside its network only, and cannot be reached from here; forward a port "
        f"(AWS CLI with the Session Manager plugin): {command} ; then `berth verify {name} --url {local}`"
    )


def _instance(resources: Sequence[Resource], cloud: Cloud | None) -> str:
    """A machine of the stack: its own, or any that its group has by now."""
    from infra.cloud import asking_aws
    from infra.resource_types import GROUP, INSTANCE

    own = [r.id for r in resources if r.type == INSTANCE]
    if own:
        return own[0]
    groups = [r.id for r in resources if r.type == GROUP]
    if not groups or cloud is None:
        return "INSTANCE_ID"
    with asking_aws("to describe the group of hosts"):
        found = cloud.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=groups)
    machines = [i["InstanceId"] for g in found["AutoScalingGroups"] for i in g["Instances"]]
    return machines[0] if machines else "INSTANCE_ID"
