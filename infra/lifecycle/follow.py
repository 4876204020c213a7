"""A run as it goes: what its machines, its watchdog, its metrics and its log say at one look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import one_line
from infra.lifecycle.final_bill import spent_so_far
from infra.lifecycle.interlock import Node, last_expiry, nodes_of, own_status
from infra.lifecycle.saved import ARTIFACT, status_of
from infra.lifecycle.train_run import BEGUN, Desk, Run, read_note
from model_runtime.fetch import split_s3
from model_runtime.manifest import NAME
from model_runtime.watch.status import METRICS, Status

_MOST_LINES, _FIRST_LINES = 500, 50
"""Lines of the log that one look takes at most; the first one takes the newest, however long the run has been going."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `train` and `evaluation`: the newest lines of the metrics; `log`: lines that came since the last look.

    `usd`: spent since the machines began, None where the price is not known. `artifact_at`: when the manifest of an
    artifact came, where that was after this run's machine began. `trouble`: what could not be asked.
    """

    moment: datetime
    nodes: tuple[Node, ...]
    status: Status | None
    train: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    log: tuple[str, ...]
    usd: Decimal | None
    expires_at: datetime | None
    artifact_at: datetime | None = None
    trouble: tuple[str, ...] = ()

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    @property
    def since(self) -> datetime | None:
        return min((node.since for node in self.nodes), default=None)

    @property
    def left_s(self) -> float | None:
        """Seconds until the last step, by the newest line."""
        return None if self.train is None else float(self.train["left_s"])

    def to_json(self) -> dict[str, Any]:
        train = dict(self.train) if self.train is not None else None
        return {
            "nodes": [{"id": n.id, "state": n.state, "since": n.since.isoformat()} for n in self.nodes],
            "train": train,
            "usd": None if self.usd is None else round(float(self.usd), 2),
        }


@dataclass
class Follower:
    """`look()` again and again. The log comes from CloudWatch, where the group of the run's role is known."""

    run: Run
    desk: Desk
    log_group: str = ""
    begun: Mapping[str, Any] | None = None
    _tokens: dict[str, str] = field(default_factory=dict)
    _heard: str = ""
    _newest: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None)

    def look(self) -> Look:
        """Raises `UserError` where EC2 or S3 cannot be asked; a log that cannot be read is `trouble`."""
        desk, run = self.desk, self.run
        if self.begun is None:
            self.begun = read_note(run.uri, BEGUN, desk.cloud)
        nodes = nodes_of(run.outputs, desk.cloud)
        s3, moment = desk.cloud.client("s3"), desk.clock()
        status = own_status(status_of(run.uri, s3), run.outputs)
        if status is not None and status.updated_at != self._heard:
            # They come with each word of the watchdog, and may be a megabyte.
            self._heard, self._newest = status.updated_at, self._metrics(s3)
        train, evaluation = self._newest
        log, trouble = self._log()
        since = min((n.since for n in nodes), default=None)
        usd = None if since is None else spent_so_far(self.begun, since, moment)
        expires, artifact = last_expiry(run.outputs, nodes), self._artifact_at(s3, since)
        return Look(moment, nodes, status, train, evaluation, log, usd, expires, artifact, trouble)

    def _metrics(self, s3: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
        bucket, prefix = split_s3(self.run.uri)
        try:
            text = s3.get_object(Bucket=bucket, Key=prefix + METRICS)["Body"].read().decode("utf-8", "replace")
        except (ClientError, BotoCoreError):
            return None, None  # none yet
        train: Mapping[str, Any] | None = None
        evaluation: Mapping[str, Any] | None = None
        for line in text.splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if found.get("kind") == "train":
                train = found
            elif found.get("kind") == "eval":
                evaluation = found
        return train, evaluation

    def _artifact_at(self, s3: Any, since: datetime | None) -> datetime | None:
        bucket, prefix = split_s3(self.run.uri)
        try:
            at = s3.head_object(Bucket=bucket, Key=f"{prefix}{ARTIFACT}/{NAME}")["LastModified"]
        except (ClientError, BotoCoreError):
            return None
        return at if since is None or at >= since.replace(microsecond=0) else None

    def _log(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """New lines of the first node's training log."""
        if not self.log_group or not self.run.instances:
            return (), ()
        logs, stream = self.desk.cloud.client("logs"), f"{self.run.stack}/{self.run.instances[0]}/service"
        token = self._tokens.get(stream)
        given: dict[str, Any] = {"limit": _FIRST_LINES, "startFromHead": False}
        if token:  # with a token that leads forward CloudWatch wants the head named
            given = {"limit": _MOST_LINES, "startFromHead": True, "nextToken": token}
        try:
            found = logs.get_log_events(logGroupName=self.log_group, logStreamName=stream, **given)
        except logs.exceptions.ResourceNotFoundException:
            return (), ()  # nothing said yet
        except (ClientError, BotoCoreError) as error:
            return (), (f"the log cannot be read: {one_line(error, 200)}",)
        self._tokens[stream] = found["nextForwardToken"]
        lines = [str(event["message"]).rstrip() for event in found["events"]]
        return tuple(line for line in lines if line and not line.startswith('{"_aws"')), ()
