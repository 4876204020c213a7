"""What the watchdog says of its machine: one JSON object beside the artifacts, and what a person is told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from model_runtime.errors import ModelError
from model_runtime.watch.clock import parse_instant

STATUS = "watchdog/status.json"
EVENTS = "watchdog/events.jsonl"
METRICS = "watchdog/metrics.jsonl"
"""The run's metrics (`model_runtime.training.metrics`) as they stood at the last word."""
FORMAT = "berth-watchdog/1"
SILENT_S = 600.0
"""Without a word for this long the machine is taken for gone: a heartbeat comes every minute."""
Phase = Literal["watching", "stopping", "delivering", "ended"]

REASONS = {
    "expiry": "its expiry came",
    "job-succeeded": "the job was done",
    "job-failed": "the job failed",
    "gpu-idle": "the GPUs had nothing to do",
    "spot-notice": "AWS took the spot machine back",
    "told": "it was told to end",
}


@dataclass(frozen=True)
class Status:
    """`delivered`: the last delivery (result, items, problems), None before the first. `job`: state, exit code or
    signal, detail, and the last line of its log where it has one. Moments are ISO 8601, in UTC.

    `halted`: "verified" (everything whole is in S3), "nothing" (there was nothing whole), "deadline" (not everything
    could be brought to S3 in time); empty before the end.
    """

    phase: Phase
    updated_at: str
    began_at: str
    expires_at: str
    machine: dict[str, str]
    job: dict[str, Any]
    reason: str = ""
    detail: str = ""
    stopping_since: str = ""
    delivered: dict[str, Any] | None = None
    halted: str = ""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **{name: getattr(self, name) for name in _FIELDS}}

    @property
    def verified(self) -> tuple[str, ...]:
        """Locations that were whole in S3 when they were last looked at."""
        items = (self.delivered or {}).get("items", [])
        return tuple(str(item["location"]) for item in items)


_FIELDS = tuple(Status.__dataclass_fields__)


def parse_status(text: str, where: str) -> Status:
    """Raises `ModelError` for anything that `Status.to_json` did not write."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ModelError(f"{where}: format is {found['format']!r}; this Berth reads {FORMAT}")
        status = Status(**{name: found[name] for name in _FIELDS})
        for moment in (status.updated_at, status.began_at, status.expires_at):
            parse_instant(moment)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where} is no status of a watchdog ({type(error).__name__}: {error})") from error
    return status


def read_status(uri: str, *, client: Any) -> Status | None:
    """The status under the run's prefix, None where there is none. Raises `ModelError` where S3 cannot be read."""
    from botocore.exceptions import BotoCoreError, ClientError

    from model_runtime.fetch import split_s3

    bucket, prefix = split_s3(uri)
    try:
        text = client.get_object(Bucket=bucket, Key=prefix + STATUS)["Body"].read().decode("utf-8", "replace")
    except client.exceptions.NoSuchKey:
        return None
    except (BotoCoreError, ClientError) as error:
        raise ModelError(f"{uri}/{STATUS} cannot be read: {error}") from error
    return parse_status(text, f"{uri}/{STATUS}")


def describe(status: Status, now: float) -> list[str]:
    """What happened, in sentences: how it stands, what is in S3, what went wrong. `now`: seconds since 1970."""
    lines = [_standing(status, now)]
    if status.verified:
        checked = status.delivered["items"][0].get("checked", "") if status.delivered else ""
        lines.append(f"Verified in S3 ({checked}): {', '.join(status.verified)}")
    elif status.phase == "ended" and status.halted == "nothing":
        lines.append("There was no whole checkpoint or artifact on its disk.")
    elif status.phase == "ended":
        lines.append("It could not verify anything in S3 before it had to halt.")
    if status.job.get("state") == "failed":
        job = status.job
        how = f"signal {job['signal']}" if job.get("signal") else f"exit code {job.get('exit_code')}"
        lines.append(f"The job ended with {how}{': ' + job['detail'] if job.get('detail') else ''}.")
        if job.get("last_line"):
            lines.append(f"Its last line: {job['last_line']}")
    lines += [f"Problem: {problem}" for problem in (status.delivered or {}).get("problems", [])]
    lines += [f"Warning: {warning}" for warning in status.warnings]
    return lines


def _standing(status: Status, now: float) -> str:
    why = REASONS.get(status.reason, status.reason)
    detail = f" ({status.detail})" if status.detail else ""
    if status.phase == "ended":
        how = {"deadline": ", with its deadline before everything was verified"}.get(status.halted, "")
        return f"The machine halted at {status.updated_at} because {why}{detail}{how}."
    doing = {
        "watching": "the job was watched",
        "stopping": f"{why}{detail}, and the job was asked to save and stop",
    }.get(status.phase, f"{why}{detail}, and its work was brought to S3")
    silent = now - parse_instant(status.updated_at)
    if silent > SILENT_S or now > parse_instant(status.expires_at) + SILENT_S:
        return (
            f"The watchdog was last heard of at {status.updated_at}: {doing}. It left no last word; what is in S3 must "
            "be verified anew."
        )
    return f"At {status.updated_at}: {doing}."
