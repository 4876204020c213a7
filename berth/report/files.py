"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from sizing.errors import UserError
from sizing.files import write_whole


def keep(*sources: Path, output: Path | None) -> None:
    """Raise `UserError` where `output` is one of the files that are read."""
    if output is not None and any(output.resolve() == source.resolve() for source in sources):
        raise UserError(f"{output} is read here and would be written over; choose another name")


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` first, then put it in its place; its folder is made. Raises `UserError` where that
    cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
