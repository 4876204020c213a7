"""What a stack's machines would fetch, fetched here: bundle and model, each held against its recorded manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.places import output_prefix
from infra.settings import TrainingSettings
from infra.uploads.place import Artifacts
from model_runtime.errors import ModelError
from model_runtime.fetch import Fetched, fetch_s3
from model_runtime.manifest import NAME, check_folder
from model_runtime.progress import Lines, Progress, downloading
from sizing.errors import UserError
from sizing.hardware.cache import catalog_dir

ARTIFACT = "artifact"
"""Under a run's prefix: the folder that `berth finetune` leaves."""
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


def receive(
    artifacts: Artifacts, folder: Path | None = None, *, say: Say = lambda _: None, progress: Progress | None = None
) -> Received:
    """Fetch bundle and model of a stack into `folder` (by default a folder of the cache).

    Files that are there and whole are not fetched again. Raises `UserError` for what is missing, is damaged, or has
    another manifest than the stack file names: the host would not start with it either. `progress` of the downloads;
    without it `say` gets lines.
    """
    folder = folder or served_dir(artifacts)
    settings, name, told = artifacts.settings, artifacts.file.name, progress or Lines(say)
    bundle = _fetch(artifacts, artifacts.bundle_uri, folder / "bundle", settings.bundle_manifest_sha256, say, told)
    model = _fetch(artifacts, artifacts.model_uri, folder / "model", settings.artifact_manifest_sha256, say, told)
    for key in ("bundle_manifest_sha256", "artifact_manifest_sha256"):
        if not getattr(settings, key):
            say(f"note: {key} of stack {name} is empty: the files were checked, but not who wrote the manifest")
    return Received(bundle, model)


def receive_artifact(
    artifacts: Artifacts, folder: Path, *, say: Say = lambda _: None, progress: Progress | None = None
) -> str:
    """Fetch what a stack has to give into `folder`, checked, and return where it lay.

    Of a training stack that is the artifact of its newest run that left one, of a service its model. An earlier fetch
    in `folder` is brought up to date; anything else there is refused. Raises `UserError`.
    """
    if folder.exists() and not (folder / NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and is no artifact; give a folder that is new, empty or fetched before")
    settings = artifacts.settings
    if isinstance(settings, TrainingSettings):
        uri, sha256 = newest_artifact(artifacts), ""
    else:
        uri, sha256 = artifacts.model_uri, settings.artifact_manifest_sha256
    _fetch(artifacts, uri, folder, sha256, say, progress or Lines(say))
    return uri


def newest_artifact(artifacts: Artifacts) -> str:
    """Where the newest run of a training stack that left an artifact put it. Raises `UserError` where none did.

    A manifest is written last, so a prefix without one is no artifact.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    name, base = artifacts.file.name, f"{output_prefix(artifacts.file.name)}/"
    ending = f"/{ARTIFACT}/{NAME}"
    try:
        pages = artifacts.client.get_paginator("list_objects_v2").paginate(Bucket=artifacts.bucket, Prefix=base)
        found = {
            item["Key"]: item["LastModified"]
            for page in pages
            for item in page.get("Contents", [])
            if item["Key"].endswith(ending)
        }
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"s3://{artifacts.bucket}/{base} cannot be listed: {error}") from error
    if not found:
        raise UserError(f"no run of stack {name} has left an artifact in s3://{artifacts.bucket}/{base}")
    newest = max(found, key=lambda key: (found[key], key))  # S3 tells seconds; runs are named by their begin
    return f"s3://{artifacts.bucket}/{newest.removesuffix(f'/{NAME}')}"


def _fetch(artifacts: Artifacts, uri: str, folder: Path, sha256: str, say: Say, progress: Progress) -> Path:
    try:
        told = downloading(progress, uri)
        got: Fetched = fetch_s3(uri, folder, client=artifacts.client, progress=told, manifest_sha256=sha256)
        if not got.verified:
            raise ModelError(f"{uri} has no {NAME}, so it cannot be checked; a host refuses it")
        entries = check_folder(folder)
        _remove_others(folder, {entry.path for entry in entries} | {NAME})
    except ModelError as error:
        remedy = "" if isinstance(artifacts.settings, TrainingSettings) else _remedy(artifacts)
        raise UserError(f"stack {artifacts.file.name}: {error}{remedy}") from error
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
