"""A file is written whole, or stays as it was."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then put it in its place, with the permissions of a file that is newly made.

    The folder must be there. Raises `OSError`; then, and where it is interrupted, nothing is left beside `path`.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    file = draft.open("xb")
    try:
        with file:
            file.write(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
