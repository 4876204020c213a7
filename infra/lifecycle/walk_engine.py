"""The sandbox's ordered walk as an engine, for a machine without the `pulumi` CLI.

It makes a stack whole and takes it down; it does not change one that stands. Between commands it knows what its journal
says, and what carries the stack's tag: so what was being made when a command was killed is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pulumi.runtime import mocks

from infra.cloud import sandbox_aws
from infra.inventory import standing
from infra.lifecycle.engine import (
    INSTALL,
    INSTALL_URL,
    Changes,
    Drift,
    Operation,
    Removal,
    Resource,
    ResourceChange,
    StackSummary,
    UpFailedError,
)
from infra.lifecycle.lock import held, holder
from infra.lifecycle.place import Place, open_place
from infra.lifecycle.remove import ordered, remove
from infra.plan import Answers, PlannedResource, native, plan_file, record_program
from infra.programs import declare
from infra.resolve import now, resolve
from infra.sandbox import walk
from infra.sandbox.aws import Aws
from infra.sandbox.journal import Journal, Made, StackRecord, journal_in
from infra.sandbox.provider import SandboxProvider
from infra.sandbox.server import find, sandbox_dir
from infra.stack_files import StackFile, read_stack
from infra.steps import Left, Step, Tell, silent
from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model


def open_walk(root: Path, *, start: bool = False, folder: Path | None = None) -> WalkEngine:
    """The walk over the local AWS that runs. `start`: it is started by the first `up`. Raises `UserError`."""
    base = folder or sandbox_dir()
    if find(base) is None and start:
        with held(base, "of the sandbox", "starting the local AWS"):
            return WalkEngine(open_place(root, begin=True, folder=base))
    return WalkEngine(open_place(root, begin=False, folder=base))


class WalkEngine:
    """`provider` makes the provider of a region; tests give one that fails."""

    def __init__(
        self,
        place: Place,
        *,
        provider: Callable[[Aws], SandboxProvider] = SandboxProvider,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.place, self._provider, self._clock = place, provider, clock
        self._planned: dict[str, int] = {}
        self._providers: dict[str, SandboxProvider] = {}

    @property
    def name(self) -> str:
        return "the sandbox's walk"

    @property
    def project(self) -> Path:
        """The copy of the project whose stack files this engine reads."""
        return self.place.project

    def explain(self) -> str:
        return (
            "No pulumi CLI is on PATH: the stack's own program runs straight against the local AWS, in the order of "
            "its references, without Pulumi's engine and state; a stack that stands is not changed. "
            f"{INSTALL_URL} ({INSTALL}) brings the engine."
        )

    def preview(self, stack: str) -> Changes:
        file = read_stack(stack, self.project)
        record = self._journal().stacks.get(stack)
        if record is None or not record.complete:
            plan = plan_file(file, self.project, clock=self._clock)
            resources = [r for r in plan.resources if r.custom and r.type.startswith("aws:")]
            self._planned[stack] = len(resources)
            changes = tuple(ResourceChange("create", r.type, r.name, r.urn) for r in resources)
            return Changes(stack, changes, plan=plan)
        return self._compared(file, record)

    def up(self, stack: str, tell: Tell = silent) -> Mapping[str, Any]:
        file = read_stack(stack, self.project)
        with held(self.place.folder, stack, f"berth up {stack}"):
            journal = self._journal()
            record = journal.stacks.get(stack)
            if record is not None and record.complete:
                different = self._compared(file, record).of("create", "update", "replace", "delete")
                if different:
                    said = ", ".join(f"{c.operation} {c.name} ({', '.join(c.keys)})" for c in different[:3])
                    raise UserError(
                        f"stack {stack} stands otherwise than its file says ({len(different)} changes: {said}), and "
                        f"without the pulumi CLI it is not changed: `berth down {stack} --sandbox`, then up again; or "
                        f"install the CLI: {INSTALL_URL}"
                    )
                return record.outputs
            provider = self._of(file.region)
            if record is not None and (left := self._clear(stack, provider, journal, tell).left):
                said = "; ".join(f"{x.type} {x.id}: {x.reason}" for x in left)
                raise UserError(f"stack {stack}: what a command that broke off had made cannot be removed: {said}")
            total = self._planned.get(stack, 0)
            try:
                made = walk.bring_up(file, provider, journal, tell=tell, total=total, clock=self._clock)
            except walk.StackFailedError as error:
                standing_still = [Resource(x.type, x.name, x.id) for x in error.left]
                undo = f"`berth down {stack} --sandbox`"
                raise UpFailedError(
                    stack, f"{error.cause} (what was made before was removed)", standing_still, undo
                ) from error
            return made.outputs

    def destroy(self, stack: str, tell: Tell = silent) -> Removal:
        with held(self.place.folder, stack, f"berth down {stack}"):
            journal = self._journal()
            record = journal.stacks.get(stack)
            region = record.region if record is not None else self._region(stack)
            return self._clear(stack, self._of(region), journal, tell)

    def outputs(self, stack: str) -> Mapping[str, Any]:
        record = self._journal().stacks.get(stack)
        return {} if record is None else record.outputs

    def resources(self, stack: str) -> tuple[Resource, ...]:
        record = self._journal().stacks.get(stack)
        return () if record is None else tuple(_resource(m, record.since) for m in record.made)

    def stacks(self) -> tuple[StackSummary, ...]:
        busy = holder(self.place.folder)
        return tuple(
            StackSummary(
                r.name, r.region, r.since, r.since, len(r.made), r.complete, busy if not r.complete else ""
            )
            for r in self._journal().stacks.values()
        )  # fmt: skip

    def drift(self, stack: str) -> tuple[Drift, ...]:
        """What is gone from AWS. What was changed there is not seen without the CLI."""
        record = self._journal().stacks.get(stack)
        if record is None:
            return ()
        return tuple(Drift("gone", m.type, m.name, m.id) for m in walk.gone(record, self._of(record.region)))

    def refresh(self, stack: str) -> tuple[Drift, ...]:
        with held(self.place.folder, stack, f"refreshing {stack}"):
            journal = self._journal()
            found = self.drift(stack)
            if found:
                lost = {(d.type, d.name) for d in found}
                record = journal.stacks[stack]
                record.made = [m for m in record.made if (m.type, m.name) not in lost]
                journal.save()
            return found

    def rewrite(self, stack: str, change: Callable[[Any], Any]) -> None:
        with held(self.place.folder, stack, f"rewriting the state of {stack}"):
            journal = self._journal()
            record = journal.stacks.get(stack)
            if record is None:
                return
            record.outputs = change(record.outputs)
            record.expires_at = change(record.expires_at)
            record.made = [replace(m, inputs=change(m.inputs)) for m in record.made]
            journal.save()

    def _journal(self) -> Journal:
        return journal_in(self.place.folder, self.place.server.run)

    def _of(self, region: str) -> SandboxProvider:
        if region not in self._providers:
            self._providers[region] = self._provider(sandbox_aws(self.place.server.endpoint, region))
        return self._providers[region]

    def _region(self, stack: str) -> str:
        return read_stack(stack, self.project).region

    def _clear(self, stack: str, provider: SandboxProvider, journal: Journal, tell: Tell) -> Removal:
        """Take down what the journal has, then what has the stack's tag and is in no journal."""
        known_here = stack in journal.stacks
        removal = walk.Removed((), ())
        if known_here:
            removal = walk.take_down(stack, provider, journal, tell=tell)
        removed = [_resource(m) for m in removal.removed]
        left = list(removal.left)
        known = {x.id for x in left}
        for found in ordered(standing(provider.aws, stack)):
            if found.id in known or found.id.rsplit("/", 1)[-1] in known:
                continue
            problem = remove(found, provider.aws)
            if problem:
                left.append(Left(found.kind, "", found.id, problem))
            else:
                removed.append(Resource(found.kind, "", found.id))
                tell(Step("removed", found.kind, "", found.id, len(removed)))
        if not removed and not left and not known_here:
            raise UserError(f"stack {stack} is not in the sandbox, and nothing there has its tag")
        return Removal(tuple(removed), tuple(left), objects=removal.objects)

    def _compared(self, file: StackFile, record: StackRecord) -> Changes:
        """The program run over what stands, so that its inputs are the very ones that an `up` would give."""
        provider = self._of(file.region)
        comparer = _Comparer(provider, record, self._journal())
        context = resolve(
            file.name, file.region, file.settings, provider.aws.account, load_hardware(), resolve_model,
            strict=False, clock=self._clock,
        )  # fmt: skip
        registered, _ = record_program(file.name, file.region, lambda: declare(context), lambda _: {}, comparer)
        coming = tuple(r for r in registered if r.custom)
        urns = {(r.type, r.name): r for r in coming}
        named = {(c.type, c.name) for c in comparer.changes}
        dropped = [m for m in record.made if (m.type, m.name) not in named]
        changes = [*comparer.changes, *(ResourceChange("delete", m.type, m.name, id=m.id) for m in dropped)]
        before = tuple(
            PlannedResource(
                urns[m.type, m.name].urn if (m.type, m.name) in urns else f"{m.type}::{m.name}",
                m.type,
                m.name,
                urns[m.type, m.name].parent if (m.type, m.name) in urns else "",
                m.inputs,
            )
            for m in record.made
        )
        return Changes(file.name, tuple(changes), before, tuple(registered))


class _Comparer(Answers):
    """Answers with what stands, and holds each resource's inputs against those that it was made with."""

    def __init__(self, provider: SandboxProvider, record: StackRecord, journal: Journal) -> None:
        self.provider, self.journal = provider, journal
        self.made = {(m.type, m.name): m for m in record.made}
        self.changes: list[ResourceChange] = []

    def outputs_of(self, stack: str) -> Mapping[str, Any]:
        shared = self.journal.stacks.get(stack.rsplit("/", 1)[-1])
        return shared.outputs if shared is not None else {}

    def resource(self, type_: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        given = native(inputs)
        made = self.made.get((type_, name))
        if made is None:
            self.changes.append(ResourceChange("create", type_, name))
            return f"{name}-id", given
        coming = self.provider.check(type_, name, given, made.inputs)
        found = self.provider.diff(type_, name, made.inputs, coming)
        operation: Operation = "replace" if found.replaces else "update" if found.changed else "same"
        self.changes.append(ResourceChange(operation, type_, name, id=made.id, keys=found.changed))
        return made.id, self.provider.read(type_, name, made.id, made.inputs) or dict(made.inputs)

    def call(self, args: mocks.MockCallArgs) -> Any:
        return self.provider.invoke(args.token, args.args)


def _resource(made: Made, since: str = "") -> Resource:
    return Resource(made.type, made.name, made.id, inputs=made.inputs, created=since)
