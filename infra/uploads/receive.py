"""What a stack's machines would fetch, fetched here: bundle and model, each held against its recorded manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.uploads.place import Artifacts
from model_runtime.errors import ModelError
from model_runtime.fetch import Fetched, fetch_s3
from model_runtime.manifest import NAME, check_folder
from sizing.errors import UserError
from sizing.hardware.cache import catalog_dir

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Received:
    """Folders on this disk, every file as its manifest says."""

    bundle: Path
    model: Path


def served_dir(artifacts: Artifacts, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the cache in which what a stack serves is kept; it need not exist."""
    place = "sandbox" if artifacts.sandbox else artifacts.bucket
    return catalog_dir(environ).parent / "served" / place / artifacts.file.name


def receive(artifacts: Artifacts, folder: Path | None = None, *, say: Say = lambda _: None) -> Received:
    """Fetch bundle and model of a stack into `folder` (by default a folder of the cache).

    Files that are there and whole are not fetched again. Raises `UserError` for what is missing, is damaged, or has
    another manifest than the stack file names: the host would not start with it either.
    """
    folder = folder or served_dir(artifacts)
    settings, name = artifacts.settings, artifacts.file.name
    bundle = _fetch(artifacts, artifacts.bundle_uri, folder / "bundle", settings.bundle_manifest_sha256, say)
    model = _fetch(artifacts, artifacts.model_uri, folder / "model", settings.artifact_manifest_sha256, say)
    for key in ("bundle_manifest_sha256", "artifact_manifest_sha256"):
        if not getattr(settings, key):
            say(f"note: {key} of stack {name} is empty: the files were checked, but not who wrote the manifest")
    return Received(bundle, model)


def _fetch(artifacts: Artifacts, uri: str, folder: Path, sha256: str, say: Say) -> Path:
    try:
        got: Fetched = fetch_s3(uri, folder, client=artifacts.client, manifest_sha256=sha256)
        if not got.verified:
            raise ModelError(f"{uri} has no {NAME}, so it cannot be checked; a host refuses it")
        entries = check_folder(folder)
        _remove_others(folder, {entry.path for entry in entries} | {NAME})
    except ModelError as error:
        raise UserError(f"stack {artifacts.file.name}: {error}{_remedy(artifacts)}") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    said = f"manifest {sha256[:12]}…" if sha256 else "its manifest"
    say(f"{uri}: {got.files} files, {got.total_bytes:,} bytes, all as {said} says ({got.downloaded_bytes:,} fetched)")
    return folder


def _remedy(artifacts: Artifacts) -> str:
    where = " --sandbox" if artifacts.sandbox else ""
    return f" (`berth bundle {artifacts.file.name} --upload{where} --model-folder DIR` uploads both)"


def _remove_others(folder: Path, own: set[str]) -> None:
    """Remove files of an earlier bundle, which Python would import all the same."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in own:
            path.unlink()
