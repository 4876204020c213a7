"""A data set whole: its files, its parts, and the split that is kept for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_runtime.data.examples import Example, Form
from model_runtime.data.read import Table, files_of, local_file, read_table
from model_runtime.data.split import Split, make_split, read_split, write_split
from model_runtime.errors import ModelError


@dataclass(frozen=True, slots=True)
class DataSet:
    """`parts`: examples of train, validation and test (those that there are). `split` where one file was divided."""

    form: Form
    tables: dict[str, Table]
    parts: dict[str, tuple[Example, ...]]
    split: Split | None

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file, by its name among `tables`."""
        return {name: table.sha256 for name, table in self.tables.items()}

    @property
    def errors(self) -> int:
        return sum(p.severity == "error" for table in self.tables.values() for p in table.problems)


def read_dataset(
    data: str,
    *,
    validation: str = "",
    test: str = "",
    form: str = "auto",
    names: Mapping[str, str] | None = None,
    split_file: Path | None = None,
    seed: int = 0,
    validation_share: float = 0.05,
    test_share: float = 0.1,
    cache: Path | None = None,
    client: Any = None,
) -> DataSet:
    """Read `data` (a file, a folder with train.*, or S3) and the files for `validation` and `test` where given.

    What has no file of its own is split off the training file. With `split_file` the split that is kept there holds,
    and one that is made is written there. Raises `ModelError`.
    """
    paths: dict[str, str] = {name: str(path) for name, path in files_of(data, cache=cache, client=client).items()}
    for name, location in (("validation", validation), ("test", test)):
        if location:
            paths[name] = str(local_file(location, cache=cache, client=client))
    main = "all" if "all" in paths else "train"
    shown = {main: data if main == "all" else paths[main], "validation": validation, "test": test}
    tables: dict[str, Table] = {}
    for name in (main, "validation", "test"):
        if name in paths:
            chosen = form if name == main else tables[main].form
            table = read_table(paths[name], form=chosen, names=names)
            tables[name] = replace(table, location=shown[name] or paths[name])
    table = tables[main]
    if not table.examples:
        first = table.problems[0]
        raise ModelError(f"{table.location}: no row can be used; line {first.line}: {first.message}")
    shares = (
        0.0 if "validation" in tables else validation_share,
        0.0 if "test" in tables else test_share,
    )
    split = _split(table, split_file, seed, shares)
    parts = {name: split.of(name, table.examples) for name in ("train", "validation", "test")}
    for name in ("validation", "test"):
        if name in tables:
            parts[name] = tables[name].examples
    return DataSet(table.form, tables, {name: part for name, part in parts.items() if part}, split)


def _split(table: Table, path: Path | None, seed: int, shares: tuple[float, float]) -> Split:
    if path is not None and path.is_file():
        return read_split(path, table)
    split = make_split(table, seed=seed, validation_share=shares[0], test_share=shares[1])
    if path is not None:
        write_split(split, path)
    return split
