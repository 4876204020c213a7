"""What the judgements come to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from berth.review import ANSWERS, LABELS, PREFERENCES
from berth.review.agreement import cohen, wilson
from berth.review.judgements import Judgement, Read

DISPUTED = "disputed"
SAMPLES = {
    "random": "in random order: a fair sample",
    "suspicious": "suspicious first: worse than the whole",
    "file": "in the file's order",
    "picked": "picked by a filter: says nothing of the whole",
    "mixed": "in several orders",
    "all": "every row",
    "none": "none",
}


def summary(read: Read, rows: Sequence[str], *, predictions: str, judgements: str) -> dict[str, Any]:
    """The document that `berth review summary --json` prints; `rows` are the keys of the predictions.

    Of an answer that several reviewers judged the label of most counts; a tie is `disputed`.
    """
    known = set(rows)
    standing = read.latest().values()
    here = [j for j in standing if j.row in known]
    labelled = [j for j in here if j.label is not None]
    elsewhere = len({j.row for j in standing} - known)
    judged = {j.row for j in labelled}
    sample = _sample(labelled, len(judged) == len(known))
    notes = []
    if sample == "suspicious":
        notes.append("The suspicious answers were read first: the share of right ones in the whole set is higher.")
    if read.damaged:
        notes.append(f"{read.damaged} damaged lines of {judgements} were passed over.")
    if elsewhere:
        notes.append(f"Judgements of {elsewhere} rows that {predictions} does not have were passed over.")
    return {
        "format": "berth-review-summary/1",
        "predictions": predictions,
        "judgements": judgements,
        "rows": len(rows),
        "rows_judged": len(judged),
        "sample": SAMPLES[sample],
        "reviewers": sorted({j.reviewer for j in labelled}),
        "answers": {answer: _answer([j for j in labelled if j.answer == answer]) for answer in ANSWERS},
        "preference": _preference([j for j in labelled if j.answer == "preference"]),
        "agreement": _agreement([j for j in labelled if j.answer in ANSWERS]),
        "comments": sum(bool(j.comment) for j in here),
        "notes": notes,
    }


def labels_used(answers: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that any of a summary's `answers` has, besides `correct`, of which the share is told."""
    counts = [part["labels"] for part in answers.values()]
    return tuple(name for name in counts[0] if name != "correct" and any(count[name] for count in counts))


def _sample(labelled: Iterable[Judgement], whole: bool) -> str:
    orders = {j.order for j in labelled}
    if not orders:
        return "none"
    if whole:
        return "all"
    return next(iter(orders)) if len(orders) == 1 else "mixed"


def _by_row(judgements: Iterable[Judgement]) -> dict[str, str]:
    """The label of most reviewers, by row."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for j in judgements:
        votes[j.row][j.label or ""] += 1
    decided = {}
    for row, count in votes.items():
        (first, n), *others = count.most_common(2)
        decided[row] = DISPUTED if others and others[0][1] == n else first
    return decided


def _answer(judgements: list[Judgement]) -> dict[str, Any]:
    decided = _by_row(judgements)
    labels = Counter(decided.values())
    bounds = wilson(labels["correct"], len(decided))
    return {
        "judged": len(decided),
        "labels": {label: labels[label] for label in (*LABELS, DISPUTED)},
        "correct": {
            "share": labels["correct"] / len(decided) if decided else None,
            "low": bounds[0] if bounds else None,
            "high": bounds[1] if bounds else None,
        },
    }


def _preference(judgements: list[Judgement]) -> dict[str, int]:
    votes = Counter(_by_row(judgements).values())
    return {kind: votes[kind] + (votes[DISPUTED] if kind == "tie" else 0) for kind in PREFERENCES}


def _agreement(judgements: list[Judgement]) -> list[dict[str, Any]]:
    said: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for j in judgements:
        said[j.reviewer][j.row, j.answer] = j.label or ""
    found = []
    for first, second in combinations(sorted(said), 2):
        both = sorted(set(said[first]) & set(said[second]))
        agreement = cohen([said[first][p] for p in both], [said[second][p] for p in both])
        if agreement is not None:
            found.append(
                {
                    "reviewers": [first, second],
                    "items": agreement.items,
                    "observed": agreement.observed,
                    "expected": agreement.expected,
                    "kappa": agreement.kappa,
                }
            )
    return found
