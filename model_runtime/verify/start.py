"""From nothing to the first token, several times: each start is a process of its own that reads the weights anew."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.fetch import is_s3
from model_runtime.verify.stats import spread

PARTS = ("process_start_s", "import_s", "download_s", "load_s", "first_token_s")
"""What a start consists of, one after another, in seconds."""


def start_up_of(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The Measurement's `start_up`: the median of each part, the spread of the whole, and each start as it was."""
    each = [{name: start[name] for name in PARTS} for start in starts]
    totals = [sum(one[name] or 0.0 for name in PARTS) for one in each]
    return {
        **{name: _median([one[name] for one in each]) for name in PARTS},
        "total_s": spread(totals),
        "downloaded_bytes": max(start["downloaded_bytes"] for start in starts),
        "starts": each,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def forget_cached(folder: Path) -> None:
    """Ask the kernel to drop the files of `folder` from its page cache, so that they are read from the disk, as a
    machine does that has just started (posix_fadvise(2), POSIX_FADV_DONTNEED; where there is none, nothing)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Caches:
    """Where the processes keep what they download: the person's cache, or an empty one for each start."""

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._number = 0
        self.environment: dict[str, str] = {}

    def empty(self) -> None:
        """Before a start: with caches of their own, an empty one; the one before it goes."""
        if self._place is None:
            return
        import shutil

        for old in self._place.iterdir():
            shutil.rmtree(old)
        self._number += 1
        here = self._place / str(self._number)
        here.mkdir()
        # The hub's client keeps chunks of earlier downloads beside its cache (Xet).
        self.environment = {
            "BERTH_CACHE_DIR": str(here), "HF_HUB_CACHE": str(here / "hub"), "HF_XET_CACHE": str(here / "xet")
        }  # fmt: skip


@contextlib.contextmanager
def caches(location: str, *, fetch_again: bool) -> Iterator[Caches]:
    """The caches of a verification of the model at `location`; what was fetched for it goes at the end."""
    if not fetch_again:
        yield Caches(None)
        return
    if Path(location).expanduser().is_dir():
        raise ModelError(
            f"--fetch-again: the weights are in the folder {location}, so nothing is fetched; leave it out"
        )
    if not is_s3(location) and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError("--fetch-again fetches from the hub, and HF_HUB_OFFLINE is set; unset one of the two")
    root = Path(os.environ.get("BERTH_CACHE_DIR") or Path.home() / ".cache" / "berth")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=root) as place:
        yield Caches(Path(place))
