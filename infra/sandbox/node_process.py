"""Processes of the sandbox that outlive the command which starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.stack_files import ROOT


def spawn(module: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Start `python -m MODULE …` in the background, its words added to `log`. Returns its process id."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    given = dict(os.environ if environment is None else environment)
    given.setdefault("PYTHONPATH", "")
    # From a checkout that is not installed, the packages are found by their folder; what is given comes first.
    given["PYTHONPATH"] = os.pathsep.join(filter(None, [given["PYTHONPATH"], str(ROOT)]))
    return os.posix_spawn(sys.executable, [sys.executable, "-m", *module], given, file_actions=actions)


def kill_marked(name: str, value: str) -> None:
    """Kill every process of this person whose environment says NAME=VALUE, but for this one. Where there is no /proc,
    none is found."""
    mark = f"{name}={value}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        # Others' processes cannot be read, and those that have just ended are not there any more.
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def alone() -> None:
    """For the process itself: leave the starter's session, so that its Ctrl-C and its terminal's end are not for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid") and os.getpid() != os.getsid(0):
        os.setsid()
