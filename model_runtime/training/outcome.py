"""How an attempt ended, kept in a file: torchrun hands on no exit code of its processes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

FILE = "outcome.json"
Kind = Literal["done", "fits", "interrupted", "out-of-memory", "refused", "crashed"]
"""crashed: the processes ended without a word, which is what there being no file means."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`message`: the artifact's folder when done, else why in one line."""

    kind: Kind
    message: str


def write_outcome(output: Path, outcome: Outcome) -> None:
    draft = output / f"{FILE}.tmp"
    draft.write_text(json.dumps({"kind": outcome.kind, "message": outcome.message}) + "\n", encoding="utf-8")
    draft.replace(output / FILE)


def take_outcome(output: Path) -> Outcome | None:
    """The outcome of the attempt that has just ended, taken away so that it is not read twice; None for a crash."""
    path = output / FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    kind = found["kind"]
    if kind not in get_args(Kind):
        raise ValueError(f"{path}: kind is {kind!r}")
    return Outcome(kind, str(found["message"]))
