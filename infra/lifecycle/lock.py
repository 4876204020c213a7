"""One command at a time on the stacks of a folder: the folder's lock, with words that say who holds it.

The sandbox's commands lock the same file (`infra.sandbox.server.locked`), so these and those exclude each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infra.durations import write_instant
from infra.lifecycle.engine import StackBusyError
from infra.lock import FILE, locked, user_name
from infra.resolve import now


@contextmanager
def held(folder: Path, stack: str, doing: str) -> Iterator[None]:
    """Hold `folder` while doing something with a stack.

    Raises `StackBusyError`, which names who holds it, and `UserError` where the folder cannot be written.
    """

    def busy() -> StackBusyError:
        return StackBusyError(stack, holder(folder) or "another berth command on this machine")

    with locked(folder, busy) as file:
        told = {
            "user": user_name(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "doing": doing,
            "since": write_instant(now()),
        }
        _write(file, json.dumps(told))
        try:
            yield
        finally:
            _write(file, "")


def holder(folder: Path) -> str:
    """Who holds the lock, in words; empty where nobody does or nobody says so. Words of a dead process count not."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pid, host = int(told["pid"]), str(told["host"])
        words = f"{told['user']} on {host} (process {pid}, {told['doing']}) since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return words if host != socket.gethostname() or alive(pid) else ""


def alive(pid: int) -> bool:
    """Whether a process of this machine runs. One that has ended and that nobody has collected, as in containers
    without an init, runs no more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[-1].split()[0]
    except (OSError, IndexError):  # no /proc: not Linux
        return True
    return state not in ("Z", "X")


def _write(file: IO[bytes], text: str) -> None:
    with contextlib.suppress(OSError):  # the lock itself is the kernel's; without its words it is still one
        file.seek(0)
        file.truncate()
        file.write(text.encode())
        file.flush()
