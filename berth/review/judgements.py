"""Judgements: an append-only file of JSON lines. A later line of a row, reviewer and answer replaces the earlier one.

Each line is on the disk before its saving is confirmed. A line torn by a crash is passed over and counted; the next one
starts on a line of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from berth.review import ANSWERS, LABELS, ORDERS, PREFERENCES
from sizing.errors import UserError

LONGEST_COMMENT = 20_000
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a reviewer says of one answer (`answer` base or tuned, `label` one of `LABELS`) or of the two side by side
    (`answer` preference, `label` one of `PREFERENCES`). A label of None takes an earlier one back."""

    row: str
    reviewer: str
    answer: str
    label: str | None
    comment: str = ""
    order: str = "suspicious"
    blind: bool = False
    at: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        return (self.row, self.reviewer, self.answer)


def parse(record: Any) -> Judgement:
    """A judgement from JSON. Raises `ValueError` saying which key is wrong."""
    if not isinstance(record, dict):
        raise ValueError("a judgement is an object")
    for name in ("row", "reviewer", "answer"):
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise ValueError(f"{name} is missing")
    answer, label = record["answer"], record.get("label")
    allowed: Iterable[str] = PREFERENCES if answer == "preference" else LABELS
    if answer not in (*ANSWERS, "preference"):
        raise ValueError("answer is none of base, tuned, preference")
    if label is not None and (not isinstance(label, str) or label not in allowed):
        raise ValueError(f"label is none of {', '.join(allowed)}")
    comment, order = record.get("comment") or "", record.get("order") or "suspicious"
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise ValueError(f"comment is no text of at most {LONGEST_COMMENT} characters")
    if not isinstance(order, str) or order not in ORDERS:
        raise ValueError(f"order is none of {', '.join(ORDERS)}")
    if len(record["reviewer"]) > LONGEST_NAME or len(record["row"]) > LONGEST_NAME:
        raise ValueError(f"reviewer and row have at most {LONGEST_NAME} characters")
    at = record.get("at") or ""
    if not isinstance(at, str) or len(at) > 40:
        raise ValueError("at is no time")
    return Judgement(
        record["row"], record["reviewer"].strip(), answer, label, comment, order, bool(record.get("blind")), at
    )


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds: judgements in the order they were made, and how many lines are none."""

    judgements: tuple[Judgement, ...]
    damaged: int = 0

    def latest(self) -> dict[tuple[str, str, str], Judgement]:
        """The judgement that stands, by (row, reviewer, answer); those taken back are out unless a comment stands."""
        standing: dict[tuple[str, str, str], Judgement] = {}
        for judgement in self.judgements:
            standing[judgement.place] = judgement
        return {place: j for place, j in standing.items() if j.label is not None or j.comment}


def read_judgements(path: Path) -> Read:
    """The judgements of a file; none where there is no file yet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Read(())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    found, damaged = [], 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, RecursionError):
            damaged += 1
    return Read(tuple(found), damaged)


class Journal:
    """The file that judgements are appended to. Safe from several threads and from other processes that append."""

    def __init__(self, path: Path) -> None:
        """Raises `UserError` where the file cannot be written."""
        self.path = path
        self._lock = Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error

    def append(self, judgements: Sequence[Judgement]) -> None:
        """Write the judgements and wait until they are on the disk. Raises `OSError` where that fails."""
        lines = "".join(json.dumps(asdict(j), ensure_ascii=False) + "\n" for j in judgements).encode("utf-8", "replace")
        with self._lock:
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            # One write, so that lines of two writers never mix; what a full disk leaves out is written again.
            while lines:
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)
