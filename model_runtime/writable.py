"""Whether what long work is to leave could be written: asked before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from model_runtime.errors import ModelError


def check_writable(folder: Path) -> None:
    """Raise `ModelError` where `folder` could not be made or written to; nothing is made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ModelError(f"{folder} cannot be written: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ModelError(f"{folder} cannot be written: {place} may not be written to")
