"""Feedback of a stack: brought down, checked line by line, joined with what it is about."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.durations import write_instant
from infra.operations.clients import Client, account_of
from infra.operations.lines import Found, below, in_file, in_journal
from infra.operations.requests import Request, Requests, plain_id
from infra.places import bucket_name, capture_prefix, feedback_prefix, requests_prefix
from infra.settings import EndpointSettings, MachineSettings
from infra.stack_files import StackFile
from model_runtime.feedback.record import FeedbackError, stored_record
from sizing.errors import UserError

RATINGS = (1, 2, 3, 4, 5)
BEFORE = timedelta(days=30)
"""How long before its feedback a request may have been answered."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer with what was said of it, the oldest first."""

    request_id: str
    input: str
    answer: str
    messages: tuple[Mapping[str, str], ...]
    feedback: tuple[Mapping[str, Any], ...]

    @property
    def ratings(self) -> list[int]:
        return [f["rating"] for f in self.feedback if "rating" in f]

    @property
    def correction(self) -> str | None:
        """The newest corrected answer."""
        return next((f["corrected_answer"] for f in reversed(self.feedback) if "corrected_answer" in f), None)


@dataclass
class Collected:
    """All that came down. `bad` names every line that is none; `several` are requests of several texts or answers."""

    stack: str
    region: str
    since: datetime
    records: list[dict[str, Any]] = field(default_factory=list)
    objects: int = 0
    bad: list[str] = field(default_factory=list)
    requests: int = 0
    bad_requests: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    answer_of: str = "base"
    """Whose answers they are, as in `berth review`: `tuned` where the stack serves files of its own, else `base`."""

    def to_json(self) -> dict[str, Any]:
        rated = Counter(r["rating"] for r in self.records if "rating" in r)
        count = sum(rated.values())
        return {
            "format": "berth-feedback/1",
            "stack": self.stack,
            "region": self.region,
            "since": self.since.isoformat(),
            "records": len(self.records),
            "objects": self.objects,
            "bad_lines": len(self.bad),
            "bad": self.bad[:20],
            "requests": {
                "sources": self.sources,
                "known": self.requests,
                "bad_lines": len(self.bad_requests),
                "bad": self.bad_requests[:20],
            },
            "answers": {
                "of": self.answer_of,
                "joined": len(self.answered),
                "unmatched": len(self.unmatched),
                "several_texts": len(self.several),
            },
            "ratings": {
                "counts": {str(rating): rated[rating] for rating in RATINGS},
                "mean": sum(r * n for r, n in rated.items()) / count if count else None,
            },
            "corrections": sum("corrected_answer" in r for r in self.records),
            "comments": sum("comment" in r for r in self.records),
        }


def collect(
    file: StackFile, client: Client, since: datetime, requests_file: Path | None = None, journal: Path | None = None
) -> Collected:
    """What a stack's users said since a moment, joined with the requests that were kept or that a file holds.

    With a `journal`, a folder that `berth serve --feedback` writes or a file of it, and a file of requests no account
    is asked. A bad line is named, not fatal. Raises `UserError` for a stack that serves nobody, and where the bucket is
    missing.
    """
    settings = file.settings
    if not isinstance(settings, MachineSettings) or settings.role == "training":
        raise UserError(f"stack {file.name} serves nobody (role {settings.role}); feedback comes from a serving stack")
    made = Collected(file.name, file.region, since, answer_of="tuned" if settings.artifact else "base")
    bucket = ""
    if journal is None or requests_file is None:
        bucket = bucket_name("artifacts", account_of(client, file.region), file.region)
    if journal is None:
        _take_records(made, below(client, file.region, bucket, feedback_prefix(file.name), since))
    else:
        _take_records(made, in_journal(journal))
    if not made.records:
        return made
    requests = Requests()
    if requests_file is not None:
        made.sources.append(str(requests_file))
        requests.take(in_file(requests_file))
    else:
        prefix = capture_prefix if isinstance(settings, EndpointSettings) else requests_prefix
        made.sources.append(f"s3://{bucket}/{prefix(file.name)}/")
        requests.take(below(client, file.region, bucket, prefix(file.name), since - BEFORE))
    made.requests, made.bad_requests = requests.count, requests.bad
    join(made, requests)
    return made


def _take_records(made: Collected, found: Found) -> None:
    made.objects, made.bad = found.objects, list(found.bad)
    known: dict[str, dict[str, Any]] = {}
    for line in found.lines:
        try:
            record = stored_record(line.value)
        except FeedbackError as error:
            made.bad.append(f"{line.where}: {error}")
            continue
        if record["time"] >= made.since.timestamp():
            known[record["id"]] = record
    made.records = sorted(known.values(), key=lambda r: (r["time"], r["id"]))


def join(made: Collected, requests: Requests) -> None:
    """Put each piece of feedback beside the answer that it is about, the newest feedback's answer last."""
    by_request: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in made.records:
        by_request[plain_id(record["request_id"])].append(record)
    for request_id, records in by_request.items():
        request = requests.of(request_id)
        if request is None:
            made.unmatched.append(request_id)
        elif not request.is_plain:
            made.several.append(request_id)
        else:
            made.answered.append(_answered(request_id, request, records))


def _answered(request_id: str, request: Request, records: Sequence[Mapping[str, Any]]) -> Answered:
    kept = tuple(
        {k: v for k, v in r.items() if k in ("time", "rating", "corrected_answer", "comment")} for r in records
    )
    return Answered(request_id, _asked(request), request.answers[0][0], request.messages, kept)


def _asked(request: Request) -> str:
    """The input as a person reads it: a chat of several messages with their roles."""
    if len(request.messages) > 1:
        return "\n".join(f"{m['role']}: {m['content']}" for m in request.messages)
    return request.inputs[0]


def predictions(made: Collected) -> Iterable[dict[str, Any]]:
    """Rows that `berth review` opens: the answer, its correction as the reference, the feedback beside it."""
    name = "prediction" if made.answer_of == "tuned" else "base_prediction"
    for row in made.answered:
        ratings = row.ratings
        yield {
            "id": row.request_id,
            "input": row.input,
            "target": row.correction,
            name: row.answer,
            "metrics": {"rating": sum(ratings) / len(ratings)} if ratings else {},
            "feedback": [{**f, "time": _instant(f["time"])} for f in row.feedback],
        }


def _instant(seconds: float) -> str:
    return write_instant(datetime.fromtimestamp(seconds, UTC))
