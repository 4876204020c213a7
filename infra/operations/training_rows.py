"""Training data out of feedback: corrected answers, and answers that everybody rated good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.operations.feedback import Answered
from model_runtime.data.examples import normalised

GOOD = 4
"""Rating (of 5) from which an answer counts as good: every rating that it has must reach it."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """`rows` in one form each: `input` and `target`, `text` and `label`, or `messages`; the rest is counted."""

    rows: tuple[dict[str, Any], ...]
    form: str
    corrected: int
    good: int
    duplicates: int
    left_out: int
    """Answers without a correction that nobody rated, or that somebody rated below `GOOD`."""
    conversations: int
    """Chats of several messages, which do not fit into a file of inputs and targets."""

    def to_json(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rows": len(self.rows),
            "corrected": self.corrected,
            "good": self.good,
            "duplicates": self.duplicates,
            "left_out": self.left_out,
            "conversations": self.conversations,
        }


def training_rows(answered: Sequence[Answered], *, classifies: bool = False) -> TrainingRows:
    """The rows that teach something. Inputs that differ in case, blanks or punctuation alone are one: a correction goes
    before an answer rated good, a newer one before an older.

    Where every row is a chat, a row holds the `messages` with the good answer as their last; a classifier's rows are
    `text` and `label`.
    """
    chats = bool(answered) and all(row.messages for row in answered)
    chosen: dict[str, tuple[tuple[bool, float], Answered, str]] = {}
    duplicates = left_out = conversations = 0
    for row in answered:
        corrected = row.correction
        if corrected is None and not (row.ratings and min(row.ratings) >= GOOD):
            left_out += 1
            continue
        if len(row.messages) > 1 and not chats:
            conversations += 1
            continue
        rank = (corrected is not None, max(f["time"] for f in row.feedback))
        key = normalised(row.input)
        if key in chosen:
            duplicates += 1
        if key not in chosen or rank > chosen[key][0]:
            chosen[key] = (rank, row, row.answer if corrected is None else corrected)
    rows = tuple(_row(row, target, classifies, chats) for _, row, target in chosen.values())
    good = sum(not rank[0] for rank, _, _ in chosen.values())
    form = "chat" if chats else "classification" if classifies else "seq2seq"
    return TrainingRows(rows, form, len(rows) - good, good, duplicates, left_out, conversations)


def _row(row: Answered, target: str, classifies: bool, chats: bool) -> dict[str, Any]:
    if chats:
        return {"messages": [*map(dict, row.messages), {"role": "assistant", "content": target}]}
    if classifies:
        return {"text": row.input, "label": target}
    return {"input": row.input, "target": target}
