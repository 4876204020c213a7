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
_STORED = re.compile(rf"^(?:node-(\d+)/)?{FOLDER}/checkpoint-(\d+)/{re.escape(NAME)}$")
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


def sealed_steps(root: Path) -> set[int]:
    """Steps of the checkpoints under `root` that were sealed; whether every byte is there is not looked at."""
    return {step_of(folder) for folder in all_checkpoints(root) if (folder / NAME).is_file()}


def problem_of(folder: Path) -> str:
    """Empty where a checkpoint is as its manifest says, every byte; else what is not."""
    try:
        found = verify(str(folder))
    except ModelError as error:
        return str(error)
    return found.problems[0] if found.problems else ""


def newest_whole(root: Path, say: Say) -> Path | None:
    """The newest checkpoint under `root` that is as its manifest says, every byte; others are said aloud."""
    for folder in all_checkpoints(root):
        problem = problem_of(folder)
        if not problem:
            return folder
        say(f"{folder.name} is passed over: {problem}")
    return None


def stored_steps(upload: str, *, client: Any = None) -> dict[int, set[int]]:
    """Machine -> steps whose checkpoints are under `upload` (the first machine's) and `upload/node-N` with a manifest,
    which goes up last: a prefix without one is an upload that was cut. Raises `ModelError`."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = client or boto3.client("s3")
    bucket, prefix = split_s3(upload)
    found: dict[int, set[int]] = {}
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if match := _STORED.match(item["Key"][len(prefix) :]):
                    found.setdefault(int(match[1] or 0), set()).add(int(match[2]))
    except (ClientError, BotoCoreError) as error:
        raise ModelError(f"{upload} cannot be read: {error}; check the name, the region and permissions") from error
    return found


def fetch_step(uri: str, target: Path, say: Say, *, client: Any = None) -> bool:
    """Bring `target.name` from `uri`; each file's SHA-256 is compared while it comes. False, said aloud, where it is
    damaged there or cannot be had."""
    try:
        fetch_s3(f"{uri}/{FOLDER}/{target.name}", target, client=client)
    except ModelError as error:
        say(f"{target.name} in {uri} is passed over: {error}")
        return False
    if problem := problem_of(target):
        say(f"{target.name} in {uri} is passed over: {problem}")
        return False
    say(f"{target.name} was fetched from {uri}")
    return True


def drop_newer(root: Path, step: int) -> None:
    """Delete what an interrupted or damaged checkpoint after `step` left, so that it is written anew."""
    for folder in all_checkpoints(root):
        if step_of(folder) > step:
            delete_folder(folder)
