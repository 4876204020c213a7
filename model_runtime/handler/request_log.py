"""Keeps what was asked and answered, so that feedback can be joined with it. Off unless a share is asked for.

A line of JSON for each request that was answered: `request_id`, `time` (seconds since the epoch), `model`, `inputs`,
`answers` (a list for each input) and, for a chat, its `messages`. They hold what callers wrote, word for word: turn it
on where that may be kept. Lines are written and shipped as feedback is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_runtime.errors import ModelError
from model_runtime.feedback.journal import Journal, Shipper

if TYPE_CHECKING:
    from model_runtime.handler.service import Job
    from model_runtime.handler.settings import ServingSettings

log = logging.getLogger(__name__)


def is_sampled(request_id: str, percent: int) -> bool:
    """Whether this request belongs to the share: by its id, so that every host decides alike."""
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:4]) % 100 < percent


def record_of(job: Job, model: str, now: float) -> dict[str, Any] | None:
    """The line of an answered job; None for one that was refused or failed."""
    ask, reply = job.ask, job.reply
    if ask is None or reply is None or not reply.ok:
        return None
    record: dict[str, Any] = {"request_id": job.heading.request_id, "time": now, "model": model}
    if ask.form == "chat":
        record["messages"] = [dict(message) for message in ask.messages]
        record["inputs"] = [ask.messages[-1].get("content", "")]
    else:
        record["inputs"] = list(ask.texts)
    if job.done:
        texts = [done.text for done in job.done]
        record["answers"] = [texts[at : at + ask.answers] for at in range(0, len(texts), ask.answers)]
    else:  # a classifier's labels, best first
        items = reply.body if ask.listed else [reply.body]
        record["answers"] = [[item[0]["label"]] for item in items if item]
    return record


class RequestLog:
    """Writes the share of answered requests that is wanted; what a full disk refuses is lost, with a warning."""

    def __init__(self, journal: Journal, percent: int, model: str, *, clock: Callable[[], float] = time.time) -> None:
        self.journal, self.percent, self.model, self.clock = journal, percent, model, clock

    def note(self, jobs: Sequence[Job]) -> None:
        """Write the lines of a batch. Never fails a request."""
        now = self.clock()
        wanted = [job for job in jobs if is_sampled(job.heading.request_id, self.percent)]
        records = [record for job in wanted if (record := record_of(job, self.model, now)) is not None]
        if not records:
            return
        try:
            json.dumps(records, ensure_ascii=False).encode("utf-8")
            self.journal.append(records)
        except (OSError, UnicodeEncodeError) as error:
            log.warning("%d requests are not kept: %s", len(records), error)


def place_of(settings: ServingSettings, environ: Mapping[str, str]) -> str:
    """The S3 prefix that the log is shipped to; empty: it stays on the disk. A host's environment names its stack's
    (`BERTH_BUCKET`, `BERTH_OUTPUT`)."""
    bucket, output = environ.get("BERTH_BUCKET"), environ.get("BERTH_OUTPUT")
    return settings.request_log_uri or (f"s3://{bucket}/{output}/requests" if bucket and output else "")


def open_log(settings: ServingSettings, environ: Mapping[str, str] = os.environ) -> RequestLog | None:
    """The log that the settings ask for; None where they ask for none. Raises `ModelError` where it cannot be written.

    It is shipped to its place (`place_of`) until the process ends.
    """
    if not settings.request_log_percent:
        return None
    try:
        journal = Journal(Path(settings.request_log_dir))
    except OSError as error:
        raise ModelError(
            f"request_log_dir {settings.request_log_dir} cannot be written: {error.strerror}; give another folder, or "
            "request_log_percent 0"
        ) from error
    if place := place_of(settings, environ):
        import atexit

        import boto3

        atexit.register(Shipper(journal, place, boto3.client("s3")).stop)
    return RequestLog(journal, settings.request_log_percent, settings.model_name)
