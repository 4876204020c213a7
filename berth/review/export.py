"""Predictions and judgements in one: a JSON line a row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from berth.review.judgements import Read
from berth.review.predictions import Prediction


def export(rows: Sequence[Prediction], read: Read, *, judged_only: bool = True) -> str:
    """Each row with the judgements that stand, as JSON lines; those without any only if `judged_only` is false."""
    by_row: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for judgement in read.latest().values():
        plain = asdict(judgement)
        by_row[plain.pop("row")].append(plain)
    lines = []
    for row in rows:
        found = by_row.get(row.key, [])
        if found or not judged_only:
            lines.append(json.dumps({**asdict(row), "judgements": found}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)
