"""A service stack pointed at a fine-tuned model, or back at its base model: checked, compared, then recorded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from infra.bill.bill import Bill, Change, bill_of, difference
from infra.bill.lines import cents
from infra.deployment.artifact import Artifact, examine
from infra.deployment.changes import Altered, altered
from infra.deployment.places import BucketPlace, FolderPlace, UnreachableError
from infra.places import bucket_name
from infra.plan import Plan, plan_file
from infra.policy.rules import check
from infra.policy.subject import Subject, Violation
from infra.resolve import now
from infra.settings import PROJECT, EndpointSettings, MachineSettings, ServiceSettings, read_settings
from infra.stack_files import StackFile, read_stack, record
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

KEYS = ("artifact", "artifact_manifest_sha256")
_BUCKET = re.compile(rf"{PROJECT}-(\d{{12}})-([a-z0-9-]+)-artifacts")
Reach = Callable[[str], tuple[str, Any]]
"""Region -> the account's number and boto3's client for S3 there. Raises `UnreachableError`."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What deploying would record and change, and how it is undone; nothing is written before `write`."""

    file: StackFile
    values: dict[str, Any]
    """Keys to record; None takes a key out."""
    artifact: Artifact | None
    """None: back to the base model."""
    before: Plan
    after: Plan
    bill_before: Bill
    bill_after: Bill
    undo: str
    next_steps: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def resources(self) -> list[Altered]:
        """What the next preview will change."""
        return altered(self.before.resources, self.after.resources)

    @property
    def lines(self) -> list[Change]:
        """What the bill's lines change by."""
        return difference(self.bill_before, self.bill_after)

    @property
    def refused(self) -> list[Violation]:
        """What policies find in the plan afterwards."""
        return [v for v in check(Subject.of_plan(self.after)) if v.level == "mandatory"]

    @property
    def recorded(self) -> dict[str, str]:
        """The keys as they stand afterwards."""
        settings = self.after.settings
        return {key: str(getattr(settings, key)) for key in KEYS}

    @property
    def same(self) -> bool:
        return all(getattr(self.file.settings, key) == value for key, value in self.recorded.items())

    def write(self) -> None:
        """Record it in the stack file, whose comments and other keys stay."""
        record(self.file.path, self.values)

    def to_json(self) -> dict[str, Any]:
        return {
            "stack": self.file.name,
            "file": str(self.file.path),
            "model": self.after.settings.model,
            "settings": self.recorded,
            "artifact": None if self.artifact is None else self.artifact.to_json(),
            "changes": [a.to_json() for a in self.resources],
            "bill": {
                "changes": [c.to_json() for c in self.lines],
                "usd_per_month_before": float(cents(self.bill_before.per_month)),
                "usd_per_month_after": float(cents(self.bill_after.per_month)),
            },
            "refused": [v.to_json() for v in self.refused],
            "undo": self.undo,
            "next": list(self.next_steps),
            "notes": list(self.notes),
        }


def deploy(
    name: str,
    root: Path,
    artifact: str,
    *,
    manifest_sha256: str = "",
    prefix: str = "",
    sizes_only: bool = False,
    reach: Reach,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
    clock: Callable[[], datetime] = now,
) -> Deployment:
    """Point the service stack `name` at `artifact`; nothing is written until the result's `write`.

    `artifact` is `s3://bucket/prefix` in the stack's artifact bucket, a prefix of that bucket, a local folder (its
    manifest's hash is recorded, `prefix` says where it will lie), or empty for the base model. Where S3 cannot be asked
    `manifest_sha256` must be given, and is recorded as it is: the host holds the artifact against it.

    Raises `UserError` for a stack that serves nothing, an artifact that is missing, damaged or of another model, and a
    bucket that the stack's role cannot read.
    """
    file = read_stack(name, root)
    settings = file.settings
    if not isinstance(settings, ServiceSettings):
        raise UserError(f"stack {name} has the role {settings.role}; only inference and endpoint stacks serve a model")
    if manifest_sha256 and not re.fullmatch(r"[0-9a-f]{64}", manifest_sha256):
        raise UserError(f"--manifest-sha256 is '{manifest_sha256}'; a SHA-256 is 64 digits of 0-9 and a-f")
    model = find_model(settings.model)
    found, key, steps, notes = _found(file, artifact, manifest_sha256, prefix, sizes_only, reach, model)
    sha = found.manifest_sha256 if found is not None else manifest_sha256
    values: dict[str, Any] = {"artifact": key or None, "artifact_manifest_sha256": sha or None}
    kept = {k: v for k, v in file.given.items() if k not in KEYS}
    given = {**kept, **{k: v for k, v in values.items() if v is not None}}
    changed = replace(file, settings=read_settings(given, name), given=given)
    hardware, moment = hardware or load_hardware(), clock()
    plans = [
        plan_file(f, root, hardware=hardware, find_model=find_model, clock=lambda: moment) for f in (file, changed)
    ]
    bills = [bill_of(plan, hardware=hardware) for plan in plans]
    return Deployment(
        file, values, found, plans[0], plans[1], bills[0], bills[1], undo(name, settings),
        (*steps, f"berth preview {quote(name)}"), notes,
    )  # fmt: skip


def undo(name: str, settings: MachineSettings) -> str:
    """The command that brings back what the stack file says before the change."""
    stated = f" --manifest-sha256 {settings.artifact_manifest_sha256}" if settings.artifact_manifest_sha256 else ""
    return f"berth deploy {quote(name)} --artifact {quote(settings.artifact)}{stated}"


def _found(
    file: StackFile, artifact: str, stated: str, prefix: str, sizes_only: bool, reach: Reach, model: ModelFacts
) -> tuple[Artifact | None, str, tuple[str, ...], tuple[str, ...]]:
    """The artifact (None for the base model), the key to record for it, steps before the preview, and notes."""
    if not artifact:
        if prefix:
            raise UserError("--to is for a local folder; the base model stays where it is")
        return None, "", (), ()
    folder = Path(artifact).expanduser()
    if not artifact.startswith("s3://") and folder.is_dir():
        found = examine(FolderPlace(folder.resolve()), model, stated, sizes_only=sizes_only)
        key = prefix or f"models/{file.name}-{found.manifest_sha256[:12]}"
        served = folder / found.below if found.below else folder
        step = f"berth bundle {quote(file.name)} --upload --model-folder {quote(str(served))}"
        return found, key, (step,), (*found.notes, f"the folder must be uploaded to {key} of the artifact bucket")
    if prefix:
        raise UserError(f"--to is for a local folder, and {artifact} is none")
    try:
        account, client = reach(file.region)
        place = BucketPlace(_uri(file, artifact, account), client)
        found = examine(place, model, stated, sizes_only=sizes_only)
    except UnreachableError as error:
        if not stated:
            raise UserError(
                f"{artifact} cannot be verified here: {error}. Give --manifest-sha256, as the handover printed it, to "
                f"record it unverified; {_who_checks(file)}"
            ) from error
        unverified = Artifact("", stated, 0, 0, "nothing")
        note = f"not verified here ({error}); {_who_checks(file)}"
        return unverified, _key(_uri(file, artifact, "")), (), (note,)
    below = f"/{found.below}" if found.below else ""
    return found, _key(place.uri) + below, (), found.notes


def _who_checks(file: StackFile) -> str:
    if isinstance(file.settings, EndpointSettings):
        return (
            "SageMaker fetches it without a check: `python -m model_runtime.artifacts verify` it where S3 can be asked"
        )
    return "the host holds every file against the manifest that is named and refuses another"


def _uri(file: StackFile, artifact: str, account: str) -> str:
    """The artifact in the stack's own bucket. Raises `UserError` for another bucket, which its role cannot read.

    Without an `account` the bucket of a URI is held against its pattern alone.
    """
    own = bucket_name("artifacts", account, file.region)
    if not artifact.startswith("s3://"):
        return f"s3://{own}/{artifact.strip('/')}"
    bucket, _, key = artifact.removeprefix("s3://").partition("/")
    matched = _BUCKET.fullmatch(bucket)
    fits = bucket == own if account else matched is not None and matched[2] == file.region
    if not fits:
        wanted = own if account else f"{PROJECT}-ACCOUNT-{file.region}-artifacts"
        raise UserError(
            f"{bucket} is not the artifact bucket of stack {file.name}, {wanted}, and its hosts can read no other; "
            f"copy it there: aws s3 sync {quote(artifact)} s3://{wanted}/{key.strip('/') or 'models/NAME'}"
        )
    if not key.strip("/"):
        raise UserError(f"{artifact} names a whole bucket; give the prefix of the artifact in it")
    return f"s3://{bucket}/{key.strip('/')}"


def _key(uri: str) -> str:
    return uri.removeprefix("s3://").partition("/")[2]
