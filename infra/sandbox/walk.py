"""A stack's program run straight against the sandbox's AWS, and taken down in reverse: one ordered walk, no engine.

The program's own references give the order: Pulumi's SDK asks for a resource when all that its inputs are made of is
known, and gets what AWS answered. So every id, ARN and script is the one that an `up` would make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pulumi.runtime import mocks

from infra.durations import write_instant
from infra.plan import Answers, native, record_program
from infra.programs import declare
from infra.resolve import now, resolve
from infra.resource_types import BUCKET
from infra.sandbox.catalogue import kind_of
from infra.sandbox.journal import Journal, Made, StackRecord
from infra.sandbox.listing import tagged
from infra.sandbox.provider import SandboxProvider
from infra.sandbox.services.s3 import empty_bucket
from infra.settings import MachineSettings
from infra.stack_files import StackFile
from infra.steps import Left, Step, Tell, silent
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model


@dataclass(frozen=True, slots=True)
class Removed:
    """What a walk down removed, and what it left."""

    removed: tuple[Made, ...]
    left: tuple[Left, ...]
    objects: int = 0
    """Objects and versions that were removed from buckets first."""


class Interrupted(Exception):  # noqa: N818 (it says what happened, to the walk and to nobody else)
    """Asked for after a resource has failed: nothing more is made."""


@dataclass
class _Maker(Answers):
    """Stands for the engine's provider: makes what is asked for, and writes down each thing that it made."""

    provider: SandboxProvider
    record: StackRecord
    save: Callable[[], None]
    references: Mapping[str, Mapping[str, Any]]
    tell: Tell
    total: int = 0
    failure: UserError | None = field(default=None)

    def outputs_of(self, stack: str) -> Mapping[str, Any]:
        return self.references.get(stack, {})

    def resource(self, type_: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if self.failure is not None:
            raise Interrupted
        try:
            return self._make(type_, name, native(inputs))
        except UserError as error:
            self.failure = error
            raise Interrupted from error

    def _make(self, type_: str, name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        inputs = self.provider.check(type_, name, given)

        def made(id_: str) -> None:
            self.record.made.append(Made(type_, name, id_, inputs, kind_of(type_).lacking))
            self.save()

        id_, outputs = self.provider.create(type_, name, inputs, made)
        self.tell(Step("made", type_, name, id_, len(self.record.made), self.total))
        return id_, outputs

    def call(self, args: mocks.MockCallArgs) -> Any:
        if self.failure is not None:
            raise Interrupted
        try:
            return self.provider.invoke(args.token, args.args)
        except UserError as error:
            self.failure = error
            raise Interrupted from error


class StackFailedError(UserError):
    """A stack that could not be made whole; what had been made was removed, but for `left`."""

    def __init__(
        self, stack: str, cause: UserError, made: int, removal: Removed, half_made: tuple[Left, ...] = ()
    ) -> None:
        self.cause, self.removal = cause, removal
        self.left = left = (*removal.left, *half_made)
        after = (
            f"the {made} resources made before were removed; nothing is left"
            if not left
            else f"{len(removal.removed)} of the {made} made before were removed, left are "
            + "; ".join(f"{' '.join(filter(None, (x.type, x.name, x.id)))}: {x.reason}" for x in left)
        )
        super().__init__(f"stack {stack}: {cause}; {after}")


def bring_up(
    file: StackFile,
    provider: SandboxProvider,
    journal: Journal,
    *,
    tell: Tell = silent,
    total: int = 0,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
    clock: Callable[[], datetime] = now,
) -> StackRecord:
    """Make every resource of a stack; its shared stack must be up. `total` is for the progress that `tell` is told.

    Raises `UserError` for a stack that is up already, and `StackFailedError` where a resource could not be made: what
    had been made is then removed again.
    """
    if file.name in journal.stacks:
        raise UserError(f"stack {file.name} is in the sandbox already; `berth sandbox down {file.name}` removes it")
    moment = clock()
    context = resolve(
        file.name, file.region, file.settings, provider.aws.account, hardware or load_hardware(), find_model,
        strict=False, clock=lambda: moment,
    )  # fmt: skip
    references: dict[str, Mapping[str, Any]] = {}
    shared = file.shared_name
    if isinstance(file.settings, MachineSettings):
        if shared not in journal.stacks or not journal.stacks[shared].complete:
            raise UserError(f"stack {file.name} needs {shared} in the sandbox; `berth sandbox up {shared}` first")
        references[file.settings.shared_stack] = journal.stacks[shared].outputs
    expires = write_instant(context.expires_at) if context.expires_at else ""
    record = StackRecord(file.name, file.region, write_instant(moment), expires, uses=shared)
    journal.stacks[file.name] = record
    journal.save()
    provider.stand_ins.clear()
    maker = _Maker(provider, record, journal.save, references, tell, total)
    try:
        _, outputs = record_program(file.name, file.region, lambda: declare(context), lambda _: {}, maker)
    except BaseException:
        if maker.failure is None:
            # Not the walk's own: Ctrl-C, or a fault of the program. What it made must not stay behind either.
            take_down(file.name, provider, journal, tell=tell)
            raise
        outputs = {}
    record.stand_ins = dict(provider.stand_ins)
    if maker.failure is not None:
        made = len(record.made)
        removal = take_down(file.name, provider, journal, tell=tell)
        raise StackFailedError(file.name, maker.failure, made, removal, _half_made(provider, file.name, removal))
    record.outputs, record.complete = outputs, True
    journal.save()
    return record


def _half_made(provider: SandboxProvider, stack: str, removal: Removed) -> tuple[Left, ...]:
    """What AWS lists with the stack's tag and the journal does not know: made by a call whose next one failed."""
    known = {left.id for left in removal.left}
    return tuple(
        Left("", "", found.id, "it was made when the stack failed, and is in no journal")
        for found in tagged(provider.aws)
        if found.stack == stack and found.id.rsplit("/", 1)[-1] not in known and found.id not in known
    )


def take_down(stack: str, provider: SandboxProvider, journal: Journal, *, tell: Tell = silent) -> Removed:
    """Remove a stack, the last made first. What cannot be removed stays in the journal, so that it can be tried again.

    `protect` and `retain_on_delete` keep artifacts in AWS; a sandbox holds none of worth, and its buckets are emptied.
    Raises `UserError` for a stack that is not in the sandbox, or that another one uses.
    """
    if stack not in journal.stacks:
        known = ", ".join(journal.stacks) or "none is"
        raise UserError(f"stack {stack} is not in the sandbox; those that are: {known}")
    if users := journal.users_of(stack):
        raise UserError(f"stack {stack} is used by {', '.join(users)}; take that down first")
    record = journal.stacks[stack]
    record.complete = False
    removed: list[Made] = []
    left: list[Left] = []
    objects, total = 0, len(record.made)
    for made in reversed(list(record.made)):
        try:
            if made.type == BUCKET:
                objects += empty_bucket(provider.aws, made.id)
            provider.delete(made.type, made.name, made.id, made.inputs)
        except UserError as error:
            left.append(Left(made.type, made.name, made.id, str(error)))
            continue
        removed.append(made)
        record.made.remove(made)
        journal.save()
        tell(Step("removed", made.type, made.name, made.id, len(removed), total))
    # A thing may be removed only with another one, a default security group with its VPC: so all are read at the end.
    for made in removed:
        if not made.lacking and provider.read(made.type, made.name, made.id, made.inputs) is not None:
            left.append(Left(made.type, made.name, made.id, "AWS still has it"))
            record.made.insert(0, made)
    if not left:
        del journal.stacks[stack]
    journal.save()
    return Removed(tuple(m for m in removed if m not in record.made), tuple(left), objects)


def gone(record: StackRecord, provider: SandboxProvider) -> list[Made]:
    """What a stack made and AWS no longer has: removed behind its back, or by its own expiry."""
    return [m for m in record.made if not m.lacking and provider.read(m.type, m.name, m.id, m.inputs) is None]
