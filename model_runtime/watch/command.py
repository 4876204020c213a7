"""Commands that are given up on: a process that hangs in the kernel cannot even be waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOMENT_S = 0.2


@dataclass(frozen=True)
class Ran:
    """`code` is None where the command could not be started or did not end in time; `problem` says which."""

    code: int | None
    out: str = ""
    problem: str = ""

    @property
    def well(self) -> bool:
        return self.code == 0


_abandoned: list[subprocess.Popen[Any]] = []


def abandon(process: subprocess.Popen[Any]) -> None:
    """Kill a process and its group, where it leads one, and wait no longer than a moment for its end."""
    with contextlib.suppress(ProcessLookupError):  # it may end at any moment
        if process.poll() is None and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    if process.stdout is not None:
        process.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_MOMENT_S)
    # What has not ended is looked at again, so that nothing is left as a zombie for longer than it must.
    _abandoned[:] = [p for p in (*_abandoned, process) if p.poll() is None]


def run(command: Sequence[str], timeout_s: float = 5.0) -> Ran:
    """Run `command` without a shell for at most `timeout_s`; afterwards it is killed and not waited for."""
    try:
        process = subprocess.Popen(  # noqa: S603 (words of our own)
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Ran(None, problem=f"{command[0]} cannot be started: {error}")
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        abandon(process)
        return Ran(None, problem=f"{command[0]} did not answer within {timeout_s:g} s")
    problem = "" if process.returncode == 0 else f"{command[0]} ended with {process.returncode}: {out.strip()[-300:]}"
    return Ran(process.returncode, out, problem)
