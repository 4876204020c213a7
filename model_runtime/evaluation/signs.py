"""Signs that a person should read an answer: it repeats itself, is far too long or short, says what no input said."""

from __future__ import annotations

import re
from typing import Any

GRAM = 4
REPETITIVE = 0.3
"""Share of repeated four-word runs from which an answer counts as repetitive."""
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_SHORT = 4
"""Letters below which a word is taken for grammar, not content."""


def signs(text: str, source: str, reference: str, finish_reason: str) -> dict[str, Any]:
    """Of one answer: `repetition`, share of runs of four words that were said before; `length_ratio` to the reference
    in words; `novel_words`, share of the answer's content words that the input lacks; `novel_numbers`, numbers that the
    input lacks; `cut`: it ended at the limit of tokens.

    New words and numbers are a first hint of invention: a summary should have few, a translation has all.
    """
    words = [w.lower() for w in _WORD.findall(text)]
    runs = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    known = {w.lower() for w in _WORD.findall(source)}
    content = [w for w in words if len(w) >= _SHORT and not w.isdigit()]
    wanted = len(_WORD.findall(reference))
    given = set(_NUMBER.findall(source))
    return {
        "repetition": round(1 - len(set(runs)) / len(runs), 4) if runs else 0.0,
        "length_ratio": round(len(words) / wanted, 4) if wanted else None,
        "novel_words": round(sum(w not in known for w in content) / len(content), 4) if content else 0.0,
        "novel_numbers": sorted(set(_NUMBER.findall(text)) - given),
        "cut": finish_reason == "length",
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all answers: how many are empty of sense in which way, in percent."""
    count = len(found)
    ratios = sorted(s["length_ratio"] for s in found if s["length_ratio"] is not None)

    def percent(hits: int) -> float:
        return round(100 * hits / count, 2)

    return {
        "repetitive_percent": percent(sum(s["repetition"] >= REPETITIVE for s in found)),
        "cut_percent": percent(sum(s["cut"] for s in found)),
        "median_length_percent": round(100 * ratios[len(ratios) // 2], 1) if ratios else None,
        "novel_words_percent": round(100 * sum(s["novel_words"] for s in found) / count, 2),
        "novel_numbers_percent": percent(sum(bool(s["novel_numbers"]) for s in found)),
    }
