"""A run before it costs anything: its data examined, its bundle written, its settings, its plan and its bill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra.bill.bill import bill_of
from infra.doctor.finding import Finding
from infra.durations import parse_duration, write_instant
from infra.lifecycle.outlook import findings_for
from infra.lifecycle.saved import saved_under
from infra.lifecycle.train_data import Staged, stage
from infra.lifecycle.train_run import BEGUN, Desk, last_run_uri, read_note, run_name, training_file
from infra.plan import ACCOUNT, plan_file
from infra.policy.rules import check
from infra.policy.subject import Subject
from infra.preview import Preview
from infra.recommend import to_record
from infra.resolve import resolve
from infra.settings import TrainingSettings, read_settings
from infra.stack_files import StackFile
from infra.training_job import described, write_bundle
from model_runtime.handler.bundle import Bundle
from model_runtime.watch.limits import Limits
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

_DIGITS = 12
_OURS = frozenset({"bundle", "data set"})
"""Findings of the doctor about what this command puts there itself."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What would be run. `values` go into the stack file before the `up`; `file` is the stack as it is then."""

    run: str
    file: StackFile
    values: Mapping[str, Any]
    data: Staged
    bundle: Bundle
    preview: Preview
    notes: tuple[str, ...]

    @property
    def settings(self) -> TrainingSettings:
        if not isinstance(self.file.settings, TrainingSettings):
            raise TypeError("a training stack was expected")
        return self.file.settings


def prepare(
    stack: str,
    data: str,
    folder: Path,
    desk: Desk,
    *,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
    anew: bool = False,
) -> Prepared:
    """Examine the data, settle what the stack file leaves open, write the bundle into `folder`, price the plan.

    Nothing outside `folder` is changed. A run of the same data that ended with a checkpoint and no artifact is gone on
    with, but for `anew`. Raises `UserError` for data, settings or a plan that will not do.
    """
    file, settings = training_file(stack, desk.project)
    hardware, model = hardware or load_hardware(), find_model(settings.model)
    staged = stage(data, folder / "dataset", model, client=desk.cloud.client("s3"))
    moment = desk.clock()
    name, went = _name(stack, settings, staged, desk, anew)
    values: dict[str, Any] = {"dataset": staged.prefix(stack), "run": name, "expires_at": _expiry(settings, moment)}
    notes = [*staged.notes, *went]
    about, said = described(str(_train_file(staged)), model)
    # Those of this data set, whatever an earlier run has left in the stack file.
    values |= {key: about[key] for key in ("examples", "mean_input_tokens", "mean_output_tokens") if key in about}
    notes += said
    file = _with(file, values)
    found = to_record(_training(file), file.region, find_model, hardware, lambda: moment)
    values |= found.values
    file = _with(file, found.values)
    settings = _training(file)
    context = resolve(stack, file.region, settings, ACCOUNT, hardware, find_model, strict=True, clock=lambda: moment)
    bundle = write_bundle(file, context, folder / "bundle")
    sealed = {
        "bundle": f"bundles/{stack}/{bundle.manifest_sha256[:_DIGITS]}",
        "bundle_manifest_sha256": bundle.manifest_sha256,
    }
    values |= sealed
    file = _with(file, sealed)
    plan = plan_file(file, desk.project, hardware=hardware, find_model=find_model, clock=lambda: moment)
    preview = Preview(plan, bill_of(plan, hardware=hardware), tuple(check(Subject.of_plan(plan))))
    return Prepared(name, file, values, staged, bundle, preview, (*notes, *found.notes))


def _name(
    stack: str, settings: TrainingSettings, staged: Staged, desk: Desk, anew: bool
) -> tuple[str, tuple[str, ...]]:
    """The run's name, and what is to be said of an earlier run that it goes on with."""
    fresh = run_name(desk.clock)
    uri = "" if anew else last_run_uri(stack, settings, desk)
    begun = read_note(uri, BEGUN, desk.cloud) if uri else None
    if begun is None or begun.get("data", {}).get("sha256") != staged.sha256 or begun.get("model") != settings.model:
        return fresh, ()
    saved = saved_under(uri, desk.cloud.client("s3"))
    if saved.artifact is not None or saved.checkpoint is None:
        return fresh, ()
    said = (
        f"run {begun['run']} of the same data left {saved.checkpoint.location}: it is gone on with (--anew begins anew)"
    )
    return str(begun["run"]), (said,)


def _with(file: StackFile, values: Mapping[str, Any]) -> StackFile:
    given = {**file.given, **values}
    return replace(file, given=given, settings=read_settings(given, file.name))


def _training(file: StackFile) -> TrainingSettings:
    if not isinstance(file.settings, TrainingSettings):
        raise TypeError("a training stack was expected")
    return file.settings


def _train_file(staged: Staged) -> Path:
    return next(path for path in sorted(staged.folder.iterdir()) if path.stem == "train")


def _expiry(settings: TrainingSettings, moment: datetime) -> str:
    """Of this run, whatever an earlier one has left in the stack file. Raises `UserError` for one that is too near."""
    lives = parse_duration(settings.time_to_live) or timedelta(0)
    lead = timedelta(seconds=Limits().lead_s)
    if lives <= lead:
        raise UserError(
            f"time_to_live: {settings.time_to_live} leaves no time to train; its last {lead.total_seconds() / 60:.0f} "
            "minutes are for saving the work"
        )
    return write_instant(moment + lives)


def obstacles(stack: str, desk: Desk) -> list[Finding]:
    """What stands in the way of an `up`: credentials, quota, offering, image, base model. Nothing is changed."""
    file, _ = training_file(stack, desk.project)
    findings = findings_for(file, desk.cloud, sandbox=desk.sandbox)
    return [f for f in findings if f.status == "failed" and f.check not in _OURS]
