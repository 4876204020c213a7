"""What the CloudWatch agent is on a node: new lines of a file, sent to a log stream."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_MOST = 1 << 18
"""Bytes sent at once; PutLogEvents takes a megabyte and ten thousand events."""


class Shipper:
    """`ship` sends what was added to `file` since the last time; what cannot be sent is sent the next time."""

    def __init__(self, logs: Any, group: str, stream: str, file: Path) -> None:
        self._logs, self._group, self._stream, self._file = logs, group, stream, file
        self._at, self._made = 0, False

    def ship(self) -> None:
        try:
            with self._file.open("rb") as file:
                file.seek(self._at)
                found = file.read(_MOST)
        except OSError:
            return
        whole = found[: found.rfind(b"\n") + 1]
        moment = int(time.time() * 1000)
        events = [
            {"timestamp": moment, "message": line}
            for line in whole.decode("utf-8", "replace").splitlines()
            if line.strip()
        ]
        try:
            if events:
                self._make()
                self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)
        except (ClientError, BotoCoreError):
            return
        self._at += len(whole)

    def _make(self) -> None:
        if self._made:
            return
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        self._made = True
