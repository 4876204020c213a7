"""Predictions: one JSON object a line, with `input`, `reference`, `base`, `tuned` and `metrics`.

What `berth evaluate` writes is read as it is: there `target` is the reference, `base_prediction` and `prediction` are
the answers.
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
    seen: Counter[str] = Counter()
    rows: list[Prediction] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        rows.append(_row(path, number, line, len(rows), seen))
    if not rows:
        raise UserError(f"{path} holds no predictions; each line is an object with input and base or tuned")
    return rows


def _row(path: Path, number: int, line: str, index: int, seen: Counter[str]) -> Prediction:
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
    )


def _signs(row: dict[str, Any]) -> tuple[str, ...]:
    side = "base" if row.get("prediction") is None else "model"
    found = ["cut at the limit of tokens"] if row.get(f"{side}_finish_reason") == "length" else []
    lost = row.get(f"{side}_truncated_tokens")
    if isinstance(lost, int) and lost > 0:
        found.append(f"{lost:,} tokens of the input did not fit")
    return tuple(found)


def _numbers(metrics: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Metrics as flat names: `{"tuned": {"rougeL": 0.3}}` -> `tuned rougeL`. What is no number is passed over."""
    if isinstance(metrics, dict):
        for name, value in metrics.items():
            if isinstance(value, dict):
                yield from _numbers(value, f"{prefix}{name} ")
            elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield f"{prefix}{name}", float(value)
