"""Rows of JSON lines, CSV and Parquet with their line numbers, from disk or from S3."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.data.examples import Example, Form, Problem, example_of, form_of
from model_runtime.errors import ModelError
from model_runtime.fetch import is_s3
from model_runtime.manifest import NAME, sha256_of

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev"),
    "test": ("test",),
}
"""The split that a file of this name is, in a folder of files."""
_LONGEST_FIELD = 1 << 30


@dataclass(frozen=True, slots=True)
class Table:
    """The examples of one file and what is wrong with its other rows. `rows` counts both; `sha256` is the file's."""

    location: str
    path: Path
    form: Form
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    rows: int
    sha256: str
    columns: tuple[str, ...]


def read_table(
    location: str,
    *,
    form: str = "auto",
    names: Mapping[str, str] | None = None,
    cache: Path | None = None,
    client: Any = None,
) -> Table:
    """Read a file. `form` auto: the first whose columns the first readable row has; `names`: {"input": "article"}.

    Raises `ModelError` where nothing can be read at all; a bad row becomes a `Problem` of the table.
    """
    path = local_file(location, cache=cache, client=client)
    names = names or {}
    chosen: Form | None = None if form == "auto" else _form(form)
    examples: list[Example] = []
    problems: list[Problem] = []
    columns: tuple[str, ...] = ()
    count = 0
    for line, row in rows_of(path):
        count += 1
        if isinstance(row, Problem):
            problems.append(row)
            continue
        if not columns:
            columns = tuple(map(str, row))
            chosen = chosen or form_of(row, names, location)
        found = example_of(row, line, chosen or "causal", names)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            examples.append(found)
    if not count:
        raise ModelError(f"{location} holds no rows")
    if chosen is None:
        raise ModelError(f"{location}: no row can be read; line {problems[0].line}: {problems[0].message}")
    return Table(location, path, chosen, tuple(examples), tuple(problems), count, sha256_of(path), columns)


def _form(name: str) -> Form:
    from model_runtime.data.examples import FORMS

    for form in FORMS:
        if name == form:
            return form
    raise ModelError(f"form is {name!r}; one of auto, {', '.join(FORMS)}")


def kind_of(location: str) -> str:
    """jsonl, csv or parquet, by the name. Raises `ModelError` for others."""
    suffix = Path(location).suffix.lower()
    if suffix not in KINDS:
        raise ModelError(f"{location} is no data file by its name; one of {', '.join(KINDS)}")
    return KINDS[suffix]


def local_file(location: str, *, cache: Path | None = None, client: Any = None) -> Path:
    """The file on this machine; one in S3 is fetched whole, once for each of its versions. Raises `ModelError`."""
    kind_of(location)
    if not is_s3(location):
        path = Path(location).expanduser()
        if not path.is_file():
            raise ModelError(f"{location} is no file here; give a file or s3://BUCKET/KEY")
        return path
    return _from_s3(location, cache, client)


def _from_s3(location: str, cache: Path | None, client: Any) -> Path:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = location.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ModelError(f"{location!r} is no S3 location; write s3://BUCKET/KEY")
    client = client or boto3.client("s3")
    root = cache or Path(os.environ.get("BERTH_CACHE_DIR") or Path.home() / ".cache" / "berth") / "data"
    try:
        head = client.head_object(Bucket=bucket, Key=key)
        etag = str(head["ETag"]).strip('"')
        target = root / bucket / etag / Path(key).name
        if target.is_file() and target.stat().st_size == head["ContentLength"]:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.{os.getpid()}.part")
        client.download_file(bucket, key, str(draft))
        draft.replace(target)
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{location} cannot be read: {error}; check the name, the region and permissions") from error
    return target


def files_of(location: str, *, cache: Path | None = None, client: Any = None) -> dict[str, Path]:
    """{"train": …, "validation": …, "test": …} of a folder; a single file is {"all": …}. Raises `ModelError`."""
    path = Path(location).expanduser()
    if is_s3(location) or not path.is_dir():
        return {"all": local_file(location, cache=cache, client=client)}
    found: dict[str, Path] = {}
    files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in KINDS and p.name != NAME)
    for file in files:
        for split, words in SPLIT_NAMES.items():
            if file.stem.lower() in words:
                if split in found:
                    raise ModelError(f"{path} has two files for {split}: {found[split].name} and {file.name}")
                found[split] = file
    if "train" in found:
        return found
    if len(files) == 1:
        return {"all": files[0]}
    listed = ", ".join(f.name for f in files[:6]) or "none"
    raise ModelError(f"{path} has no train.jsonl, train.csv or train.parquet and not one data file alone: {listed}")


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """Every row of a file with its line number, or why it cannot be read."""
    kind = kind_of(path.name)
    if kind == "parquet":
        return _parquet(path)
    return _jsonl(path) if kind == "jsonl" else _csv(path)


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                value = json.loads(text)
            except UnicodeDecodeError as error:
                yield number, Problem(number, "encoding", f"is no UTF-8 at byte {error.start + 1}")
                continue
            except (ValueError, RecursionError) as error:
                if number == 1 and raw.lstrip().startswith(b"["):
                    raise ModelError(f"{path} is one JSON array; write one object a line (JSON lines)") from error
                yield number, Problem(number, "json", f"is no JSON: {error}")
                continue
            if isinstance(value, list) and number == 1:
                raise ModelError(f"{path} is one JSON array; write one object a line (JSON lines)")
            if not isinstance(value, dict):
                yield number, Problem(number, "json", f"is {type(value).__name__}, not an object")
                continue
            yield number, value


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise ModelError(f"{path} line 1: a column stands twice in {', '.join(header)}")
            before = reader.line_num
            for fields in reader:
                line, before = before + 1, reader.line_num
                if not fields:
                    continue
                if len(fields) != len(header):
                    yield line, Problem(line, "fields", f"has {len(fields)} fields, the header {len(header)}")
                    continue
                yield line, dict(zip(header, fields, strict=True))
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is no UTF-8 (byte {error.start + 1} of a block); convert it first") from error
    except csv.Error as error:
        raise ModelError(f"{path} is no CSV after line {before}: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ModelError(f"{path} is Parquet, which needs pyarrow: pip install 'berth[runtime]'") from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise ModelError(f"{path} cannot be read as Parquet after row {number}: {str(error)[:200]}") from error
