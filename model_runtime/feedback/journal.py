"""Durable JSON lines: a record is accepted when it is on the disk, and shipped to S3 until S3 has it.

Records go into one open segment; a segment is closed by size, by age or at the next start, shipped under a key of its
own (so that a repeated shipment writes the same object), and removed only when S3 holds all of its bytes.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
OPEN = ".open"
MAX_SEGMENT_BYTES = 8 << 20
MAX_SEGMENT_AGE_S = 300.0


class Journal:
    """Appends records to a folder, from any thread of one process."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_SEGMENT_BYTES,
        max_age_s: float = MAX_SEGMENT_AGE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.max_bytes, self.max_age_s, self.clock = folder, max_bytes, max_age_s, clock
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path = folder / "none"
        self._size = 0
        self._born = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        """Close what a process that died has left open. A last line without an end was never accepted: it goes."""
        for path in sorted(self.folder.glob(f"*{OPEN}")):
            with path.open("r+b") as file:
                data = file.read()
                whole = data.rfind(b"\n") + 1
                file.truncate(whole)
                os.fsync(file.fileno())
            if whole:
                path.replace(path.with_suffix(""))
            else:
                path.unlink()
        self._sync_folder()

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write `records` and wait until the disk has them. Raises `OSError` when it has not: none is accepted then."""
        lines = "".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in records).encode(
            "utf-8"
        )
        with self._lock:
            file = self._segment()
            try:
                written = 0
                while written < len(lines):
                    written += os.write(file, lines[written:])
                os.fsync(file)
            except OSError:
                os.ftruncate(file, self._size)  # half a line must not stand before the next
                raise
            self._size += len(lines)

    def _segment(self) -> int:
        if self._file is not None and (self._size >= self.max_bytes or self.clock() - self._born >= self.max_age_s):
            self._close()
        if self._file is None:
            self._born = self.clock()
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._born))
            self._path = self.folder / f"{stamp}-{uuid.uuid4().hex}.jsonl{OPEN}"
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._size = 0
            self._sync_folder()
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._path.replace(self._path.with_suffix(""))
            self._sync_folder()

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Close the open segment, so that it can be shipped."""
        with self._lock:
            self._close()

    def closed(self, *, old_too: bool = True) -> list[Path]:
        """Segments ready to be shipped; with `old_too` the open one is closed first if it is old enough."""
        if old_too:
            with self._lock:
                if self._file is not None and self.clock() - self._born >= self.max_age_s:
                    self._close()
        return sorted(self.folder.glob("*.jsonl"))


def place_of(given: str | None, environ: Mapping[str, str]) -> str:
    """The S3 prefix that feedback is shipped to: the one `given`, else the stack's own, which a host's environment
    names (`BERTH_BUCKET`, `BERTH_OUTPUT`). Empty: it stays on the disk."""
    bucket, output = environ.get("BERTH_BUCKET"), environ.get("BERTH_OUTPUT")
    return given or (f"s3://{bucket}/{output}/feedback" if bucket and output else "")


def ship(journal: Journal, uri: str, client: Any) -> int:
    """Copy every closed segment to the S3 prefix `uri` and remove it here once S3 has it. Returns how many went.

    Raises what the client raises: the segment stays and goes the next time.
    """
    from model_runtime.fetch import split_s3

    bucket, prefix = split_s3(uri)
    shipped = 0
    for path in journal.closed():
        data = path.read_bytes()
        key = f"{prefix}{path.name[:8]}/{path.name}"
        client.put_object(Bucket=bucket, Key=key, Body=data, ContentType="application/jsonlines")
        if int(client.head_object(Bucket=bucket, Key=key)["ContentLength"]) != len(data):
            raise OSError(f"s3://{bucket}/{key} has not all of {path}")
        path.unlink()
        shipped += 1
    return shipped


class Shipper:
    """Ships in a thread, every `every_s` seconds, until `stop`, which closes and ships once more."""

    def __init__(self, journal: Journal, uri: str, client: Any, every_s: float = 60.0) -> None:
        self.journal, self.uri, self.client, self.every_s = journal, uri, client, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback-shipper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.every_s):
            self._try()

    def _try(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            ship(self.journal, self.uri, self.client)
        except (BotoCoreError, ClientError, OSError) as error:
            log.warning("feedback stays on the disk, S3 did not take it: %s", error)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.journal.close()
        self._try()
