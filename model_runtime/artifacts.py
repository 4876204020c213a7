"""Folders handed over whole: verified against their manifest, uploaded in the background with the manifest last.

`python -m model_runtime.artifacts verify PREFIX` says whether a folder or an S3 prefix is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.fetch import is_s3, split_s3
from model_runtime.manifest import NAME, Entry, parse_manifest, sha256_of

PART_BYTES = 16 << 20
"""Size of a part, and the size from which a file goes up in parts; S3 takes at most 10,000 parts of a file."""
_MOST_PARTS = 10_000
_TRIES = 5
_FIRST_WAIT_S = 2.0
_CHUNK = 1 << 22
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` compared. `problems` is empty where everything is as the manifest says."""

    location: str
    files: int
    total_bytes: int
    problems: tuple[str, ...]
    manifest_sha256: str

    @property
    def whole(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "location": self.location,
            "whole": self.whole,
            "files": self.files,
            "bytes": self.total_bytes,
            "manifest_sha256": self.manifest_sha256 or None,
            "problems": list(self.problems),
        }


def verify(location: str, *, client: Any = None, sizes_only: bool = False) -> Verified:
    """Hold a folder or `s3://bucket/prefix` against its manifest, every byte; with `sizes_only`, sizes alone.

    Raises `ModelError` where the location cannot be read; what is missing, damaged or not listed becomes a problem.
    """
    if is_s3(location):
        return _verify_s3(location, client or _client(), sizes_only)
    folder = Path(location).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{location} is no folder here; give a folder or s3://BUCKET/PREFIX")
    manifest = folder / NAME
    if not manifest.is_file():
        return Verified(location, 0, 0, (f"{NAME} is missing: it is written last, so this is incomplete",), "")
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return _compare(
        location,
        manifest.read_bytes(),
        {path: file.stat().st_size for path, file in there.items()},
        None if sizes_only else lambda path: sha256_of(there[path]),
    )


def _verify_s3(location: str, client: Any, sizes_only: bool) -> Verified:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_s3(location)

    def digest(path: str) -> str:
        sha = hashlib.sha256()
        for chunk in client.get_object(Bucket=bucket, Key=prefix + path)["Body"].iter_chunks(_CHUNK):
            sha.update(chunk)
        return sha.hexdigest()

    try:
        sizes = _listed(client, bucket, prefix)
        if not sizes:
            raise ModelError(f"{location} holds no files; check the bucket and the prefix")
        if NAME not in sizes:
            return Verified(location, 0, 0, (f"{NAME} is missing: it is written last, so this is incomplete",), "")
        manifest = client.get_object(Bucket=bucket, Key=prefix + NAME)["Body"].read()
        return _compare(location, manifest, sizes, None if sizes_only else digest)
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{location} cannot be read: {error}; check the name, the region and permissions") from error


def _listed(client: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Path under the prefix -> bytes."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {
        item["Key"][len(prefix) :]: int(item["Size"])
        for page in pages
        for item in page.get("Contents", [])
        if not item["Key"].endswith("/")
    }


def _compare(location: str, manifest: bytes, sizes: dict[str, int], digest: Callable[[str], str] | None) -> Verified:
    entries = parse_manifest(manifest.decode("utf-8", "replace"), f"{location}/{NAME}")
    problems = []
    for entry in entries:
        size = sizes.get(entry.path)
        if size is None:
            problems.append(f"{entry.path} is missing")
        elif size != entry.size_bytes:
            problems.append(f"{entry.path} has {size:,} bytes, the manifest says {entry.size_bytes:,}")
        elif digest is not None and entry.sha256 and digest(entry.path) != entry.sha256:
            problems.append(f"{entry.path} differs from the SHA-256 in the manifest")
    known = {entry.path for entry in entries} | {NAME}
    problems += [f"{path} is not in the manifest" for path in sorted(sizes.keys() - known)]
    total = sum(entry.size_bytes for entry in entries)
    return Verified(location, len(entries), total, tuple(problems), hashlib.sha256(manifest).hexdigest())


def upload(
    folder: Path,
    uri: str,
    *,
    client: Any = None,
    part_bytes: int = PART_BYTES,
    wait: Callable[[float], Any] = time.sleep,
) -> int:
    """Bring a folder that has a manifest under the S3 prefix `uri`; returns the bytes sent.

    Files go up in parts, several at a time, each part with a checksum that S3 holds it against; the manifest goes last,
    so that a prefix with one is whole. A file that is there already with the same SHA-256 is not sent again. A failed
    file is tried anew with growing pauses. Raises `ModelError` when that does not help.
    """
    manifest = folder / NAME
    if not manifest.is_file():
        raise ModelError(f"{folder} has no {NAME}, so it is incomplete and not uploaded")
    client = client or _client()
    bucket, prefix = split_s3(uri)
    entries = parse_manifest(manifest.read_text(encoding="utf-8"), str(manifest))
    sent = sum(_put(client, folder, entry, bucket, prefix, part_bytes, wait) for entry in entries)
    last = Entry(NAME, manifest.stat().st_size, sha256_of(manifest))
    return sent + _put(client, folder, last, bucket, prefix, part_bytes, wait)


def _put(
    client: Any,
    folder: Path,
    entry: Entry,
    bucket: str,
    prefix: str,
    part_bytes: int,
    wait: Callable[[float], Any],
) -> int:
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import BotoCoreError, ClientError

    key = prefix + entry.path
    size = max(part_bytes, -(-entry.size_bytes // _MOST_PARTS))
    config = TransferConfig(multipart_threshold=size, multipart_chunksize=size, max_concurrency=8)
    extra = {"Metadata": {"sha256": entry.sha256}, "ChecksumAlgorithm": "SHA256"}
    for attempt in range(1, _TRIES + 1):
        try:
            if _is_there(client, bucket, key, entry):
                return 0
            client.upload_file(str(folder / entry.path), bucket, key, ExtraArgs=extra, Config=config)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            if attempt == _TRIES:
                raise ModelError(f"s3://{bucket}/{key} was not taken, {_TRIES} times: {error}") from error
            wait(_FIRST_WAIT_S * 2 ** (attempt - 1))
        except OSError as error:
            raise ModelError(f"{folder / entry.path} cannot be read: {error}") from error
        else:
            return entry.size_bytes
    raise AssertionError("unreachable")


def _is_there(client: Any, bucket: str, key: str, entry: Entry) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "403", "NoSuchKey", "NotFound"):
            return False  # without the right to list, S3 says 403 of what is not there
        raise
    return int(head["ContentLength"]) == entry.size_bytes and head["Metadata"].get("sha256") == entry.sha256


def delete_prefix(uri: str, *, client: Any = None) -> int:
    """Delete what lies under an S3 prefix, its manifest first, so that what is left is not taken for whole."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client or _client()
    bucket, prefix = split_s3(uri)
    if not prefix:
        raise ModelError(f"{uri} names a whole bucket; give a prefix to delete")
    try:
        paths = sorted(_listed(client, bucket, prefix), key=lambda path: (path != NAME, path))
        for start in range(0, len(paths), 1000):
            keys = [{"Key": prefix + path} for path in paths[start : start + 1000]]
            if start == 0 and paths[0] == NAME:
                client.delete_object(Bucket=bucket, Key=prefix + NAME)
                keys = keys[1:]
            if keys:
                client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{uri} cannot be deleted: {error}") from error
    return len(paths)


def delete_folder(folder: Path) -> None:
    """Delete a folder, its manifest first, so that what an interruption leaves is not taken for whole."""
    (folder / NAME).unlink(missing_ok=True)
    shutil.rmtree(folder)


def to_keep(steps: Iterable[int], keep: int, best: int | None) -> set[int]:
    """Which checkpoints stay: the `keep` newest and the `best`."""
    newest = sorted(steps)[-keep:] if keep > 0 else []
    return {*newest, *([best] if best is not None else [])}


class Uploader:
    """Uploads folders from a thread of its own, in the order given, while training goes on.

    A failure is said aloud, kept in `failures`, and never ends the run.
    """

    def __init__(
        self, *, client: Any = None, say: Say | None = None, wait: Callable[[float], Any] = time.sleep
    ) -> None:
        self._client, self._say, self._wait = client, say or (lambda _: None), wait
        self._jobs: queue.Queue[tuple[str, Path, str] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._pending: list[Path] = []
        self.failures: dict[Path, tuple[str, str]] = {}
        """Folder -> (where it was to go, why it did not)."""
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def put(self, folder: Path, uri: str) -> None:
        """Upload `folder` when its turn comes."""
        with self._lock:
            self._pending.append(folder)
        self._jobs.put(("put", folder, uri))

    def delete(self, folder: Path, uri: str) -> None:
        """Delete `folder` here and its copy at `uri` (where one is named), after the uploads that wait before it."""
        self._jobs.put(("delete", folder, uri))

    def is_pending(self, folder: Path) -> bool:
        with self._lock:
            return folder in self._pending

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is done; False when `timeout_s` passed first."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            what, folder, uri = job
            try:
                if what == "put":
                    self._upload(folder, uri)
                else:
                    self._delete(folder, uri)
            except (ModelError, OSError) as error:
                self.failures[folder] = (uri, str(error))
                self._say(f"{what} of {folder.name}: {error}")
            finally:
                with self._lock:
                    if what == "put":
                        self._pending.remove(folder)

    def _upload(self, folder: Path, uri: str) -> None:
        started = time.monotonic()
        sent = upload(folder, uri, client=self._client, wait=self._wait)
        seconds = time.monotonic() - started
        self.failures.pop(folder, None)
        self._say(f"{folder.name} is in {uri}: {sent:,} bytes in {seconds:.1f} s")

    def _delete(self, folder: Path, uri: str) -> None:
        if folder.is_dir():
            delete_folder(folder)
        if uri:
            delete_prefix(uri, client=self._client)


def _client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(retries={"mode": "adaptive", "max_attempts": 6}))


def main(arguments: list[str] | None = None) -> int:
    """`verify PREFIX [--sizes-only] [--json]`: exit code 0 whole, 3 not whole, 2 not readable."""
    parser = argparse.ArgumentParser(prog="python -m model_runtime.artifacts", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="hold a folder or an S3 prefix against its manifest")
    check.add_argument("prefix", help="a folder, or s3://BUCKET/PREFIX")
    check.add_argument("--sizes-only", action="store_true", help="compare sizes and read no contents")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        found = verify(given.prefix, sizes_only=given.sizes_only)
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if given.json:
        sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
    else:
        for problem in found.problems:
            sys.stdout.write(f"{problem}\n")
        state = "whole" if found.whole else f"NOT whole, {len(found.problems)} problems"
        sys.stdout.write(f"{found.location}: {state}; {found.files} files, {found.total_bytes:,} bytes\n")
    return 0 if found.whole else 3


if __name__ == "__main__":
    sys.exit(main())
