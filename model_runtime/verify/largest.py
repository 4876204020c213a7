"""The largest batch: doubled until it does not fit or is too slow, then bisected; each failure takes a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.progress import Progress

Probe = Callable[[int], dict[str, Any]]
KILLED = -9
"""The kernel ends a process that takes the machine's last memory with this signal."""


class Prober:
    """Runs batches in a process of its own and starts another when one died of memory.

    `environment` of the processes, over this one's. `shape`: tokens in and out of every batch.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Mapping[str, Any],
        shape: tuple[int, int],
        *,
        memory_limit_bytes: int | None = None,
        progress: Progress | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.overrides, self.shape = folder, dict(overrides), shape
        self.memory_limit_bytes, self.progress = memory_limit_bytes, progress
        self.environment = dict(environment or {})
        self.starts = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> dict[str, Any]:
        """End the process there may be, start one, and return what `probe` says of loading. Raises `ModelError`."""
        self.close()
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", "model_runtime.verify.probe", str(self.folder), json.dumps(self.overrides)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment, "PYTHONWARNINGS": "ignore"},
        )
        self._process = process
        self.starts += 1
        told = self._told(process)
        while "progress" in told:
            if self.progress is not None:
                what, *arguments = told["progress"]
                (self.progress.begin if what == "begin" else self.progress.advance)(*arguments)
            told = self._told(process)
        if not told:
            code = process.wait()
            self.close()
            raise ModelError(
                f"loading {self.folder} ended the process with status {code}"
                + (": this machine's memory does not hold it" if code == KILLED else "")
            )
        if "error" in told:
            self.close()
            raise ModelError(told["error"])
        return told

    @staticmethod
    def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
        """The next line of the process; empty when it has ended."""
        if process.stdout is None:
            raise ValueError("no pipe")
        line = process.stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else {}
        return told

    def __call__(self, batch: int) -> dict[str, Any]:
        """What `probe.run_batch` says of `batch`, or `out_of_memory` where the process did not live to say it."""
        if self._process is None:
            self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise ValueError("no pipe")
        command = {
            "batch": batch, "input_tokens": self.shape[0], "output_tokens": self.shape[1],
            "memory_limit_bytes": self.memory_limit_bytes,
        }  # fmt: skip
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        result = self._told(process)
        if not result:
            code = process.wait()
            if code != KILLED:
                self.close()
                raise ModelError(f"a batch of {batch} ended the process with status {code}; berth serve shows why")
            result = {"batch": batch, "out_of_memory": True, "why": "the kernel ended the process"}
        if result.get("out_of_memory"):
            self.close()
        return result

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def largest_batch(probe: Probe, *, limit: int, latency_s: float | None = None) -> dict[str, Any]:
    """Doubles and bisects. `batch`: the largest that fits (0: not even 1); `why`: what ended the search.

    Fitting is monotonic in the batch: a batch that is larger than one that failed is not tried.
    """
    tried: list[dict[str, Any]] = []
    why = f"no larger one was tried (limit {limit})"

    def fits(batch: int) -> bool:
        nonlocal why
        result = probe(batch)
        tried.append(result)
        if result.get("out_of_memory"):
            why = f"a batch of {batch} does not fit the memory"
            return False
        if latency_s is not None and result["seconds"] > latency_s:
            why = f"a batch of {batch} takes {result['seconds']:.3g} s, more than the {latency_s:g} s wished"
            return False
        return True

    best, size = 0, 1
    failed: int | None = None
    while failed is None and best < limit:
        if fits(size):
            best, size = size, min(size * 2, limit)
        else:
            failed = size
    while failed is not None and failed - best > 1:
        middle = (best + failed) // 2
        if fits(middle):
            best = middle
        else:
            failed = middle
    return {"batch": best, "why": why, "limit": limit, "latency_wish_s": latency_s, "tried": tried}
