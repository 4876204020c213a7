"""One command at a time in a folder: a lock on a file, which ends with its process, even killed."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from model_runtime.flock import take
from sizing.errors import UserError

FILE = "lock"


@contextmanager
def locked(folder: Path, busy: Callable[[], UserError]) -> Iterator[IO[bytes]]:
    """Hold `folder` for one command; gives the lock's file, for words about its holder.

    Raises what `busy` gives where another process holds it, and `UserError` where the folder cannot be written.
    """
    try:
        file = opened(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; BERTH_CACHE_DIR names another") from None
    with file:
        if not take(file):
            raise busy()
        yield file


def opened(folder: Path) -> IO[bytes]:
    """The lock's file, and its folder made where it is not there. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / FILE).open("a+b")


def user_name() -> str:
    """Who runs this command, for others who find it at work."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return f"uid {os.getuid()}"
