"""How the machines of a run agree, between attempts, on how the last one ended and how the batch is cut next.

The first machine keeps a key-value store (`torch.distributed.TCPStore`, what torchrun's own rendezvous uses) on the
port after torchrun's. Without it a machine that runs out of memory would halve its batch alone, and the others would
wait in a collective for a process that is gone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from model_runtime.training.outcome import Outcome

_COME_S = 1800.0
"""How long the others are waited for when the run begins, and when one of them has failed."""
_DONE_S = 3 * 3600.0
"""How long the first machine may take to merge and upload the artifact after the others are through."""
_READ_S = 60.0
_ASK_S = 0.5
_WORST: tuple[str, ...] = ("refused", "out-of-memory", "crashed", "interrupted", "fits", "done")
"""An attempt is what the worst of its machines says: what stands first here."""
Say = Callable[[str], None]


class MeetingError(Exception):
    """The machines lost each other: the run ends, and may be started again."""


class Meeting:
    """`rank` of `count` machines; attempts are counted alike on all of them.

    Every method raises `MeetingError` where the first machine is gone, or one is not heard of for `come_s` seconds.
    """

    def __init__(self, address: str, port: int, rank: int, count: int, *, come_s: float = _COME_S) -> None:
        from torch.distributed import DistError, DistNetworkError, DistStoreError, TCPStore

        self.rank, self.count, self.come_s = rank, count, come_s
        self._errors = (DistError, DistNetworkError, DistStoreError, RuntimeError)
        self.attempt = 0
        try:
            self._store = TCPStore(
                address, port, is_master=rank == 0, wait_for_workers=False, timeout=timedelta(seconds=come_s)
            )
        except self._errors as error:
            raise MeetingError(f"the first machine ({address}:{port}) does not answer: {_line(error)}") from error
        # A machine that begins again was part of an attempt that has failed for all.
        if rank and self._call("add", f"joined/{rank}", 1) > 1 and self._call("check", ["attempt"]):
            self.attempt = int(self._call("get", "attempt"))
            self.end(Outcome("crashed", f"machine {rank} began again"))

    def begin(self, cut: dict[str, Any]) -> dict[str, Any]:
        """Every machine calls it before an attempt; the first one's `cut` is that of all."""
        self.attempt += 1
        if self.rank == 0:
            self._call("set", "attempt", str(self.attempt))
            self._call("set", f"{self.attempt}/cut", json.dumps(cut))
            return cut
        self._until(f"{self.attempt}/cut", self.come_s, "the first machine has not begun")
        found: dict[str, Any] = json.loads(self._call("get", f"{self.attempt}/cut"))
        return found

    def failed(self) -> bool:
        """Whether another machine's attempt has ended otherwise than it should: its processes will not come."""
        return bool(self._call("check", [f"{self.attempt}/failed"]))

    def end(self, own: Outcome) -> Outcome:
        """Tell how this machine's attempt ended, wait for the others, and return what that makes of it for all."""
        self._call("set", self._key(self.rank), json.dumps({"kind": own.kind, "message": own.message}))
        if own.kind not in ("done", "fits"):
            self._call("set", f"{self.attempt}/failed", "1")
        if self.rank == 0 and own.kind == "done":
            self._call("set", f"{self.attempt}/settled", json.dumps({"kind": "done", "message": own.message}))
        limit = _DONE_S if own.kind == "done" else self.come_s
        if self.rank == 0 and own.kind != "done":
            for rank in range(1, self.count):
                self._until(self._key(rank), limit, f"machine {rank} has not said how its attempt ended")
            every = [json.loads(self._call("get", self._key(rank))) for rank in range(self.count)]
            worst = min(every, key=lambda one: _WORST.index(one["kind"]))
            self._call("set", f"{self.attempt}/settled", json.dumps(worst))
        self._until(f"{self.attempt}/settled", limit, "the first machine has not said how it goes on")
        settled = json.loads(self._call("get", f"{self.attempt}/settled"))
        self._call("add", f"{self.attempt}/read", 1)
        if self.rank == 0:
            self._wait_for_readers()
        return Outcome(settled["kind"], str(settled["message"]))

    def _wait_for_readers(self) -> None:
        """The store goes when this process ends, so the others read first; one that is gone is not waited for long."""
        until = time.monotonic() + _READ_S
        while self._call("add", f"{self.attempt}/read", 0) < self.count and time.monotonic() < until:
            time.sleep(_ASK_S / 10)

    def _key(self, rank: int) -> str:
        return f"{self.attempt}/ended/{rank}"

    def _until(self, key: str, limit_s: float, otherwise: str) -> None:
        until = time.monotonic() + limit_s
        while not self._call("check", [key]):
            if time.monotonic() > until:
                raise MeetingError(f"{otherwise} within {limit_s / 60:g} minutes")
            time.sleep(_ASK_S / 10)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._store, name)(*arguments)
        except self._errors as error:
            raise MeetingError(f"the first machine is gone: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
