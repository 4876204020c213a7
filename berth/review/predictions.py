"""Predictions: one JSON object a line, with `input`, `reference`, `base`, `tuned` and `metrics`.

What `berth evaluate` writes is read as it is: there `target` is the reference, `base_prediction` and `prediction` are
the answers. What `berth feedback` writes has `feedback` as well: a list of what people said of the answer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizing.errors import UserError

_TEXTS = {"input": "input", "reference": "target", "base": "base_prediction", "tuned": "prediction"}
"""Each text and the name that `berth evaluate` gives it."""
GOOD_RATING = 4
"""Of 5; what is rated below is read before what is not."""
_PROBABILITIES = ("base_probability", "model_probability")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row. `key` tells it from every other, whatever the order of the file; texts that are absent are None."""

    key: str
    index: int
    id: str
    input: str
    reference: str | None
    base: str | None
    tuned: str | None
    metrics: dict[str, float]
    signs: tuple[str, ...] = ()
    """What the file itself says against the answer."""
    feedback: tuple[dict[str, Any], ...] = ()
    """What people said of the answer, the oldest first: `rating` (1 to 5), `comment`, `corrected_answer`, `time`."""

    @property
    def answer(self) -> str:
        """The answer that is under suspicion: the fine-tuned one, else the base's."""
        return self.tuned if self.tuned is not None else self.base or ""


def read_predictions(path: Path) -> list[Prediction]:
    """Every row of a file. Raises `UserError` naming the line that is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    return parse_predictions(text, str(path))


def parse_predictions(text: str, path: str) -> list[Prediction]:
    """Every row of the text of a file called `path`. Raises `UserError` naming the line that is none."""
    seen: Counter[str] = Counter()
    rows: list[Prediction] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        rows.append(_row(path, number, line, len(rows), seen))
    if not rows:
        raise UserError(f"{path} holds no predictions; each line is an object with input and base or tuned")
    return rows


def _row(path: str, number: int, line: str, index: int, seen: Counter[str]) -> Prediction:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON ({error}); each line is one object") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is no object; it needs input and base or tuned")
    texts = {}
    for name, other in _TEXTS.items():
        value = row.get(other) if row.get(name) is None else row[name]
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {name} is no text but {type(value).__name__}")
        texts[name] = value
    if texts["input"] is None or (texts["base"] is None and texts["tuned"] is None):
        has = ", ".join(str(key) for key in list(row)[:8]) or "nothing"
        raise UserError(f"{where} needs input, and base or tuned (or prediction); it has {has}")
    key = hashlib.sha256(json.dumps(list(texts.values())).encode()).hexdigest()[:16]
    seen[key] += 1
    if seen[key] > 1:
        key = f"{key}-{seen[key]}"
    given = row.get("id", f"line {row['line']}" if "line" in row else None)
    return Prediction(
        key,
        index,
        str(given) if isinstance(given, str | int) else "",
        texts["input"],
        texts["reference"],
        texts["base"],
        texts["tuned"],
        dict(_numbers(row.get("metrics"))) | dict(_numbers({k: row.get(k) for k in _PROBABILITIES})),
        _signs(row),
        tuple(_feedback(row.get("feedback"))),
    )


def _feedback(given: Any) -> Iterator[dict[str, Any]]:
    """What is known of each piece; anything else in the list is passed over."""
    for piece in given if isinstance(given, list) else ():
        if not isinstance(piece, dict):
            continue
        kept: dict[str, Any] = {
            name: piece[name] for name in ("time", "comment", "corrected_answer") if isinstance(piece.get(name), str)
        }
        rating = piece.get("rating")
        if isinstance(rating, int) and not isinstance(rating, bool) and 1 <= rating <= 5:
            kept["rating"] = rating
        if kept.keys() - {"time"}:
            yield kept


def _signs(row: dict[str, Any]) -> tuple[str, ...]:
    side = "base" if row.get("prediction") is None else "model"
    found = ["cut at the limit of tokens"] if row.get(f"{side}_finish_reason") == "length" else []
    lost = row.get(f"{side}_truncated_tokens")
    if isinstance(lost, int) and lost > 0:
        found.append(f"{lost:,} tokens of the input did not fit")
    said = list(_feedback(row.get("feedback")))
    worst = min((f["rating"] for f in said if "rating" in f), default=GOOD_RATING)
    if worst < GOOD_RATING:
        found.append(f"rated {worst} of 5 by its reader")
    if any("corrected_answer" in f for f in said):
        found.append("corrected by its reader")
    return tuple(found)


def _numbers(metrics: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Metrics as flat names: `{"tuned": {"rougeL": 0.3}}` -> `tuned rougeL`. What is no number is passed over."""
    if isinstance(metrics, dict):
        for name, value in metrics.items():
            if isinstance(value, dict):
                yield from _numbers(value, f"{prefix}{name} ")
            elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield f"{prefix}{name}", float(value)
