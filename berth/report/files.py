"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sizing.errors import UserError


def keep(*sources: Path, output: Path | None) -> None:
    """Raise `UserError` where `output` is one of the files that are read."""
    if output is not None and any(output.resolve() == source.resolve() for source in sources):
        raise UserError(f"{output} is read here and would be written over; choose another name")


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` first, then put it in its place. Raises `UserError` where that cannot be done."""
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(draft).chmod(0o666 & ~umask)
        Path(draft).replace(path)
    except OSError as error:
        Path(draft).unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
