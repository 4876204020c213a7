"""What of a training run is safe: its artifact and its checkpoints in S3, held against their manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.durations import parse_instant
from infra.errors import one_line
from model_runtime.artifacts import Verified, verify
from model_runtime.errors import ModelError, in_one_line
from model_runtime.fetch import split_s3
from model_runtime.manifest import NAME
from model_runtime.watch.status import Status, read_status
from sizing.errors import UserError
from sizing.units import GIB

ARTIFACT, CHECKPOINTS = "artifact", "checkpoints"
READ_HERE_BYTES = 2 * GIB
"""An artifact up to this size is always read here, every byte. For a larger one the node's own reading is taken, where
its status names this very manifest and nothing was written since: reading it again from afar costs more than a look."""
_STEP = re.compile(r"checkpoint-(\d+)/")


@dataclass(frozen=True, slots=True)
class Saved:
    """`artifact` and `checkpoint` (the newest that is whole) as they were just verified in S3, None where there is
    none; `problems` says why something is not whole. `checked` says how the artifact, else the checkpoint, was held
    against its manifest. `written_at`: when the artifact's manifest, which is written last, came there."""

    uri: str
    artifact: Verified | None = None
    checkpoint: Verified | None = None
    problems: tuple[str, ...] = ()
    checked: str = ""
    written_at: datetime | None = None

    @property
    def best(self) -> Verified | None:
        return self.artifact or self.checkpoint

    @property
    def sentence(self) -> str:
        """What is safe, in words."""
        if self.artifact is not None:
            return f"The artifact is whole in S3 ({self.checked}): {self.artifact.location}."
        broken = f" {'; '.join(self.problems[:3])}." if self.problems else ""
        if self.checkpoint is not None:
            where = f"({self.checked}): {self.checkpoint.location}"
            return f"No whole artifact is in S3; a whole checkpoint is {where}.{broken}"
        return f"Neither a whole artifact nor a whole checkpoint is in S3, under {self.uri}.{broken}"


def node_uris(uri: str, nodes: int) -> tuple[str, ...]:
    """Where each node writes, by rank (`model_runtime.watchdog.place`)."""
    base = uri.rstrip("/")
    return (base, *(f"{base}/node-{rank}" for rank in range(1, nodes)))


def status_of(uri: str, client: Any) -> Status | None:
    """The watchdog's last word under a run's prefix, None before the first. Raises `UserError`."""
    with in_one_line():
        return read_status(uri, client=client)


def saved_under(uri: str, client: Any, status: Status | None = None) -> Saved:
    """Hold what lies under the run's prefix against its manifests. Raises `UserError` where S3 cannot be read."""
    try:
        there = dict(_listed(uri, client))
        if not there:
            return Saved(uri)
        found, checked, problems = _verified(f"{uri}/{ARTIFACT}", there, ARTIFACT, client, status)
        if found is not None:
            written = there[f"{ARTIFACT}/{NAME}"][1]
            return Saved(uri, found, None, tuple(problems), checked, written)
        for place in _checkpoints(there):
            found, checked, more = _verified(f"{uri}/{place}", there, place, client, status)
            problems += more
            if found is not None:
                return Saved(uri, None, found, tuple(problems), checked)
    except ModelError as error:
        raise UserError(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"{uri} cannot be read: {one_line(error)}; check permissions") from error
    return Saved(uri, problems=tuple(problems))


def is_whole(location: str, client: Any) -> bool:
    """Whether what a watchdog said it brought there is there, every byte. Raises `UserError`."""
    try:
        return not _harmful(verify(location, client=client))
    except ModelError as error:
        if "holds no files" in str(error):
            return False
        raise UserError(str(error)) from error


def _listed(uri: str, client: Any) -> Iterator[tuple[str, tuple[int, datetime]]]:
    bucket, prefix = split_s3(uri)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            yield item["Key"][len(prefix) :], (int(item["Size"]), item["LastModified"])


def _checkpoints(there: Mapping[str, Any]) -> list[str]:
    """Places of checkpoints that have a manifest, the newest first."""
    steps = {
        int(found[1])
        for path in there
        if path.endswith(f"/{NAME}") and (found := _STEP.fullmatch(path.removeprefix(f"{CHECKPOINTS}/")[: -len(NAME)]))
    }
    return [f"{CHECKPOINTS}/checkpoint-{step}" for step in sorted(steps, reverse=True)]


def _verified(
    location: str, there: Mapping[str, tuple[int, datetime]], place: str, client: Any, status: Status | None
) -> tuple[Verified | None, str, list[str]]:
    """What is whole, how that was found, and what is wrong where it is not."""
    own = {path: it for path, it in there.items() if path.startswith(f"{place}/")}
    if not own:
        return None, "", []
    size = sum(it[0] for it in own.values())
    if size > READ_HERE_BYTES and _read_by_node(location, own, status):
        found = verify(location, client=client, sizes_only=True)
        if found.manifest_sha256 == _word(location, status).get("manifest_sha256"):
            checked = "sizes and manifest here; every byte by the node, and nothing was written since"
            return (found, checked, []) if not _harmful(found) else (None, "", _said(place, found))
    found = verify(location, client=client)
    return (found, "every byte", []) if not _harmful(found) else (None, "", _said(place, found))


def _harmful(found: Verified) -> list[str]:
    """Problems but for objects that the manifest does not name, which an earlier, cut upload leaves."""
    return [p for p in found.problems if not p.endswith(" is not in the manifest")]


def _said(place: str, found: Verified) -> list[str]:
    return [f"{place}: {problem}" for problem in _harmful(found)]


def _word(location: str, status: Status | None) -> Mapping[str, Any]:
    """What the status says of a place that its node verified, empty where it says nothing."""
    items = (status.delivered or {}).get("items", []) if status is not None else []
    return next((item for item in items if item.get("location") == location), {})


def _read_by_node(location: str, own: Mapping[str, tuple[int, datetime]], status: Status | None) -> bool:
    word = _word(location, status)
    if status is None or word.get("checked") != "every byte":
        return False
    return max(it[1] for it in own.values()) <= parse_instant(status.updated_at)
