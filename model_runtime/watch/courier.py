"""Takes work and words to S3, in processes of their own: what hangs is killed, and the watchdog needs no boto3."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

from model_runtime.watch.command import abandon

Kind = Literal["verified", "nothing", "failed"]


@dataclass(frozen=True)
class Delivery:
    """`verified`: `items` are whole in S3. `nothing`: no whole checkpoint or artifact is on this disk.

    `problems`: what was passed over or refused, in words.
    """

    kind: Kind
    items: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"result": self.kind, "items": list(self.items), "problems": list(self.problems)}


class Task(Protocol):
    def poll(self) -> Delivery | None:
        """How it ended, None while it goes on."""
        ...

    def stop(self) -> None:
        """Give it up, without waiting for it."""
        ...


class Courier(Protocol):
    def deliver(self, seconds: float) -> Task:
        """Upload the artifact or the newest whole checkpoint and verify it; there are `seconds` for it."""
        ...

    def report(self, status: dict[str, Any], events: Sequence[dict[str, Any]]) -> Task:
        """Put the status, the log and the run's metrics beside the artifacts; `verified` when they are there."""
        ...


@dataclass
class ProcessTask:
    """A process whose last line on stdout is the result as JSON."""

    process: subprocess.Popen[bytes] | None
    out: IO[bytes]
    problem: str = ""
    _found: Delivery | None = field(default=None, init=False)

    def poll(self) -> Delivery | None:
        if self._found is None:
            if self.process is None:
                self._found = Delivery("failed", problems=(self.problem,))
            elif self.process.poll() is not None:
                self._found = self._read(self.process.returncode)
            if self._found is not None:
                self.out.close()
        return self._found

    def _read(self, code: int) -> Delivery:
        self.out.seek(0)
        lines = self.out.read().decode("utf-8", "replace").splitlines()
        found = _result(lines[-1]) if lines and code == 0 else None
        last = lines[-1][-300:] if lines else "no word"
        return found or Delivery("failed", problems=(f"the upload's process ended with {code}: {last}",))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            abandon(self.process)
        self.out.close()
        self._found = self._found or Delivery("failed", problems=("given up: it took too long",))


class ProcessCourier:
    """`command` starts Python where boto3 and the runtime are: on a training node, in the training image."""

    def __init__(self, command: Sequence[str], output: str, uri: str, scratch: str | None = None) -> None:
        self._command, self._output, self._uri, self._scratch = list(command), output, uri, scratch

    def deliver(self, seconds: float) -> Task:
        return self._start(["deliver", self._output, self._uri, "--seconds", f"{max(1.0, seconds):.0f}"], b"")

    def report(self, status: dict[str, Any], events: Sequence[dict[str, Any]]) -> Task:
        words = json.dumps({"status": status, "events": list(events)}).encode()
        return self._start(["report", self._uri, "--output", self._output], words)

    def _start(self, arguments: list[str], words: bytes) -> Task:
        with contextlib.ExitStack() as stack:
            try:
                out: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(dir=self._scratch))
                told: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(dir=self._scratch))
                told.write(words)
                told.seek(0)
                process = subprocess.Popen(  # noqa: S603 (words of our own)
                    [*self._command, "-m", "model_runtime.watch.deliver", *arguments],
                    stdin=told,
                    stdout=out,
                    start_new_session=True,
                )
            except OSError as error:
                return ProcessTask(None, io.BytesIO(), f"{self._command[0]} cannot be started: {error}")
            told.close()
            stack.pop_all()
            return ProcessTask(process, out)


def _result(line: str) -> Delivery | None:
    try:
        found = json.loads(line)
        if found["result"] not in ("verified", "nothing", "failed"):
            return None
        return Delivery(found["result"], tuple(found["items"]), tuple(map(str, found["problems"])))
    except (ValueError, KeyError, TypeError):
        return None
