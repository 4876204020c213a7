"""What an `up` would do, cost and break, seen before anything exists: findings, changes, bill, policies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.bill.bill import bill_of, difference
from infra.cloud import Cloud, asking_aws
from infra.doctor.checks import artifacts, examine, offering
from infra.doctor.finding import Finding, Surroundings, run_command
from infra.lifecycle.engine import Changes, Engine, Resource
from infra.lifecycle.interlock import check as interlock
from infra.lifecycle.train_run import run_of
from infra.new_stack import record_choice
from infra.plan import PlannedResource, plan_stack
from infra.policy.rules import check
from infra.policy.subject import Subject
from infra.preview import Preview
from infra.resolve import now
from infra.resource_types import INSTANCE
from infra.settings import PROJECT, MachineSettings, TrainingSettings
from infra.stack_files import StackFile, dump_yaml, load_yaml, read_stack, write_text
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model


@dataclass(frozen=True, slots=True)
class Outlook:
    """`recorded`: what was written into the stack file because it had been left open."""

    file: StackFile
    findings: tuple[Finding, ...]
    recorded: dict[str, Any]
    preview: Preview
    changes: Changes

    @property
    def failed(self) -> list[Finding]:
        return [f for f in self.findings if f.status == "failed"]


def record_open_choices(stack: str, engine: Engine, clock: Callable[[], datetime] = now) -> dict[str, Any]:
    """Write sizing's choice, zones and the moment of expiry into the stack file; returns what was written.

    An expiry that has passed, of a stack of which nothing stands, is forgotten first: it was an earlier life's.
    """
    file = read_stack(stack, engine.project)
    settings = file.settings
    if isinstance(settings, MachineSettings) and settings.expiry is not None and settings.expiry <= clock():
        if engine.resources(stack):
            raise UserError(
                f"stack {stack} expired at {settings.expires_at}; `berth down {stack}` removes what is left of it, or "
                f"`berth extend {stack} --by 2h` while its machines live"
            )
        forget_expiry(file)
    return record_choice(stack, engine.project, clock)


def forget_expiry(file: StackFile) -> None:
    """Take the recorded moment out of a stack file, so that the next `up` counts its time to live anew."""
    document = load_yaml(file.path)
    if document["config"].pop(f"{PROJECT}:expires_at", None) is not None:
        write_text(file.path, dump_yaml(document))


def findings_for(file: StackFile, cloud: Cloud, *, sandbox: bool) -> Iterator[Finding]:
    """The doctor's checks; in the sandbox those that the local AWS can answer, and none of them stops it."""
    model = resolve_model(file.settings.model) if isinstance(file.settings, MachineSettings) else None
    around = Surroundings(cloud.client, run_command, os.environ)
    if not sandbox:
        yield from examine(file, around, load_hardware(), model)
        return
    if not isinstance(file.settings, MachineSettings):
        return
    instance = load_hardware().instances.get(file.settings.instance_type)
    if instance is not None:
        yield _softened(offering(around, file, instance), "moto's own list of what AWS offers")
    with asking_aws("to look for the artifacts"):
        for finding in artifacts(around, file, cloud.account):
            yield _softened(finding, "no machine of the sandbox needs it; `berth serve` and AWS do")


def _softened(finding: Finding, why: str) -> Finding:
    return finding if finding.status == "ok" else replace(finding, status="unknown", said=f"{finding.said} ({why})")


def needs_shared(file: StackFile, engine: Engine) -> str:
    """The shared stack that must be up first and is not; empty where nothing is missing."""
    shared = file.shared_name
    return shared if shared and not engine.outputs(shared) else ""


def look_ahead(
    stack: str,
    engine: Engine,
    cloud: Cloud,
    *,
    sandbox: bool,
    recorded: dict[str, Any] | None = None,
    clock: Callable[[], datetime] = now,
) -> Outlook:
    """Everything that is to be known before an `up` of `stack`. Raises `UserError` for wrong settings."""
    file = read_stack(stack, engine.project)
    findings = tuple(findings_for(file, cloud, sandbox=sandbox))
    # The engine needs what the doctor may have found missing; the plan needs nothing.
    lame = any(f.status == "failed" for f in findings)
    changes = Changes(stack, ()) if lame else engine.preview(stack)
    plan = changes.plan or plan_stack(stack, engine.project, clock=clock)
    if changes.coming is not None:
        plan = replace(plan, resources=tuple(changes.coming))
    bill = bill_of(plan)
    violations = tuple(check(Subject.of_plan(plan)))
    preview = Preview(plan, bill, violations)
    if changes.standing:
        before = bill_of(plan, resources=changes.standing)
        preview = Preview(plan, bill, violations, before, tuple(difference(before, bill)))
    return Outlook(file, findings, recorded or {}, preview, changes)


def endangered(outlook: Outlook, engine: Engine, cloud: Cloud) -> str:
    """Empty, or why this `up` would destroy work: it replaces or removes a node that trains."""
    file = outlook.file
    if not isinstance(file.settings, TrainingSettings):
        return ""
    going = [c for c in outlook.changes.of("replace", "delete") if c.type == INSTANCE]
    run = run_of(file.name, engine) if going else None
    if run is None:
        return ""
    verdict = interlock(run.outputs, cloud)
    if verdict.may_destroy:
        return ""
    keys = sorted({k for c in going for k in c.keys})
    return f"it would replace {', '.join(c.id or c.name for c in going)} ({', '.join(keys)}): {verdict.sentence}"


def as_planned(resources: Iterable[Resource]) -> tuple[PlannedResource, ...]:
    """What stands, as the bill reads it."""
    return tuple(PlannedResource(r.urn or f"{r.type}::{r.name}", r.type, r.name, r.parent, r.inputs) for r in resources)
