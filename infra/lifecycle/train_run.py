"""One training run as it can be found again from anywhere: its stack's state, and what it keeps in S3."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from infra.cloud import Cloud, asking_aws
from infra.durations import parse_instant, write_instant
from infra.errors import one_line
from infra.lifecycle.engine import Engine
from infra.lock import user_name
from infra.places import BUCKET_OUTPUT, output_prefix, run_prefix
from infra.resolve import now
from infra.resource_types import INSTANCE
from infra.settings import TrainingSettings
from infra.stack_files import StackFile, read_stack
from model_runtime.fetch import split_s3
from sizing.errors import UserError

_RUN = re.compile(r"\d{8}-\d{6}")
BEGUN, ENDED = "command/begun.json", "command/ended.json"
"""Under a run's prefix: what the command that began it knew, and what the one that ended it found."""


class Machines(Protocol):
    """What switches a stack's machines on, where EC2 alone does not: the sandbox's stand-ins."""

    def switch_on(self, outputs: Mapping[str, Any]) -> None:
        """Idempotent: a machine that runs or has run is left alone."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands about a run work with. `project` holds the stack files that the engine reads; `wait` sleeps.

    `machines` is None where EC2 starts machines itself.
    """

    engine: Engine
    cloud: Cloud
    project: Path
    clock: Callable[[], datetime]
    wait: Callable[[float], Any]
    say: Callable[[str], None]
    machines: Machines | None = None

    @property
    def sandbox(self) -> bool:
        return self.cloud.endpoint is not None

    @property
    def option(self) -> str:
        """What a command for the same place has to say."""
        return " --sandbox" if self.sandbox else ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose stack stands. `outputs` are the stack's; where its `up` broke off, those that follow from its state
    (`whole` is False then)."""

    stack: str
    outputs: Mapping[str, Any]
    whole: bool = True

    @property
    def uri(self) -> str:
        return str(self.outputs["artifacts"]).rstrip("/")

    @property
    def instances(self) -> tuple[str, ...]:
        return tuple(str(i) for i in self.outputs.get("instances", []))


def training_file(stack: str, project: Path) -> tuple[StackFile, TrainingSettings]:
    """The stack's file. Raises `UserError` for a stack that does not train."""
    file = read_stack(stack, project)
    if not isinstance(file.settings, TrainingSettings):
        raise UserError(
            f"stack {stack} has the role {file.settings.role}; `berth train` is for training stacks "
            "(`berth new NAME --role training --model …`)"
        )
    return file, file.settings


def shared_outputs(settings: TrainingSettings, desk: Desk) -> Mapping[str, Any]:
    """Outputs of the shared stack, empty where it is not up."""
    return desk.engine.outputs(settings.shared_name)


def standing_run(stack: str, desk: Desk) -> Run | None:
    """The run whose stack stands, whole or not; None where there is none with a machine."""
    return run_of(stack, desk.engine)


def run_of(stack: str, engine: Engine) -> Run | None:
    """`standing_run`, for whoever has no more than the engine: a machine works whether or not its `up` was ended."""
    outputs = engine.outputs(stack)
    if outputs.get("instances"):
        return Run(stack, outputs)
    machines = [r for r in engine.resources(stack) if r.type == INSTANCE]
    if not machines:
        return None
    _, settings = training_file(stack, engine.project)
    bucket = engine.outputs(settings.shared_name).get(BUCKET_OUTPUT)
    if not bucket:
        raise UserError(
            f"stack {stack} has machines ({', '.join(m.id for m in machines)}), but the state of its shared stack "
            f"{settings.shared_name} names no bucket; log in to the backend that holds both"
        )
    expires = settings.expiry
    made: dict[str, Any] = {
        "instances": [m.id for m in machines],
        "artifacts": f"s3://{bucket}/{run_prefix(settings, stack)}",
        "expires_at": write_instant(expires) if expires else "never",
    }
    return Run(stack, made, whole=False)


def last_run_uri(stack: str, settings: TrainingSettings, desk: Desk) -> str:
    """Where the newest run of a stack that stands no more wrote to; empty where none is known."""
    bucket = shared_outputs(settings, desk).get(BUCKET_OUTPUT)
    if not bucket:
        return ""
    base = f"{output_prefix(stack)}/"
    with asking_aws("to list the runs of the stack"):
        pages = desk.cloud.client("s3").get_paginator("list_objects_v2")
        found = [
            str(entry["Prefix"]).rstrip("/")
            for page in pages.paginate(Bucket=bucket, Prefix=base, Delimiter="/")
            for entry in page.get("CommonPrefixes", [])
        ]
    # Named by their time, so that the newest comes first; other things that a stack writes have other names.
    runs = sorted((prefix for prefix in found if _RUN.fullmatch(prefix.removeprefix(base))), reverse=True)
    uris = (f"s3://{bucket}/{prefix}" for prefix in runs)
    return next((uri for uri in uris if read_note(uri, BEGUN, desk.cloud) is not None), "")


def note(uri: str, name: str, document: Mapping[str, Any], cloud: Cloud) -> None:
    """Put a note under the run's prefix."""
    bucket, prefix = split_s3(uri)
    body = (json.dumps(document, indent=1) + "\n").encode()
    with asking_aws(f"to write {name}"):
        cloud.client("s3").put_object(Bucket=bucket, Key=prefix + name, Body=body, ContentType="application/json")


def ended_note(uri: str, begun: Mapping[str, Any] | None, cloud: Cloud) -> dict[str, Any] | None:
    """The note of the run's end, None where there is none: one that is older than `begun` is an earlier attempt's."""
    found = read_note(uri, ENDED, cloud)
    if found is None or begun is None or not begun.get("at") or not found.get("at"):
        return found
    return found if parse_instant(str(found["at"])) >= parse_instant(str(begun["at"])) else None


def read_note(uri: str, name: str, cloud: Cloud) -> dict[str, Any] | None:
    """A note, None where there is none or it cannot be read as one. Raises `UserError` where S3 refuses."""
    bucket, prefix = split_s3(uri)
    s3 = cloud.client("s3")
    try:
        found = json.loads(s3.get_object(Bucket=bucket, Key=prefix + name)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return None
    except ValueError:
        return None
    except (ClientError, BotoCoreError) as error:
        raise UserError(f"{uri}/{name} cannot be read: {one_line(error)}") from error
    return found if isinstance(found, dict) else None


def whoami() -> str:
    """Who runs this command, for others who look at the run."""
    return f"{user_name()} on {socket.gethostname()}"


def run_name(clock: Callable[[], datetime] = now) -> str:
    """Sorts by time: 20261124-091530."""
    return clock().strftime("%Y%m%d-%H%M%S")
