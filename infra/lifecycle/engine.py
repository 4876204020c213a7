"""What makes and removes stacks, as a port: its results, its errors, and the choice between its two implementations.

`infra.lifecycle.pulumi_engine` drives the `pulumi` CLI; `infra.lifecycle.walk_engine` the sandbox's ordered walk, where
there is no CLI.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from infra.steps import Left, Tell, silent
from sizing.errors import UserError

INSTALL_URL = "https://www.pulumi.com/docs/install/"
INSTALL = "curl -fsSL https://get.pulumi.com | sh"
"""Pulumi's own installer, as its page of installation gives it (2026-11-24)."""

Operation = Literal["create", "update", "replace", "delete", "same"]
DriftKind = Literal["gone", "changed"]


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a stack's state holds. `type` is Pulumi's, `id` the provider's; components are left out.

    `protect`: the engine refuses to remove it. `retain`: it is dropped from the state and stays in AWS.
    """

    type: str
    name: str
    id: str
    urn: str = ""
    parent: str = ""
    """URN of its component, empty where the state does not say."""
    protect: bool = False
    retain: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    """When it was made: ISO 8601 in UTC, empty where the state does not say."""

    @property
    def short_type(self) -> str:
        """`ec2.Instance` of `aws:ec2/instance:Instance`."""
        return short_type(self.type)

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name, "id": self.id}


def short_type(type_: str) -> str:
    return type_.removeprefix("aws:").split("/", maxsplit=1)[0] + "." + type_.rsplit(":", 1)[-1]


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """What an `up` would do with one resource; `keys` are the inputs that differ."""

    operation: Operation
    type: str
    name: str
    urn: str = ""
    id: str = ""
    keys: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"operation": self.operation, "type": self.type, "name": self.name, "keys": list(self.keys)}


@dataclass(frozen=True, slots=True)
class Changes:
    """What an `up` would change.

    `standing` and `coming` are `infra.plan.PlannedResource`s before and after, for the bill; `coming` is None where
    only the offline plan knows what would come.
    """

    stack: str
    changes: tuple[ResourceChange, ...]
    standing: tuple[Any, ...] = ()
    coming: tuple[Any, ...] | None = None
    plan: Any = None
    """The `infra.plan.Plan` that was made for it, None where none was."""

    def of(self, *operations: Operation) -> list[ResourceChange]:
        return [c for c in self.changes if c.operation in operations]

    @property
    def empty(self) -> bool:
        return all(c.operation == "same" for c in self.changes)

    def counts(self) -> dict[str, int]:
        found = {o: len(self.of(o)) for o in ("create", "update", "replace", "delete", "same")}
        return {name: number for name, number in found.items() if number}


@dataclass(frozen=True, slots=True)
class Removal:
    """What a destroy removed, what it left against its will, and what it kept because the stack says so."""

    removed: tuple[Resource, ...]
    left: tuple[Left, ...] = ()
    kept: tuple[Resource, ...] = ()
    objects: int = 0
    """Objects and versions that were removed from buckets first (sandbox only)."""


@dataclass(frozen=True, slots=True)
class StackSummary:
    """A stack that the engine has a state of. Moments are ISO 8601 in UTC, empty where they are not known.

    `complete` is False while an update is under way and where one broke off; `busy` says who is at work, empty for
    nobody.
    """

    name: str
    region: str = ""
    since: str = ""
    updated: str = ""
    resources: int = 0
    complete: bool = True
    busy: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """A resource that AWS no longer has, or has otherwise than the state says (`keys`)."""

    kind: DriftKind
    type: str
    name: str
    id: str
    keys: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "type": self.type, "name": self.name, "id": self.id, "keys": list(self.keys)}


class StackBusyError(UserError):
    """Somebody else is changing the stack: who and since when, as far as it is known."""

    def __init__(self, stack: str, who: str) -> None:
        self.stack, self.who = stack, who
        super().__init__(f"stack {stack} is being changed by {who}; wait for that to end, then try again")


class UpFailedError(UserError):
    """An `up` that did not come to its end. `standing` is what exists, and costs, all the same."""

    def __init__(self, stack: str, reason: str, standing: Sequence[Resource], undo: str) -> None:
        self.stack, self.reason, self.standing = stack, reason, tuple(standing)
        exists = f"{len(self.standing)} resources exist; {undo} removes them" if self.standing else "nothing is left"
        super().__init__(f"stack {stack}: {reason}; {exists}")


class Engine(Protocol):
    """Raises `UserError` for what a person can mend, `StackBusyError` where another one is at work on the stack."""

    @property
    def name(self) -> str:
        """How it is told to people: "pulumi 3.259.0", "the sandbox's walk"."""
        ...

    @property
    def project(self) -> Path:
        """The folder whose stack files it reads and in which choices are recorded: in the sandbox a copy."""
        ...

    def preview(self, stack: str) -> Changes:
        """What `up` would change. Changes nothing itself."""
        ...

    def up(self, stack: str, tell: Tell = silent) -> Mapping[str, Any]:
        """Make the stack what its program says; returns its outputs. Raises `UpFailedError`."""
        ...

    def destroy(self, stack: str, tell: Tell = silent) -> Removal:
        """Remove what the state holds but for protected resources. What is left stays in the state, so that the next
        `destroy` goes on. A stack whose state is empty is removed as well."""
        ...

    def outputs(self, stack: str) -> Mapping[str, Any]:
        """Outputs of the last `up`, empty for a stack that has no state."""
        ...

    def resources(self, stack: str) -> tuple[Resource, ...]:
        """What the state holds, in the order in which it was made; empty for a stack that has no state."""
        ...

    def stacks(self) -> tuple[StackSummary, ...]:
        """The stacks that have a state."""
        ...

    def drift(self, stack: str) -> tuple[Drift, ...]:
        """Where AWS differs from the state. Changes nothing."""
        ...

    def refresh(self, stack: str) -> tuple[Drift, ...]:
        """Take into the state what AWS says; returns what differed."""
        ...

    def rewrite(self, stack: str, change: Callable[[Any], Any]) -> None:
        """Pass the inputs and outputs of every resource, and the stack's outputs, through `change`: for what was moved
        in AWS without the engine, such as an expiry. Changes nothing but the state."""
        ...

    def explain(self) -> str:
        """Empty, or what a person should know of this engine: why it was taken and what it cannot do."""
        ...


def pulumi_on_path() -> bool:
    return shutil.which("pulumi") is not None


def missing_cli() -> UserError:
    return UserError(
        f"the pulumi CLI is not on PATH, and this needs it: {INSTALL_URL} ({INSTALL}); "
        "`berth preview` needs none, and --sandbox tries everything without it"
    )


def engine_for(root: Path, sandbox: bool, *, start: bool = False) -> Engine:
    """The engine for the project at `root`: the CLI's; in the sandbox without a CLI, the walk.

    With `start` the sandbox's AWS is started where it does not run. Raises `UserError` where AWS is meant and the CLI
    is missing, and where the sandbox does not run.
    """
    if sandbox:
        if pulumi_on_path():
            from infra.lifecycle.pulumi_engine import sandbox_engine  # noqa: PLC0415 (imports Pulumi)

            return sandbox_engine(root, start=start)
        from infra.lifecycle.walk_engine import open_walk  # noqa: PLC0415 (imports boto3 and Pulumi)

        return open_walk(root, start=start)
    if not pulumi_on_path():
        raise missing_cli()
    from infra.lifecycle.pulumi_engine import PulumiEngine  # noqa: PLC0415

    return PulumiEngine(root)
