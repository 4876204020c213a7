"""Train, validation and test: the same rows every time, and copies of a row all on one side.

Examples that ask the same (but for case, punctuation and white space) are one group; groups are ordered by the SHA-256
of the seed and their text, and the first make the test set, the next the validation set. Classes are split one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_runtime.data.examples import Example, normalised
from model_runtime.data.read import Table
from model_runtime.errors import ModelError

FILE = "split.json"
FORMAT = "berth-split/1"
NAMES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """Line numbers of each part, ascending. `sha256` is that of the file that was split."""

    sha256: str
    seed: int
    validation_share: float
    test_share: float
    lines: dict[str, tuple[int, ...]]

    def of(self, name: str, examples: Iterable[Example]) -> tuple[Example, ...]:
        """The examples of the part `name`, in the file's order."""
        wanted = set(self.lines[name])
        return tuple(e for e in examples if e.line in wanted)


def make_split(table: Table, *, seed: int = 0, validation_share: float = 0.05, test_share: float = 0.1) -> Split:
    """Split the usable rows of `table`. A share above 0 gets one group at least. Raises `ModelError`."""
    for name, share in (("validation", validation_share), ("test", test_share)):
        if not 0 <= share < 1:
            raise ModelError(f"the share for {name} is {share:g}; it must be 0 or above and below 1")
    if validation_share + test_share >= 1:
        raise ModelError(f"{validation_share:g} for validation and {test_share:g} for test leave nothing to train with")
    strata: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    labels: dict[str, str] = {}
    for example in table.examples:
        key = normalised(example.asked)
        label = labels.setdefault(key, example.target if example.form == "classification" else "")
        strata[label][key].append(example.line)
    lines: dict[str, list[int]] = {name: [] for name in NAMES}
    for label in sorted(strata):
        ordered = sorted(strata[label], key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
        tested = _count(len(ordered), test_share)
        held = _count(len(ordered) - tested, validation_share * len(ordered) / max(1, len(ordered) - tested))
        for i, key in enumerate(ordered):
            name = "test" if i < tested else "validation" if i < tested + held else "train"
            lines[name] += strata[label][key]
    if not lines["train"]:
        raise ModelError(f"{table.location} has {len(table.examples)} usable rows: too few to split; add data")
    found = {name: tuple(sorted(rows)) for name, rows in lines.items()}
    return Split(table.sha256, seed, validation_share, test_share, found)


def _count(groups: int, share: float) -> int:
    """Groups for a share: rounded, one at least where there are three to choose from, never all."""
    if share <= 0 or groups < 2:
        return 0
    least = 1 if groups >= 3 else 0
    return min(groups - 1, max(least, math.floor(groups * share + 0.5)))


def write_split(split: Split, path: Path) -> Path:
    """Write `path`: lines as ranges, so that the file stays small."""
    document = {
        "format": FORMAT,
        "sha256": split.sha256,
        "seed": split.seed,
        "validation_share": split.validation_share,
        "test_share": split.test_share,
        "lines": {name: _ranges(split.lines[name]) for name in NAMES},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_split(path: Path, table: Table) -> Split:
    """The split kept in `path`. Raises `ModelError` where it is of other data."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ModelError(f"{path}: format is {found['format']!r}; this Berth reads {FORMAT}")
        lines = {
            name: tuple(n for first, last in found["lines"][name] for n in range(first, last + 1)) for name in NAMES
        }
        split = Split(
            str(found["sha256"]),
            int(found["seed"]),
            float(found["validation_share"]),
            float(found["test_share"]),
            lines,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no split ({type(error).__name__}: {error}); make it anew") from error
    if split.sha256 != table.sha256:
        raise ModelError(
            f"{path} splits a file with SHA-256 {split.sha256[:12]}…, {table.location} has {table.sha256[:12]}…: "
            "the data changed since; keep them together, or delete the split to make another"
        )
    return split


def _ranges(lines: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for line in lines:
        if found and found[-1][1] == line - 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return found
