"""JSON lines below a prefix of a bucket, or in a file: each with its place, the bad ones named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.operations.clients import Client, asking
from sizing.errors import UserError

WORKERS = 8
ENDINGS = (".jsonl", ".jsonl.out", ".out")


@dataclass(frozen=True, slots=True)
class Line:
    """One JSON value and where it stands: `s3://bucket/key line 3`, or a file's line."""

    where: str
    value: Any


@dataclass
class Found:
    """What was read: good lines in order, what is wrong with the others, and how many objects held them."""

    lines: list[Line] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    objects: int = 0


def below(client: Client, region: str, bucket: str, prefix: str, since: datetime) -> Found:
    """Every line of the objects below `prefix/` that were written at or after `since`, by key.

    An object's last change is never before its newest line, so an older object holds nothing that is wanted. Raises
    `UserError` where the bucket is not there or may not be read.
    """
    s3 = client("s3")
    absent = f"the bucket {bucket} does not exist: bring up the shared stack first"
    with asking("s3:ListBucket", region, absent):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        keys = sorted(
            entry["Key"]
            for page in pages
            for entry in page.get("Contents", ())
            if entry["LastModified"] >= since and entry["Key"].endswith(ENDINGS)
        )

    def body(key: str) -> bytes:
        with asking("s3:GetObject", region, f"s3://{bucket}/{key} was removed while it was read; try again"):
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    found = Found(objects=len(keys))
    with ThreadPoolExecutor(WORKERS) as pool:
        for key, data in zip(keys, pool.map(body, keys), strict=True):
            _read(f"s3://{bucket}/{key}", data.split(b"\n"), found)
    return found


def in_file(path: Path) -> Found:
    """Every line of a file. Raises `UserError` where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    found = Found(objects=1)
    _read(str(path), data.split(b"\n"), found)
    return found


def in_journal(path: Path) -> Found:
    """Every line of a file, or of the segments of a journal's folder, the open one included. Raises `UserError`."""
    if not path.is_dir():
        return in_file(path)
    whole = Found()
    for part in sorted(path.glob("*.jsonl*")):
        found = in_file(part)
        whole.lines += found.lines
        whole.bad += found.bad
        whole.objects += 1
    return whole


def _read(where: str, lines: Iterable[bytes], found: Found) -> None:
    for number, line in _numbered(lines):
        place = f"{where} line {number}"
        try:
            found.lines.append(Line(place, json.loads(line.decode("utf-8"))))
        except (ValueError, RecursionError) as error:
            found.bad.append(f"{place}: no JSON ({str(error)[:80]})")


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())
