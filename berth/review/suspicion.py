"""Which answers to read first: far from the reference or the input, oddly long, repeating, with numbers from nowhere.

Overlap and length are held against the rest of the test set, not against a fixed bound, because a translation shares
no word with its input and a headline is short by nature: `z = (median - value) / (1.4826 × MAD)`, the robust z-score
(Iglewicz and Hoaglin, 1993), counts beyond 1 and is a reason beyond 2.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from berth.review.predictions import Prediction

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
REASON_AT = 2.0
MOST = 6.0
"""The largest share of one signal in the score."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How suspicious an answer is (0: not at all) and why, in words."""

    score: float
    reasons: tuple[str, ...]


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def overlap(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of common words, as ROUGE-1's: `2 × common / (words + words)`; 1 where both are empty."""
    if not answer and not reference:
        return 1.0
    common = (Counter(answer) & Counter(reference)).total()
    return 2 * common / (len(answer) + len(reference))


def coverage(answer: Sequence[str], source: Sequence[str]) -> float:
    """Share of the answer's words that the input has; 1 for an empty answer."""
    known = set(source)
    return sum(word in known for word in answer) / len(answer) if answer else 1.0


def repetition(answer: Sequence[str]) -> float:
    """Share of the answer's three-word runs that stood there before."""
    runs = list(zip(answer, answer[1:], answer[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def suspicions(rows: Sequence[Prediction]) -> list[Suspicion]:
    """One for each row, in the rows' order."""
    answers = [words(row.answer) for row in rows]
    sources = [words(row.input) for row in rows]
    references = [None if row.reference is None else words(row.reference) for row in rows]
    near = [None if r is None else overlap(a, r) for a, r in zip(answers, references, strict=True)]
    covered = [coverage(a, s) for a, s in zip(answers, sources, strict=True)]
    longer = [
        math.log((len(a) + 1) / (len(s if r is None else r) + 1))
        for a, s, r in zip(answers, sources, references, strict=True)
    ]
    z_near, z_covered = _z(near, 0.05), _z(covered, 0.05)
    # Against a reference and against an input lengths differ by nature: each is held against its own kind.
    with_reference, without = (
        _z([value if (r is None) is absent else None for value, r in zip(longer, references, strict=True)], 0.1)
        for absent in (False, True)
    )
    z_longer = [without[i] if r is None else with_reference[i] for i, r in enumerate(references)]
    found = []
    for i, row in enumerate(rows):
        if not answers[i]:
            found.append(Suspicion(2 * MOST, ("empty answer",)))
            continue
        score, reasons = 0.0, []
        for z, said in (
            (-z_near[i], f"far from the reference: overlap {near[i] or 0:.2f}"),
            (-z_covered[i], f"not from the input: {covered[i]:.0%} of its words"),
            (z_longer[i], "longer than the others"),
            (-z_longer[i], "shorter than the others"),
        ):
            score += min(max(z - 1, 0), MOST)
            if z > REASON_AT:
                reasons.append(said)
        for reason in _odd(row, answers[i], sources[i]):
            score += REASON_AT
            reasons.append(reason)
        found.append(Suspicion(round(score, 2), tuple(reasons)))
    return found


def _odd(row: Prediction, answer: list[str], source: list[str]) -> list[str]:
    reasons = list(row.signs)
    known = set(_NUMBER.findall(row.input)) | set(_NUMBER.findall(row.reference or ""))
    numbers = [n for n in dict.fromkeys(_NUMBER.findall(row.answer)) if n not in known]
    if numbers:
        reasons.append(f"numbers from nowhere: {', '.join(numbers[:3])}")
    if len(answer) >= 12 and repetition(answer) > 0.3:
        reasons.append("repeats itself")
    if len(answer) >= 5 and answer == source:
        reasons.append("copies the input")
    return reasons


def _z(values: Sequence[float | None], least: float) -> list[float]:
    """Robust z-scores; `least` keeps a test set whose values are all alike from making outliers of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return [0.0] * len(values)
    middle = median(known)
    spread = max(1.4826 * median(abs(value - middle) for value in known), least)
    return [0.0 if value is None else (value - middle) / spread for value in values]
