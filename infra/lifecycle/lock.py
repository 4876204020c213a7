"""One command at a time: a lock on a file that says who holds it, and that ends with its process, even killed."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.durations import write_instant
from infra.lifecycle.engine import StackBusyError
from infra.resolve import now
from sizing.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no flock: two commands at once are not told apart there
    fcntl = None  # type: ignore[assignment]

FILE = "lock"
"""The file that `infra.sandbox.server.locked` locks as well: the sandbox's commands and these exclude each other."""


@contextmanager
def held(folder: Path, stack: str, doing: str) -> Iterator[None]:
    """Hold `folder` while doing something with a stack.

    Raises `StackBusyError`, which names who holds it, and `UserError` where the folder cannot be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+b")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; BERTH_CACHE_DIR names another") from None
    with handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StackBusyError(stack, holder(folder) or "another berth command on this machine") from None
        told = {
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "doing": doing,
            "since": write_instant(now()),
        }
        _write(handle, json.dumps(told))
        try:
            yield
        finally:
            _write(handle, "")


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


def _write(handle: Any, text: str) -> None:
    with contextlib.suppress(OSError):  # the lock itself is the kernel's; without its words it is still one
        handle.seek(0)
        handle.truncate()
        handle.write(text.encode())
        handle.flush()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return f"uid {os.getuid()}"
