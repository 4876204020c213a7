"""Folders into the artifact bucket, their manifest last; what an earlier one left is removed after it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.settings import PROJECT
from infra.stack_files import load_yaml, record
from infra.uploads.content import StackBundle
from infra.uploads.place import Artifacts
from model_runtime.artifacts import upload
from model_runtime.errors import ModelError, in_one_line
from model_runtime.fetch import split_s3, wanted_files
from model_runtime.manifest import NAME, Entry, check_folder, parse_manifest, sha256_of, write_manifest
from sizing.errors import UserError

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """What lies at `uri` by its manifest; `sent_bytes` of `total_bytes` were not there before."""

    uri: str
    files: int
    total_bytes: int
    sent_bytes: int
    removed: int
    """Objects of an earlier upload that the manifest does not list."""
    manifest_sha256: str


def send_bundle(artifacts: Artifacts, bundle: StackBundle) -> Sent:
    """Upload a stack's bundle and record the SHA-256 of its manifest in the stack file. Raises `UserError`."""
    sent = _send(bundle.bundle.folder, artifacts.bundle_uri, artifacts.client)
    _record(artifacts, "bundle_manifest_sha256", sent.manifest_sha256)
    return sent


def send_model(artifacts: Artifacts, folder: Path) -> Sent:
    """Upload a model's files and record the SHA-256 of their manifest in the stack file.

    A folder that has a manifest, as an artifact of fine-tuning has, is checked against it and goes up as it is. Another
    one is left as it is: its files and a manifest made for them go up. Raises `UserError`.
    """
    with in_one_line():
        if (folder / NAME).is_file():
            check_folder(folder)
            sent = _send(folder, artifacts.model_uri, artifacts.client)
        else:
            with tempfile.TemporaryDirectory(prefix="berth-model-") as place:
                sent = _send(_linked(folder, Path(place)), artifacts.model_uri, artifacts.client)
    _record(artifacts, "artifact_manifest_sha256", sent.manifest_sha256)
    return sent


def model_notes(folder: Path, planned: str, find_model: Callable[[str], Any]) -> tuple[str, ...]:
    """A note where the folder's model is not the one that the stack plans for. Raises `UserError` where it is none."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is no model; give a model's own folder")
    stack = find_model(planned)
    try:
        own = find_model(str(folder.resolve()))
    except UserError as error:
        return (f"whether {folder} is {stack.name}, as the stack plans, is not known: {error}",)
    if own.params == stack.params:
        return ()
    return (
        f"{folder} has {own.params:,} parameters, {stack.name} of the stack has {stack.params:,}: another model "
        "stands in for it, and what the plan says of memory and cost is not about it",
    )


def _record(artifacts: Artifacts, key: str, value: str) -> None:
    """Write a value into the stack file, which stays as it is where it says that already."""
    if load_yaml(artifacts.file.path)["config"].get(f"{PROJECT}:{key}") != value:
        record(artifacts.file.path, {key: value})


def _linked(folder: Path, place: Path) -> Path:
    """A folder of links to a model's files, with a manifest."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}
    for name in sorted(wanted_files(paths)):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(paths[name].resolve())
    write_manifest(place)
    return place


def _send(folder: Path, uri: str, client: Any) -> Sent:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        sent = upload(folder, uri, client=client)
        entries = parse_manifest((folder / NAME).read_text(encoding="utf-8"), str(folder / NAME))
        removed = _remove_others(client, uri, entries)
    except ModelError as error:
        raise UserError(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"{uri}: {error}") from error
    total = sum(entry.size_bytes for entry in entries)
    return Sent(uri, len(entries), total, sent, removed, sha256_of(folder / NAME))


def _remove_others(client: Any, uri: str, entries: tuple[Entry, ...]) -> int:
    """Remove what an earlier upload left under the prefix: a host copies all of it. The bucket keeps old versions."""
    bucket, prefix = split_s3(uri)
    own = {prefix + entry.path for entry in entries} | {prefix + NAME}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    others = [item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"] not in own]
    for start in range(0, len(others), 1000):
        keys = [{"Key": key} for key in others[start : start + 1000]]
        client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    return len(others)
