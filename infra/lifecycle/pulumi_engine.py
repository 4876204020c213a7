"""Pulumi's own engine through its Automation API: the `pulumi` CLI of the person, their backend, their files."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pulumi import automation as auto
from pulumi.automation import errors
from pulumi.automation.events import EngineEvent, StepEventMetadata, StepEventStateMetadata
from semver import VersionInfo

from infra.doctor.checks import LEAST_PULUMI
from infra.engine_preview import in_words
from infra.errors import one_line
from infra.lifecycle.engine import (
    INSTALL,
    INSTALL_URL,
    Changes,
    Drift,
    Operation,
    Removal,
    Resource,
    ResourceChange,
    StackBusyError,
    StackSummary,
    UpFailedError,
    missing_cli,
    pulumi_on_path,
)
from infra.lifecycle.lock import alive, held
from infra.lifecycle.place import Place, open_place
from infra.plan import PlannedResource, plan_stack
from infra.resource_types import BUCKET
from infra.sandbox.aws import Aws
from infra.sandbox.journal import journal_in
from infra.sandbox.kind import unless_gone
from infra.sandbox.project import engine_environment
from infra.sandbox.server import find, sandbox_dir
from infra.sandbox.services.s3 import empty_bucket
from infra.settings import PROJECT
from infra.steps import Left, Step, Tell, silent
from sizing.errors import UserError

_OPERATIONS: dict[str, Operation] = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "delete": "delete",
    "same": "same",
    "import": "create",
}
"""Of the engine's steps, those that a person is told; the steps that a replacement is made of are told as one."""
_VERBS = {"create": "made", "update": "changed", "replace": "replaced", "delete": "removed"}
_LOCK = re.compile(r"created by (?P<user>[^@\s]+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<since>\S+)")
_MOST = 300
"""Characters of what the engine says, in one line."""


def sandbox_engine(root: Path, *, start: bool = False, folder: Path | None = None) -> PulumiEngine:
    """The engine over the local AWS, with a state of its own. `start`: it is started where it does not run."""
    base = folder or sandbox_dir()
    if find(base) is None and start:
        with held(base, "of the sandbox", "starting the local AWS"):
            return _over(open_place(root, begin=True, folder=base))
    return _over(open_place(root, begin=False, folder=base))


def _over(place: Place) -> PulumiEngine:
    return PulumiEngine(place.project, engine_environment(place.server.endpoint, place.state), place)


class PulumiEngine:
    """`environment` is added to that of the CLI; `place` is the sandbox's, None for AWS itself."""

    def __init__(self, project: Path, environment: Mapping[str, str] | None = None, place: Place | None = None) -> None:
        if not pulumi_on_path():
            raise missing_cli()
        self._project, self.place = project, place
        self._environment = dict(environment or {})
        self._planned: dict[str, int] = {}
        self._workspace: Any = None
        self._version = ""

    @property
    def project(self) -> Path:
        return self._project

    @property
    def workspace(self) -> Any:
        if self._workspace is None:
            command = auto.PulumiCommand(skip_version_check=True)
            self._version = str(command.version or "")
            least = VersionInfo(*LEAST_PULUMI)
            # A CLI that people have built themselves says no version: it is taken for one that will do.
            command.version = command.version or least
            if command.version < least:
                raise UserError(
                    f"the pulumi CLI is {self._version}; {least} or later is needed: {INSTALL_URL} ({INSTALL})"
                )
            self._mend()
            self._workspace = auto.LocalWorkspace(
                work_dir=str(self.project), env_vars=self._environment, pulumi_command=command
            )
        return self._workspace

    @property
    def name(self) -> str:
        return f"pulumi {self._version}" if self.workspace and self._version else "pulumi"

    def explain(self) -> str:
        walked = self._walked()
        if not walked:
            return ""
        return f"Made in this sandbox before there was a CLI: {', '.join(walked)}; `berth sandbox status` shows them."

    def _walked(self) -> list[str]:
        """The stacks that the walk made on this local AWS: in no state of the engine's."""
        if self.place is None:
            return []
        return sorted(journal_in(self.place.folder, self.place.server.run).stacks)

    def preview(self, stack: str) -> Changes:
        if stack in self._walked():
            raise UserError(
                f"stack {stack} was made in this sandbox without the pulumi CLI, whose engine does not know it; "
                f"`berth sandbox down {stack}` removes it"
            )
        if not self._known(stack):
            # A look must not make an empty stack in the person's backend.
            plan = plan_stack(stack, self.project)
            planned = [r for r in plan.resources if r.custom and r.type.startswith("aws:")]
            self._planned[stack] = len(planned)
            return Changes(stack, tuple(ResourceChange("create", r.type, r.name, r.urn) for r in planned), plan=plan)
        heard = _Heard()
        self._run(stack, heard, lambda: self._stack(stack).preview(on_event=heard))
        self._planned[stack] = sum(c.operation != "same" for c in heard.changes.values())
        return Changes(stack, tuple(heard.changes.values()), tuple(heard.before.values()), tuple(heard.after.values()))

    def up(self, stack: str, tell: Tell = silent) -> Mapping[str, Any]:
        if self._state(stack).get("pending_operations"):
            # A command was killed while AWS made something: the engine forgets it, `berth status` finds it by its tags.
            self.refresh(stack)
        heard = _Heard(tell, self._planned.get(stack, 0))
        found = self._stack(stack, create=True)
        try:
            result = self._run(stack, heard, lambda: found.up(on_event=heard))
        except StackBusyError:
            raise
        except UserError as error:
            undo = f"`berth down {stack}{' --sandbox' if self.place else ''}`"
            raise UpFailedError(stack, str(error), self.resources(stack), undo) from error
        return {name: value.value for name, value in result.outputs.items()}

    def destroy(self, stack: str, tell: Tell = silent) -> Removal:
        if not self._known(stack):
            return Removal(())
        before = self.resources(stack)
        objects = self._unprotect(stack, before)
        removable = [r for r in before if not r.protect or self.place]
        heard = _Heard(tell, len(removable))
        problem = ""
        try:
            own = self._stack(stack)
            gone = {"on_event": heard, "exclude_protected": True, "continue_on_error": True}
            self._run(stack, heard, lambda: own.destroy(**gone))
        except StackBusyError:
            raise
        except UserError as error:
            problem = str(error)
        standing = {r.urn for r in self.resources(stack)}
        kept = tuple(r for r in before if (r.protect and r.urn in standing) or (r.retain and r.urn not in standing))
        if self.place:
            kept = ()
        names = {r.urn for r in kept}
        left = tuple(
            Left(r.type, r.name, r.id, heard.reasons.get(r.urn) or problem or "it stands in the state still")
            for r in before
            if r.urn in standing and r.urn not in names
        )
        removed = tuple(r for r in before if r.urn not in standing and r.urn not in names)
        if problem and not left:
            raise UserError(f"stack {stack}: {problem}")
        if not standing:
            with self._asking(stack, _Heard()):
                self.workspace.remove_stack(stack, preserve_config=True)
        return Removal(removed, left, kept, objects)

    def outputs(self, stack: str) -> Mapping[str, Any]:
        if not self._known(stack):
            return {}
        with self._asking(stack, _Heard()):
            return {name: value.value for name, value in self._stack(stack).outputs().items()}

    def resources(self, stack: str) -> tuple[Resource, ...]:
        return tuple(_resource(r) for r in self._state(stack).get("resources", []) if _of_cloud(r))

    def stacks(self) -> tuple[StackSummary, ...]:
        with self._asking("", _Heard()):
            listed = self.workspace.list_stacks()
        return tuple(self._summary(s.name.rsplit("/", 1)[-1], bool(s.update_in_progress)) for s in listed)

    def drift(self, stack: str) -> tuple[Drift, ...]:
        if not self._known(stack):
            return ()
        heard = _Heard(refreshing=True)
        self._run(stack, heard, lambda: self._stack(stack).preview_refresh(on_event=heard))
        return tuple(heard.drift.values())

    def refresh(self, stack: str) -> tuple[Drift, ...]:
        if not self._known(stack):
            return ()
        heard = _Heard(refreshing=True)
        self._run(stack, heard, lambda: self._stack(stack).refresh(on_event=heard, clear_pending_creates=True))
        return tuple(heard.drift.values())

    def rewrite(self, stack: str, change: Callable[[Any], Any]) -> None:
        def both(resource: dict[str, Any]) -> None:
            for part in ("inputs", "outputs"):
                if resource.get(part):
                    resource[part] = change(resource[part])

        self._edit(stack, both)

    def _edit(self, stack: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Pass every resource of the state, as `pulumi stack export` has it, through `change`, which alters it."""
        with self._asking(stack, _Heard()):
            found = self._stack(stack)
            exported = found.export_stack()
            for resource in exported.deployment.get("resources", []):
                change(resource)
            found.import_stack(exported)

    def _stack(self, stack: str, *, create: bool = False) -> Any:
        with self._asking(stack, _Heard()):
            if create:
                return auto.Stack.create_or_select(stack, self.workspace)
            return auto.Stack.select(stack, self.workspace)

    def _known(self, stack: str) -> bool:
        with self._asking(stack, _Heard()):
            return any(s.name.rsplit("/", 1)[-1] == stack for s in self.workspace.list_stacks())

    def _state(self, stack: str) -> dict[str, Any]:
        if not self._known(stack):
            return {}
        with self._asking(stack, _Heard()):
            return dict(self.workspace.export_stack(stack).deployment or {})

    def _summary(self, stack: str, in_progress: bool) -> StackSummary:
        state = self._state(stack)
        found = [r for r in state.get("resources", []) if _of_cloud(r)]
        created = sorted(str(r["created"]) for r in found if r.get("created"))
        changed = sorted(str(r.get("modified") or r["created"]) for r in found if r.get("created"))
        locks = self._locks(stack)
        busy = next((told for told, living in locks if living), "another update" if in_progress and not locks else "")
        with self._asking(stack, _Heard()):
            history = auto.Stack.select(stack, self.workspace).history(page_size=1, page=1)
        # An update is in the history from its end on; a command that was killed leaves its lock, in files at least.
        whole = (history[0].result == "succeeded" if history else not found) and not locks
        region = next((str(r["outputs"]["region"]) for r in found if (r.get("outputs") or {}).get("region")), "")
        return StackSummary(
            stack, region, _second(created[0]) if created else "", _second(changed[-1]) if changed else "",
            len(found), whole and not state.get("pending_operations") and not busy, busy,
        )  # fmt: skip

    def _locks(self, stack: str) -> list[tuple[str, bool]]:
        """Who holds the stack in a backend of files, and whether that process lives; none of another backend."""
        files, found = self._files(), []
        if files is None:
            return []
        folder = files / "locks" / "organization" / PROJECT / stack
        for path in sorted(folder.glob("*.json")):
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            host, pid = str(told.get("hostname", "")), int(told.get("pid", 0))
            who = f"{told.get('username')} on {host} (process {pid}) since {told.get('timestamp')}"
            found.append((who, host != socket.gethostname() or alive(pid)))
        return found

    def _files(self) -> Path | None:
        """The folder of a backend of files, by the environment or the person's login; None for another backend."""
        given = {**os.environ, **self._environment}
        url = given.get("PULUMI_BACKEND_URL", "")
        if not url:
            home = Path(given.get("PULUMI_HOME") or Path.home() / ".pulumi")
            try:
                url = str(json.loads((home / "credentials.json").read_text(encoding="utf-8")).get("current", ""))
            except (OSError, ValueError, AttributeError):  # no login
                return None
        scheme, _, rest = url.partition("://")
        place = Path(unquote(rest.partition("?")[0])).expanduser()
        return place / ".pulumi" if scheme == "file" and place.is_absolute() else None

    def _mend(self) -> None:
        """Remove the empty attributes that a command has left which was killed as it wrote them beside a file of the
        state: the CLI would say EOF and nothing more, and does without those that are missing."""
        files = self._files()
        for path in files.rglob("*.attrs") if files is not None else ():
            with suppress(OSError):  # a backend that another has just changed, or may not be written
                if path.stat().st_size == 0:
                    path.unlink()

    def _unprotect(self, stack: str, found: tuple[Resource, ...]) -> int:
        """A sandbox holds nothing of worth: its buckets are emptied, and nothing is protected or retained there."""
        if self.place is None or not found:
            return 0

        def plain(resource: dict[str, Any]) -> None:
            resource.pop("protect", None)
            resource.pop("retainOnDelete", None)

        if any(r.protect or r.retain for r in found):
            self._edit(stack, plain)
        aws = Aws(self.place.server.endpoint, "us-east-1")
        buckets = [r.id for r in found if r.type == BUCKET]
        for bucket in buckets:  # else the log of emptying one fills another
            unless_gone(aws.client("s3").put_bucket_logging, Bucket=bucket, BucketLoggingStatus={})
        return sum(empty_bucket(aws, bucket) for bucket in buckets)

    def _run(self, stack: str, heard: _Heard, act: Callable[[], Any]) -> Any:
        """Let the engine work. A lock in files that a dead process of this machine left is lifted first."""
        with self._asking(stack, heard):
            try:
                return act()
            except errors.ConcurrentUpdateError as error:
                if not _left_by_the_dead(str(error)):
                    raise
                self.workspace.pulumi_command.run(
                    ["cancel", "--yes", "--stack", stack], str(self.project), self._environment
                )
                return act()

    @contextmanager
    def _asking(self, stack: str, heard: _Heard) -> Iterator[None]:
        """Turn what the CLI says when it fails into one line."""
        try:
            yield
        except errors.StackNotFoundError:
            raise UserError(f"stack {stack} has no state; `berth up {stack}` makes it") from None
        except errors.ConcurrentUpdateError as error:
            raise StackBusyError(stack, _holder(str(error))) from None
        except errors.CommandError as error:
            raise UserError(_problem(str(error), heard)) from None
        except FileNotFoundError:
            raise missing_cli() from None


class _Heard:
    """What the engine's events say."""

    def __init__(self, tell: Tell = silent, total: int = 0, *, refreshing: bool = False) -> None:
        self.tell, self.total, self.number, self.refreshing = tell, total, 0, refreshing
        self.changes: dict[str, ResourceChange] = {}
        self.before: dict[str, PlannedResource] = {}
        self.after: dict[str, PlannedResource] = {}
        self.drift: dict[str, Drift] = {}
        self.reasons: dict[str, str] = {}
        self.errors: list[str] = []

    def __call__(self, event: EngineEvent) -> None:
        if event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
            said = one_line(_plain(event.diagnostic_event.message), _MOST)
            self.errors.append(said)
            if event.diagnostic_event.urn:
                self.reasons.setdefault(event.diagnostic_event.urn, said)
        if event.resource_pre_event is not None:
            self._planned(event.resource_pre_event.metadata)
        if event.res_outputs_event is not None:
            self._done(event.res_outputs_event.metadata, bool(event.res_outputs_event.planning))

    def _planned(self, step: StepEventMetadata) -> None:
        operation = _OPERATIONS.get(step.op.value)
        if step.old is not None and step.urn not in self.before and not step.type.startswith("pulumi:"):
            self.before[step.urn] = _planned_resource(step.old)
        if step.new is not None and operation != "delete" and not step.type.startswith("pulumi:"):
            self.after[step.urn] = _planned_resource(step.new)
        state = step.new or step.old
        if operation is None or state is None or not state.custom or not step.type.startswith("aws:"):
            return
        keys = tuple(step.diffs or step.keys or ())
        id_ = step.old.id if step.old is not None else ""
        self.changes[step.urn] = ResourceChange(operation, step.type, _name(step.urn), step.urn, id_, keys)

    def _done(self, step: StepEventMetadata, planning: bool) -> None:
        state = step.new or step.old
        if state is None or not state.custom or not step.type.startswith("aws:"):
            return
        if self.refreshing:
            self._refreshed(step)
            return
        operation = _OPERATIONS.get(step.op.value)
        if planning or operation in (None, "same"):
            return
        self.number += 1
        verb = _VERBS[operation] if operation else ""
        self.tell(Step(verb, step.type, _name(step.urn), state.id, self.number, self.total))

    def _refreshed(self, step: StepEventMetadata) -> None:
        """A refresh says afterwards what it found: `delete` for what is gone, `update` for what is otherwise."""
        old, new = step.old, step.new
        if old is None or step.op.value not in ("delete", "update", "refresh"):
            return
        if step.op.value == "delete" or new is None:
            self.drift[step.urn] = Drift("gone", step.type, _name(step.urn), old.id)
            return
        before, after = old.outputs or {}, new.outputs or {}
        keys = tuple(sorted(k for k in {*before, *after} if before.get(k) != after.get(k)))
        if keys:
            self.drift[step.urn] = Drift("changed", step.type, _name(step.urn), old.id, keys)


def _planned_resource(state: StepEventStateMetadata) -> PlannedResource:
    parent = state.parent or ""
    return PlannedResource(
        urn=state.urn,
        type=state.type,
        name=_name(state.urn),
        parent="" if parent.split("::")[-2:-1] == ["pulumi:pulumi:Stack"] else parent,
        inputs=dict(state.inputs or {}),
        options={"protect": True} if state.protect else {},
        custom=bool(state.custom),
    )


def _of_cloud(resource: Mapping[str, Any]) -> bool:
    return bool(resource.get("custom")) and str(resource.get("type", "")).startswith("aws:")


def _resource(state: Mapping[str, Any]) -> Resource:
    return Resource(
        type=str(state["type"]),
        name=_name(str(state["urn"])),
        id=str(state.get("id", "")),
        urn=str(state["urn"]),
        parent=str(state.get("parent") or ""),
        protect=bool(state.get("protect")),
        retain=bool(state.get("retainOnDelete")),
        inputs=dict(state.get("inputs") or {}),
        outputs=dict(state.get("outputs") or {}),
        created=_second(str(state.get("created") or "")),
    )


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def _second(moment: str) -> str:
    """The engine's moments to the second: 2026-11-24T08:00:00Z."""
    return re.sub(r"\.\d+", "", moment)


def _left_by_the_dead(said: str) -> bool:
    """Whether every lock that the CLI names was left by a process of this machine that runs no more."""
    holders = list(_LOCK.finditer(said))
    return bool(holders) and all(h["host"] == socket.gethostname() and not alive(int(h["pid"])) for h in holders)


def _holder(said: str) -> str:
    found = _LOCK.search(said)
    if found is None:
        return "another update"
    return f"{found['user']} on {found['host']} (process {found['pid']}) since {found['since']}"


def _plain(text: str) -> str:
    """Without the engine's colour tags: <{%reset%}>."""
    return re.sub(r"<\{%.*?%\}>", "", text)


def _problem(said: str, heard: _Heard) -> str:
    """The engine's own reason: the first error of its events that says more than that it failed, else its stderr."""
    for words in heard.errors:
        if words and not words.startswith(("update failed", "preview failed", "Running program")):
            return words
    lines = [line.strip() for line in said.splitlines() if line.strip().startswith("error:")]
    found = lines[0].removeprefix("error:").strip() if lines else said.rsplit("stderr:", 1)[-1]
    return in_words(found) or one_line(_plain(found), _MOST) or "the pulumi CLI failed and said nothing"
