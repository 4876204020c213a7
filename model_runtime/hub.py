"""A model from the hub into the hub client's own cache: what loading needs, told while it comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError, first_line
from model_runtime.fetch import wanted_files
from model_runtime.progress import Bytes

LOOKED_EVERY_S = 0.5


def fetch_hub(model_id: str, told: Bytes) -> tuple[Path, int]:
    """The folder of `model_id` in the cache (`HF_HUB_CACHE`), and the bytes that came for it.

    Raises `ModelError` where the hub does not give it, or where it is offline and the cache does not hold it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.hf_api import RepoFile

    try:
        listed = {f.path: f for f in HfApi().list_repo_tree(model_id, recursive=True) if isinstance(f, RepoFile)}
        wanted = wanted_files(listed)
        with _watched(_blobs(model_id), [listed[path] for path in sorted(wanted)], told) as came:
            folder = Path(snapshot_download(model_id, allow_patterns=sorted(wanted)))
        return folder, came()
    except OfflineModeIsEnabled:
        pass  # an earlier download may be in the hub's cache
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{model_id} cannot be fetched from the hub: {first_line(error)}") from error
    try:
        return Path(snapshot_download(model_id, local_files_only=True)), 0
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(
            f"{model_id} is not in the hub's cache here and HF_HUB_OFFLINE is set; unset it, or give a folder"
        ) from error


def _blobs(model_id: str) -> Path:
    """Where the cache keeps the files of every version of a model, whole or begun, by their checksums."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=model_id, repo_type="model") / "blobs"


@contextmanager
def _watched(blobs: Path, files: list[Any], told: Bytes) -> Iterator[Any]:
    """Tells what has come, by what the cache holds; yields a function that says how many bytes came in all.

    The client's own bars differ from version to version and are drawn on terminals only: they are off meanwhile.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    there = {path.name for path in blobs.glob("*")}
    missing = sum(f.size for f in files if (f.lfs.sha256 if f.lfs else f.blob_id) not in there)
    before, ended = _bytes(blobs), threading.Event()

    def came() -> int:
        return max(0, _bytes(blobs) - before)

    def look() -> None:
        while not ended.wait(LOOKED_EVERY_S):
            told(min(came(), missing), missing)

    hidden = are_progress_bars_disabled()
    looking = threading.Thread(target=look, daemon=True)
    disable_progress_bars()
    looking.start()
    try:
        yield came
    finally:
        ended.set()
        looking.join()
        if not hidden:
            enable_progress_bars()
    told(missing, missing)


def _bytes(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue  # a begun file has just got its name
    return size
