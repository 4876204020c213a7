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

Probe = Callable[[int], dict[str, Any]]
KILLED = -9
"""The kernel ends a process that takes the machine's last memory with this signal."""


class Prober:
    """Runs batches in a process of its own and starts another when one died of memory."""

    def __init__(
        self,
        folder: Path,
        overrides: Mapping[str, Any],
        input_tokens: int,
        output_tokens: int,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self.folder, self.overrides = folder, dict(overrides)
        self.shape = {
            "input_tokens": input_tokens, "output_tokens": output_tokens, "memory_limit_bytes": memory_limit_bytes
        }  # fmt: skip
        self.starts = 0
        self.start_up: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", "model_runtime.verify.probe", str(self.folder), json.dumps(self.overrides)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        self._process = process
        self.starts += 1
        if process.stdout is None:
            raise ValueError("no pipe")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            raise ModelError(
                f"loading {self.folder} ended the process with status {code}"
                + (": this machine's memory does not hold it" if code == KILLED else "")
            )
        told = json.loads(line)
        if "error" in told:
            self.close()
            raise ModelError(told["error"])
        self.start_up = self.start_up or told
        return process

    def __call__(self, batch: int) -> dict[str, Any]:
        """What `probe.run_batch` says of `batch`, or `out_of_memory` where the process did not live to say it."""
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise ValueError("no pipe")
        process.stdin.write(json.dumps({"batch": batch, **self.shape}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        result: dict[str, Any] = json.loads(line) if line else {}
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
