"""Checkpoints of a run: which is the newest that is whole, where it is fetched from, which may go."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_runtime.artifacts import delete_folder, verify
from model_runtime.errors import ModelError
from model_runtime.fetch import fetch_s3, split_s3
from model_runtime.manifest import NAME

FOLDER = "checkpoints"
_NAME = re.compile(r"^checkpoint-(\d+)$")
Say = Callable[[str], None]


def step_of(folder: Path) -> int:
    """The optimizer step of `checkpoint-STEP`, -1 for anything else."""
    found = _NAME.match(folder.name)
    return int(found[1]) if found else -1


def all_checkpoints(root: Path) -> list[Path]:
    """Checkpoints under `root`, the newest first, whole or not."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if p.is_dir() and step_of(p) >= 0), key=step_of, reverse=True)


def newest_whole(root: Path, say: Say) -> Path | None:
    """The newest checkpoint under `root` that is as its manifest says, every byte; others are said aloud."""
    for folder in all_checkpoints(root):
        problem = _problem(folder)
        if not problem:
            return folder
        say(f"{folder.name} is passed over: {problem}")
    return None


def _problem(folder: Path) -> str:
    try:
        found = verify(str(folder))
    except ModelError as error:
        return str(error)
    return found.problems[0] if found.problems else ""


def fetch_newest(uri: str, root: Path, say: Say, *, client: Any = None) -> Path | None:
    """Bring the newest whole checkpoint from S3 where it is newer than the newest whole one here.

    Each file's SHA-256 is compared while it is fetched; a prefix without a manifest is an upload that was cut.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = client or boto3.client("s3")
    bucket, prefix = split_s3(f"{uri}/{FOLDER}")
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"][len(prefix) :] for page in pages for item in page.get("Contents", [])]
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{uri} cannot be read: {error}; check the name, the region and permissions") from error
    steps = sorted({step_of(Path(key).parent) for key in keys if key.endswith(f"/{NAME}")} - {-1}, reverse=True)
    here = newest_whole(root, say)
    for step in steps:
        if here is not None and step <= step_of(here):
            break
        target = root / f"checkpoint-{step}"
        try:
            fetch_s3(f"{uri}/{FOLDER}/{target.name}", target, client=client)
            (target / NAME).write_bytes(
                client.get_object(Bucket=bucket, Key=f"{prefix}{target.name}/{NAME}")["Body"].read()
            )
        except ModelError as error:
            say(f"{target.name} in {uri} is passed over: {error}")
            continue
        if not (problem := _problem(target)):
            say(f"{target.name} was fetched from {uri}")
            return target
        say(f"{target.name} in {uri} is passed over: {problem}")
    return here


def drop_newer(root: Path, step: int) -> None:
    """Delete what an interrupted or damaged checkpoint after `step` left, so that it is written anew."""
    for folder in all_checkpoints(root):
        if step_of(folder) > step:
            delete_folder(folder)
