"""A model from S3 onto disk: parallel ranges written into place, checked against the manifest, resumed after a cut."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.flock import one_at_a_time
from model_runtime.manifest import NAME, Entry, parse_manifest, safe_path, sha256_of
from model_runtime.progress import Bytes

PART_BYTES = 32 << 20
"""Bytes of one ranged request: large enough that S3's latency (about 0.1 s) is small beside it."""
WORKERS = 16
_TRIES = 4
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx")
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch_s3` did. `resumed_bytes` were there already; `verified`: every file's SHA-256 was compared."""

    folder: Path
    files: int
    total_bytes: int
    downloaded_bytes: int
    resumed_bytes: int
    verified: bool


def is_s3(location: str) -> bool:
    return location.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and prefix (ending in a slash, or empty) of `s3://bucket/prefix`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not is_s3(uri) or not bucket:
        raise ModelError(f"{uri!r} is no S3 location; write s3://BUCKET/PREFIX")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def wanted_files(paths: Iterable[str]) -> set[str]:
    """Those of a model's files that loading needs: where safetensors are, pickles and other frameworks' are not."""
    listed = set(paths)
    if any(p.endswith(".safetensors") for p in listed):
        listed = {p for p in listed if not p.endswith(_PICKLES)}
    return listed


def fetch_s3(
    uri: str,
    folder: Path,
    *,
    client: Any = None,
    progress: Bytes | None = None,
    manifest_sha256: str = "",
    workers: int = WORKERS,
    part_bytes: int = PART_BYTES,
) -> Fetched:
    """Bring every file under the S3 prefix `uri` into `folder`.

    With a `manifest.json` under the prefix its files are fetched and their SHA-256 compared, and it is written into
    `folder` last; without one the files are those that S3 lists, and only their sizes can be compared (`verified` is
    False). `manifest_sha256` is the manifest's own SHA-256 where it is known: another manifest, or none, is refused.
    A file stands under its name only when it is whole. What an earlier, cut run has written is kept: finished ranges
    are noted beside the file. A process that wants the same folder waits, and finds the files there. Raises
    `ModelError` when the prefix is empty, the disk too small, or a file damaged.
    """
    bucket, prefix = split_s3(uri)
    client = client or _client(workers)
    entries, manifest = _entries(client, bucket, prefix, uri, manifest_sha256)
    folder.mkdir(parents=True, exist_ok=True)
    # An engine starts a worker for each GPU, and all want the weights.
    with one_at_a_time(folder):
        return _bring(client, bucket, prefix, uri, entries, manifest, folder, progress, workers, part_bytes)


def _bring(
    client: Any,
    bucket: str,
    prefix: str,
    uri: str,
    entries: tuple[Entry, ...],
    manifest: bytes | None,
    folder: Path,
    progress: Bytes | None,
    workers: int,
    part_bytes: int,
) -> Fetched:
    if manifest is not None:
        (folder / NAME).unlink(missing_ok=True)  # until all is there the folder must not be taken for whole
    jobs = [_File(client, bucket, prefix, entry, folder, part_bytes) for entry in entries]
    meter = _Meter(sum(e.size_bytes for e in entries), progress)
    for job in jobs:
        job.look(meter)
    missing = meter.total - meter.there
    free = shutil.disk_usage(folder).free
    if missing + _SPARE_BYTES > free:
        raise ModelError(
            f"{uri} needs {missing:,} more bytes on the disk of {folder}, which has {free:,} free; use a larger volume"
        )
    resumed = meter.there
    _run([(job, start) for job in jobs for start in job.todo], meter, workers)
    for job in jobs:
        job.finish()
    if manifest is not None:
        draft = folder / f"{NAME}.tmp"
        draft.write_bytes(manifest)
        draft.replace(folder / NAME)
    return Fetched(folder, len(jobs), meter.total, meter.there - resumed, resumed, manifest is not None)


def _client(workers: int) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", config=Config(max_pool_connections=workers, retries={"mode": "adaptive", "max_attempts": 6})
    )


def _entries(
    client: Any, bucket: str, prefix: str, uri: str, manifest_sha256: str
) -> tuple[tuple[Entry, ...], bytes | None]:
    """What to fetch, and the manifest that says so, None where there is none."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        listed = {
            item["Key"][len(prefix) :]: int(item["Size"])
            for page in pages
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        }
        if NAME in listed:
            manifest = client.get_object(Bucket=bucket, Key=prefix + NAME)["Body"].read()
            found = hashlib.sha256(manifest).hexdigest()
            if manifest_sha256 and found != manifest_sha256:
                raise ModelError(
                    f"{uri}/{NAME} has SHA-256 {found[:12]}…, expected is {manifest_sha256[:12]}…; it was written by "
                    "someone else or at another time: upload the folder again"
                )
            return parse_manifest(manifest.decode("utf-8", "replace"), f"{uri}/{NAME}"), manifest
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{uri} cannot be read: {error}; check the name, the region and the permissions") from error
    if not listed:
        raise ModelError(f"{uri} holds no files; check the bucket and the prefix")
    if manifest_sha256:
        raise ModelError(f"{uri} has no {NAME}, so it cannot be checked: it is incomplete; upload the folder again")
    keep = wanted_files(listed)
    return tuple(Entry(safe_path(p, uri), size) for p, size in sorted(listed.items()) if p in keep), None


class _Meter:
    """Bytes that are there of the bytes wanted."""

    def __init__(self, total: int, progress: Bytes | None) -> None:
        self.total = total
        self.there = 0
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.there += size
            if self._progress is not None:
                self._progress(self.there, self.total)


class _File:
    """One file on its way: `PATH.part` holds the bytes, `PATH.part.ranges` the starts of the ranges that are whole."""

    def __init__(self, client: Any, bucket: str, prefix: str, entry: Entry, folder: Path, part_bytes: int) -> None:
        self.client, self.bucket, self.key = client, bucket, prefix + entry.path
        self.entry = entry
        self.target = folder / entry.path
        self.part = self.target.with_name(self.target.name + ".part")
        self.ranges = self.target.with_name(self.target.name + ".part.ranges")
        self.part_bytes = part_bytes
        self.todo: list[int] = []
        self.whole = False
        self.etag = ""
        self._lock = threading.Lock()

    def look(self, meter: _Meter) -> None:
        """Find out what is there already and what is to do."""
        size = self.entry.size_bytes
        if self.target.is_file() and self.target.stat().st_size == size:
            # Without a checksum the size is all that can be compared; a file gets its name only when it is whole.
            if not self.entry.sha256 or sha256_of(self.target) == self.entry.sha256:
                self.whole = True
                meter.add(size)
                return
            self.target.unlink()
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.etag = self._head(size)
        head = f"{self.etag} {size} {self.part_bytes}"
        lines = self.ranges.read_text(encoding="utf-8").splitlines() if self.ranges.is_file() else []
        starts = range(0, size, self.part_bytes)
        if lines and lines[0] == head and self.part.is_file() and self.part.stat().st_size == size:
            done = {int(line) for line in lines[1:] if line.isdigit()} & set(starts)
        else:
            done = set()
            with self.part.open("wb") as file:
                file.truncate(size)
            self.ranges.write_text(head + "\n", encoding="utf-8")
        for start in done:
            meter.add(self._length(start))
        self.todo = [start for start in starts if start not in done]

    def _head(self, size: int) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            head = self.client.head_object(Bucket=self.bucket, Key=self.key)
        except (ClientError, BotoCoreError) as error:
            raise ModelError(f"s3://{self.bucket}/{self.key} cannot be read: {error}") from error
        if int(head["ContentLength"]) != size:
            raise ModelError(
                f"s3://{self.bucket}/{self.key} has {head['ContentLength']:,} bytes where {size:,} are expected; "
                "upload the model again"
            )
        return str(head["ETag"])

    def _length(self, start: int) -> int:
        return min(self.part_bytes, self.entry.size_bytes - start)

    def get(self, start: int, meter: _Meter) -> None:
        """Fetch one range into its place; a range counts as done when all of its bytes are written."""
        from botocore import exceptions

        length = self._length(start)
        for attempt in range(1, _TRIES + 1):
            try:
                body = self.client.get_object(
                    Bucket=self.bucket,
                    Key=self.key,
                    Range=f"bytes={start}-{start + length - 1}",
                    IfMatch=self.etag,
                )["Body"].read()
                if len(body) != length:
                    raise EOFError(f"{len(body)} of {length} bytes")
                break
            except exceptions.ClientError as error:
                if error.response["Error"]["Code"] in ("412", "PreconditionFailed"):
                    raise ModelError(
                        f"s3://{self.bucket}/{self.key} changed while it was fetched; try again"
                    ) from error
                raise ModelError(f"s3://{self.bucket}/{self.key}: {error}") from error
            except (
                EOFError,
                exceptions.ConnectionError,
                exceptions.HTTPClientError,
                exceptions.ResponseStreamingError,
            ) as error:
                if attempt == _TRIES:
                    raise ModelError(
                        f"s3://{self.bucket}/{self.key} broke off {_TRIES} times ({error}); run it again to go on"
                    ) from error
        with self._lock:
            with self.part.open("r+b") as file:
                file.seek(start)
                file.write(body)
            with self.ranges.open("a", encoding="utf-8") as notes:
                notes.write(f"{start}\n")
        meter.add(length)

    def finish(self) -> None:
        """Compare the checksum and give the file its name."""
        if self.whole:
            return
        if self.entry.sha256:
            found = sha256_of(self.part)
            if found != self.entry.sha256:
                self.part.unlink()
                self.ranges.unlink()
                raise ModelError(
                    f"s3://{self.bucket}/{self.key} arrived with SHA-256 {found[:12]}…, its manifest says "
                    f"{self.entry.sha256[:12]}…; the upload is damaged or was changed: upload the model again"
                )
        self.part.replace(self.target)
        self.ranges.unlink()


def _run(parts: list[tuple[_File, int]], meter: _Meter, workers: int) -> None:
    """Fetch all parts; the first failure stops what has not begun and is raised."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="fetch")
    try:
        futures = [pool.submit(job.get, start, meter) for job, start in parts]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
