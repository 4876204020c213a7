"""Bodies to replies: what is valid is on the disk before its reply says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from model_runtime.feedback.journal import Journal
from model_runtime.feedback.record import FeedbackError, read_feedback

log = logging.getLogger(__name__)


def take(bodies: Sequence[bytes], journal: Journal) -> list[tuple[int, dict[str, Any]]]:
    """HTTP status and document for each of `bodies`, in order; the valid ones are written with one sync."""
    replies: list[tuple[int, dict[str, Any]] | None] = []
    records = []
    for body in bodies:
        try:
            records.append(read_feedback(body, time.time()))
            replies.append(None)
        except FeedbackError as error:
            replies.append((400, _error(400, str(error), "invalid_feedback")))
    accepted = True
    if records:
        try:
            journal.append(records)
        except OSError:
            log.exception("feedback cannot be written")
            accepted = False
    ids = iter(records)
    return [reply or _reply(next(ids), accepted) for reply in replies]


def _reply(record: dict[str, Any], accepted: bool) -> tuple[int, dict[str, Any]]:
    if accepted:
        return 202, {"accepted": True, "id": record["id"]}
    return 503, _error(503, "feedback cannot be written now; send it again", "disk_failed")


def _error(status: int, message: str, code: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"code": status, "error": {"message": message, "type": kind, "code": code, "param": None}}
