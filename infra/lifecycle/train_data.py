"""The data set of a run: examined before a GPU is paid for, and laid out as its nodes fetch it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.data.check import Window
from model_runtime.data.check import check as examine
from model_runtime.data.dataset import read_dataset
from model_runtime.data.lengths import counter
from model_runtime.errors import ModelError
from model_runtime.manifest import NAME, sha256_of, write_manifest
from sizing.errors import UserError
from sizing.models.facts import ModelFacts

_NAMES = {"all": "train"}
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Staged:
    """`folder` holds train.* (validation.*, test.* where given) and their manifest, whose SHA-256 names the data set.

    `parts`: examples by part. `notes`: what the check warns of.
    """

    source: str
    folder: Path
    sha256: str
    form: str
    parts: dict[str, int]
    rows: int
    notes: tuple[str, ...]

    def prefix(self, stack: str) -> str:
        """Where it lies in the artifact bucket: by its content, so that another data set never stands in its place."""
        return f"datasets/{stack}/{self.sha256[:_DIGITS]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "sha256": self.sha256,
            "form": self.form,
            "rows": self.rows,
            "parts": self.parts,
            "notes": list(self.notes),
        }


def stage(data: str, folder: Path, model: ModelFacts, *, client: Any = None) -> Staged:
    """Examine `data` (a file, a folder with train.*, or s3://BUCKET/KEY) and copy its files to `folder`, new or empty.

    Raises `UserError` where nothing can be read, and where rows cannot be used, with the first of them.
    """
    try:
        found = read_dataset(data, client=client)
        window = Window(model.context_window, model.architecture == "decoder-only", model.name)
        report = examine(found.tables, found.parts, counter(None), window)
    except ModelError as error:
        raise UserError(f"--data {data}: {error}") from error
    if report.errors:
        bad = [(name, p) for name, t in found.tables.items() for p in t.problems if p.severity == "error"]
        name, first = bad[0]
        where = f"{found.tables[name].location}, line {first.line}: {first.message}"
        raise UserError(
            f"--data {data}: {report.errors:,} rows cannot be used ({where}); `berth data check {data}` lists them: "
            "mend them or leave them out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.tables.items():
        shutil.copyfile(table.path, folder / f"{_NAMES.get(name, name)}{table.path.suffix.lower()}")
    write_manifest(folder)
    return Staged(
        data,
        folder,
        sha256_of(folder / NAME),
        found.form,
        {name: len(part) for name, part in found.parts.items()},
        sum(table.rows for table in found.tables.values()),
        _notes(report.document),
    )


def _notes(document: dict[str, Any]) -> tuple[str, ...]:
    said = []
    for key, words in (
        ("duplicates", "rows of {part} say what an earlier one says"),
        ("leaks", "rows of {part} stand in the training part as well"),
        ("personal", "rows of {part} may hold personal data"),
    ):
        for found in document[key]:
            part = found.get("part", "the data set")
            said.append(f"{found['rows']:,} {words.format(part=part)}")
    return tuple(said)
