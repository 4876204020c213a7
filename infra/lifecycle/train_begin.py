"""A run begun: its data and bundle in the bucket, its settings recorded, its stack brought up.

Every step can be done again: uploads skip what is there, the stack file is written as a whole, and the engine's `up`
goes on where one broke off. So a command that is killed at any of them is followed by the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.durations import write_instant
from infra.lifecycle.engine import UpFailedError
from infra.lifecycle.train_prepare import Prepared
from infra.lifecycle.train_run import (
    BEGUN,
    Desk,
    Run,
    ended_note,
    note,
    read_note,
    shared_outputs,
    standing_run,
    whoami,
)
from infra.places import BUCKET_OUTPUT, artifact_prefix, bundle_prefix, run_prefix
from infra.resource_types import INSTANCE
from infra.stack_files import record, stack_path
from infra.steps import Tell, silent
from model_runtime.artifacts import upload
from model_runtime.errors import in_one_line
from sizing.errors import UserError

STEPS = ("shared stack", "data", "bundle", "settings", "note", "stack", "machines")
"""In this order; `begin` tells each before it is done."""


class RunStandsError(UserError):
    """Another run of the stack stands already."""

    def __init__(self, run: Run, option: str) -> None:
        self.run = run
        super().__init__(
            f"stack {run.stack} has a run already, on {', '.join(run.instances)}; "
            f"`berth train --attach {run.stack}{option}` follows it, `berth down {run.stack}{option}` ends it"
        )


Base = Callable[[str, str, Prepared, Any], str]
"""(bucket, prefix, the run, S3) -> the base model that it put where none was, in words (the sandbox's)."""


def begin(
    prepared: Prepared,
    desk: Desk,
    *,
    base: Base | None = None,
    step: Callable[[str], None] = lambda _: None,
    tell: Tell = silent,
) -> Run:
    """Bring the run up. Raises `RunStandsError` where one stands, and what the engine raises."""
    stack, settings = prepared.file.name, prepared.settings
    step("shared stack")
    shared = shared_outputs(settings, desk)
    if not shared.get(BUCKET_OUTPUT):
        if not desk.sandbox:
            raise UserError(
                f"the shared stack {settings.shared_name} is not up; `berth up {settings.shared_name}` first"
            )
        shared = desk.engine.up(settings.shared_name, tell)
    if (standing := standing_run(stack, desk)) is not None:
        raise RunStandsError(standing, desk.option)
    bucket, s3 = str(shared[BUCKET_OUTPUT]), desk.cloud.client("s3")
    if base is not None:
        desk.say(base(bucket, artifact_prefix(settings), prepared, s3))
    step("data")
    _send(prepared.data.folder, f"s3://{bucket}/{settings.dataset}", s3, desk)
    step("bundle")
    _send(prepared.bundle.folder, f"s3://{bucket}/{bundle_prefix(settings, stack)}", s3, desk)
    step("settings")
    record(stack_path(stack, desk.project), prepared.values)
    step("note")
    uri = f"s3://{bucket}/{run_prefix(settings, stack)}"
    note(uri, BEGUN, {**begun(prepared, desk), "earlier": _earlier(uri, desk)}, desk.cloud)
    step("stack")
    changes = desk.engine.preview(stack)
    touched = [c.id or c.name for c in changes.of("update", "replace", "delete", "same") if c.type == INSTANCE]
    if touched:  # somebody else's run has come up since
        raise UserError(
            f"stack {stack} has a machine ({', '.join(touched)}), which has another run; "
            f"`berth train --attach {stack}{desk.option}` follows its run"
        )
    try:
        outputs = desk.engine.up(stack, tell)
    except UpFailedError as error:
        raise _told(error, stack, desk) from error
    step("machines")
    if desk.machines is not None:
        desk.machines.switch_on(outputs)
    return Run(stack, outputs)


def _earlier(uri: str, desk: Desk) -> list[dict[str, Any]]:
    """The attempts of this run that were interrupted, which it goes on with, and what each came to (None: unknown)."""
    before = read_note(uri, BEGUN, desk.cloud)
    if before is None:
        return []
    bill = (ended_note(uri, before, desk.cloud) or {}).get("bill") or {}
    return [*before.get("earlier", []), {"at": before.get("at"), "by": before.get("by"), "usd": bill.get("usd")}]


def _told(error: UpFailedError, stack: str, desk: Desk) -> UserError:
    """Whether a machine stands all the same is what decides what to do."""
    machines = [r.id for r in error.standing if r.type == INSTANCE]
    if not machines:
        return error
    return UserError(
        f"{error}; its machine {', '.join(machines)} has begun all the same and ends by itself at its expiry: "
        f"`berth train --attach {stack}{desk.option}` follows it and removes the rest"
    )


def _send(folder: Path, uri: str, client: Any, desk: Desk) -> None:
    with in_one_line():
        upload(folder, uri, client=client, wait=desk.wait)


def begun(prepared: Prepared, desk: Desk) -> Mapping[str, Any]:
    """What others need to know of the run, and the price by which its bill is made."""
    bill = prepared.preview.bill
    return {
        "stack": prepared.file.name,
        "run": prepared.run,
        "by": whoami(),
        "at": write_instant(desk.clock()),
        "model": prepared.settings.model,
        "instance_type": prepared.settings.instance_type,
        "region": prepared.file.region,
        "expires_at": prepared.values["expires_at"],
        "data": prepared.data.to_json(),
        "bundle_manifest_sha256": prepared.bundle.manifest_sha256,
        "lines": [
            {
                "resource": line.resource,
                "type": line.type,
                "item": line.item,
                "usd_per_hour": str(line.per_hour),
                "as_of": line.as_of,
            }
            for line in bill.lines
            if line.per_hour
        ],
        "unpriced": [f"{line.resource}: {line.item}" for line in bill.with_status("unpriced")],
        "worst_case_usd": str(bill.worst_case),
    }
