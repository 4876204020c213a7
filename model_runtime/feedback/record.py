"""One piece of feedback: a rating, a better answer or a comment on the answer to a request."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from model_runtime.errors import ModelError

FIELDS = ("request_id", "rating", "corrected_answer", "comment")
MAX_CHARS = 100_000
MAX_BODY_BYTES = 1_000_000
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")


class FeedbackError(ModelError):
    """Feedback that is not taken, with what is wrong."""


def read_feedback(body: bytes, now: float) -> dict[str, Any]:
    """The record in a request's `body`, with an id and the time (seconds since the epoch). Raises `FeedbackError`.

    `request_id` and at least one of `rating` (a whole number, 1 bad to 5 good), `corrected_answer` and `comment`.
    """
    if len(body) > MAX_BODY_BYTES:
        raise FeedbackError(f"the body has {len(body):,} bytes; at most {MAX_BODY_BYTES:,} are taken")
    try:
        given = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FeedbackError(f"the body is no JSON: {str(error)[:120]}") from None
    if not isinstance(given, dict):
        raise FeedbackError("the body must be a JSON object")
    unknown = [key for key in given if key not in FIELDS]
    if unknown:
        raise FeedbackError(f"unknown field {ascii(unknown[0])[:80]}; known: {', '.join(FIELDS)}")
    request_id = given.get("request_id")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise FeedbackError("request_id must be the id of the answer: 1 to 200 visible ASCII characters")
    record: dict[str, Any] = {"id": uuid.uuid4().hex, "time": now, "request_id": request_id}
    rating = given.get("rating")
    if rating is not None:
        if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
            raise FeedbackError("rating must be a whole number from 1 (bad) to 5 (good)")
        record["rating"] = rating
    for name in ("corrected_answer", "comment"):
        text = given.get(name)
        if text is None:
            continue
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARS:
            raise FeedbackError(f"{name} must be text of 1 to {MAX_CHARS:,} characters")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise FeedbackError(f"{name} has half of a surrogate pair, which is no text") from None
        record[name] = text
    if len(record) == 3:
        raise FeedbackError("there is nothing in it; give a rating, a corrected_answer or a comment")
    return record


def stored_record(given: Any) -> dict[str, Any]:
    """A record as the journal wrote it, checked as it was when it came. Raises `FeedbackError`.

    `id` is its own, `time` seconds since the epoch; the rest is as `read_feedback` takes it.
    """
    if not isinstance(given, dict):
        raise FeedbackError("it is no JSON object")
    own, moment = given.get("id"), given.get("time")
    if not isinstance(own, str) or not own:
        raise FeedbackError("id is missing")
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment < 1e11:
        raise FeedbackError("time is no number of seconds since the epoch")
    rest = {key: value for key, value in given.items() if key not in ("id", "time")}
    return {**read_feedback(json.dumps(rest).encode("utf-8"), float(moment)), "id": own}
