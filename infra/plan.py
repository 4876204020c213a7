"""The very program of a stack, run without CLI, plugin, account or network: what it would declare.

A recording monitor stands where the engine's would. Inputs arrive with the engine's own names (camelCase), the same as
`newState.inputs` of `pulumi preview --json`, so that what reads a plan reads either.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc, settings
from pulumi.runtime.stack import run_pulumi_func

from infra.programs import declare
from infra.resolve import now, resolve
from infra.resource_types import BUCKET, INSTANCE, TEMPLATE
from infra.settings import PROJECT, MachineSettings
from infra.stack_files import StackFile, project_root, read_stack, stack_names
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

ACCOUNT = "111122223333"
"""Account number of AWS's documentation: a plan made offline knows no other."""
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that is known only after an `up`."""
PREVIEW_FORMAT = "pulumi preview --json"


@dataclass(frozen=True, slots=True)
class PlannedResource:
    """One resource of a stack before it exists. `inputs` have the engine's names."""

    urn: str
    type: str
    name: str
    parent: str
    """URN of its component, empty for a child of the stack itself."""
    inputs: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bool = True
    """False for a component, which groups resources and costs nothing itself."""

    def to_json(self) -> dict[str, Any]:
        return {
            "urn": self.urn,
            "type": self.type,
            "name": self.name,
            "parent": self.parent or None,
            "inputs": self.inputs,
            "options": self.options,
            "custom": self.custom,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stack would be, made at `made_at` (UTC)."""

    stack: str
    region: str
    settings: Any
    resources: tuple[PlannedResource, ...]
    outputs: Mapping[str, Any]
    warnings: tuple[str, ...]
    expires_at: datetime | None
    made_at: datetime

    def of_type(self, type_: str) -> list[PlannedResource]:
        return [r for r in self.resources if r.type == type_]


class Answers(mocks.Mocks):
    """Stands for the providers while a program runs; a subclass says what they answer."""

    def outputs_of(self, stack: str) -> Mapping[str, Any]:
        """Outputs of a stack that the program refers to, by the name that it gives."""
        raise NotImplementedError

    def resource(self, type_: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Id and outputs of a resource. `inputs` are as the SDK gives them, with the engine's names."""
        raise NotImplementedError

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            name = str(args.inputs.get("name") or args.name)
            return name, {"name": name, "outputs": dict(self.outputs_of(name)), "secretOutputNames": []}
        return self.resource(args.typ, args.name, args.inputs) if args.custom else ("", dict(args.inputs))


class _Recorder(Answers):
    """Answers like AWS would: an id, an ARN and what else programs read of a resource."""

    def __init__(self, region: str, references: Callable[[str], Mapping[str, Any]]) -> None:
        self.region, self.references = region, references

    def outputs_of(self, stack: str) -> Mapping[str, Any]:
        return self.references(stack)

    def resource(self, type_: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return f"{name}-id", {**inputs, **_answers(type_, name, inputs, self.region)}

    def call(self, args: mocks.MockCallArgs) -> Any:
        answers: dict[str, dict[str, Any]] = {
            "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": ACCOUNT, "id": ACCOUNT},
            "aws:ssm/getParameter:getParameter": {"value": "ami-00000000000000000", "name": args.args.get("name", "")},
            "aws:ec2/getVpc:getVpc": {"id": args.args.get("id", ""), "cidrBlock": "10.0.0.0/16"},
        }
        if args.token not in answers:
            raise NotImplementedError(f"the offline plan has no answer for {args.token}")
        return answers[args.token]


def _answers(type_: str, name: str, inputs: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Outputs that AWS would add. Names that AWS or the provider would make up are the logical ones."""
    label = str(inputs.get("name") or name)
    service = type_.split(":")[1].split("/", maxsplit=1)[0]
    computed: dict[str, Any] = {"arn": f"arn:aws:{service}:{region}:{ACCOUNT}:{label}", "name": label}
    if type_ == BUCKET:
        bucket = str(inputs.get("bucket") or label)
        computed |= {"bucket": bucket, "arn": f"arn:aws:s3:::{bucket}"}
    elif type_ == "aws:iam/role:Role":
        computed["arn"] = f"arn:aws:iam::{ACCOUNT}:role/{label}"
    elif type_ == "aws:cloudwatch/logGroup:LogGroup":
        computed["arn"] = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{label}"
    elif type_ == "aws:kms/key:Key":
        computed |= {"keyId": name, "arn": f"arn:aws:kms:{region}:{ACCOUNT}:key/{name}"}
    elif type_ == "aws:ecr/repository:Repository":
        computed |= {
            "repositoryUrl": f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{label}",
            "arn": f"arn:aws:ecr:{region}:{ACCOUNT}:repository/{label}",
        }
    elif type_ == TEMPLATE:
        computed["latestVersion"] = 1
    elif type_ == INSTANCE:
        computed["privateIp"] = "10.42.0.10"
    elif type_ == "aws:ec2/eip:Eip":
        computed["allocationId"] = f"{name}-id"
    elif type_ == "aws:route53/zone:Zone":
        computed["zoneId"] = f"{name}-id"
    elif type_.startswith("aws:lb/"):
        computed["arnSuffix"] = f"app/{label}/0"
        computed["dnsName"] = f"{label}.{region}.elb.amazonaws.com"
    return computed


class _Monitor(mocks.MockMonitor):
    """Keeps every registration with its options, which mocks alone do not see."""

    def __init__(self, recorder: mocks.Mocks) -> None:
        super().__init__(recorder)
        self.registered: list[PlannedResource] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the name is the engine's)
        response = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            self.registered.append(
                PlannedResource(
                    urn=response.urn,
                    type=request.type,
                    name=request.name,
                    parent="" if _is_stack(request.parent) else request.parent,
                    inputs=native(rpc.deserialize_properties(request.object)),
                    options=_options(request),
                    custom=bool(request.custom),
                )
            )
        return response


def _is_stack(urn: str) -> bool:
    return not urn or urn.split("::")[2].rsplit("$", maxsplit=1)[-1] == "pulumi:pulumi:Stack"


def native(value: Any) -> Any:
    """Plain JSON values of the inputs or outputs that Pulumi's SDK gives; what is not known stands as `UNKNOWN`."""
    if isinstance(value, Mapping):
        return {str(k): native(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [native(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) or value is None else UNKNOWN


def _options(request: Any) -> dict[str, Any]:
    """The options that were set, by the names of `pulumi.ResourceOptions`."""
    options: dict[str, Any] = {}
    if request.protect:
        options["protect"] = True
    if request.retainOnDelete:
        options["retain_on_delete"] = True
    if request.ignoreChanges:
        options["ignore_changes"] = list(request.ignoreChanges)
    if request.dependencies:
        options["depends_on"] = sorted(request.dependencies)
    times = {k: getattr(request.customTimeouts, k) for k in ("create", "update", "delete")}
    if any(times.values()):
        options["custom_timeouts"] = {k: v for k, v in times.items() if v}
    return options


def record_program(
    stack: str,
    region: str,
    program: Callable[[], Mapping[str, Any]],
    references: Callable[[str], Mapping[str, Any]],
    answers: Answers | None = None,
) -> tuple[tuple[PlannedResource, ...], dict[str, Any]]:
    """Run `program`, which declares resources and returns its outputs, under a recording monitor.

    `answers` stands for the provider: it is asked for every resource, one at a time and in the order of their
    dependencies, and its outputs are what the program reads. By default they are made up, and the run is a preview.
    Returns what was registered, sorted by URN so that plans compare, and the program's outputs.
    """
    recorder = answers or _Recorder(region, references)
    monitor = _Monitor(recorder)
    outputs: dict[str, Any] = {}
    # Ctrl-C cancels the run between two steps: Pulumi catches what is raised in the midst of a program and would then
    # wait for ever for what the interrupted step had begun.
    runner = asyncio.Runner()
    loop = runner.get_loop()
    asyncio.set_event_loop(loop)
    if answers is not None:
        # An answer that fails ends the run; the futures of all that waited for it would each log the same again.
        loop.set_exception_handler(lambda _loop, _context: None)
    # One thread answers for the engine, so that its event loop can be closed with it.
    answering = ThreadPoolExecutor(max_workers=1, initializer=_own_loop)
    loop.set_default_executor(answering)
    try:
        mocks.set_mocks(recorder, project=PROJECT, stack=stack, preview=answers is None, monitor=monitor)

        def run() -> None:
            pulumi.Output.all(**program()).apply(outputs.update)

        runner.run(run_pulumi_func(run), context=copy_context())
    except KeyboardInterrupt:
        # Steps that were never begun are nobody's fault; Python would name each of them on stderr.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        raise
    finally:
        settings.reset_options()
        answering.submit(_close_own_loop).result()
        answering.shutdown()
        runner.close()
        asyncio.set_event_loop(None)
    return tuple(sorted(monitor.registered, key=lambda r: r.urn)), native(outputs)


def _own_loop() -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())


def _close_own_loop() -> None:
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)


def plan_stack(
    name: str,
    root: Path | None = None,
    *,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
    clock: Callable[[], datetime] = now,
) -> Plan:
    """The plan of the stack `name` of the project at `root` (the one of the current folder).

    Raises `UserError` for settings that are wrong, a model or type that is unknown, and a stack that takes its
    artifacts from a shared stack without a file.
    """
    base = root or project_root()
    return plan_file(read_stack(name, base), base, hardware=hardware, find_model=find_model, clock=clock)


def plan_file(
    file: StackFile,
    root: Path,
    *,
    hardware: Hardware | None = None,
    find_model: Callable[[str], ModelFacts] = resolve_model,
    clock: Callable[[], datetime] = now,
) -> Plan:
    """`plan_stack` for a stack file that need not lie on the disk."""
    moment = clock()
    return _plan(file, root, hardware or load_hardware(), find_model, lambda: moment)


def _plan(
    file: StackFile,
    root: Path,
    hardware: Hardware,
    find_model: Callable[[str], ModelFacts],
    clock: Callable[[], datetime],
) -> Plan:
    context = resolve(file.name, file.region, file.settings, ACCOUNT, hardware, find_model, strict=False, clock=clock)
    outputs: dict[str, Mapping[str, Any]] = {}
    if isinstance(file.settings, MachineSettings):
        # Planned before and not within: two programs cannot run at once in one process.
        wanted = file.settings.shared_stack
        outputs[wanted] = _shared_outputs(file, root, hardware, find_model, clock)
    resources, exported = record_program(
        file.name, file.region, lambda: declare(context), lambda reference: outputs.get(reference, {})
    )
    return Plan(
        stack=file.name,
        region=file.region,
        settings=context.settings,
        resources=resources,
        outputs=exported,
        warnings=context.warnings,
        expires_at=context.expires_at,
        made_at=clock(),
    )


def _shared_outputs(
    file: StackFile,
    root: Path,
    hardware: Hardware,
    find_model: Callable[[str], ModelFacts],
    clock: Callable[[], datetime],
) -> Mapping[str, Any]:
    name = file.shared_name
    if name not in stack_names(root):
        raise UserError(
            f"stack {file.name}: its shared_stack {name} has no file; `berth new {name} --role shared` writes one"
        )
    shared = read_stack(name, root)
    if shared.settings.role != "shared":
        raise UserError(f"stack {file.name}: its shared_stack {name} has the role {shared.settings.role}, not shared")
    if shared.region != file.region:
        raise UserError(
            f"stack {file.name} is in {file.region}, its shared_stack {name} in {shared.region}; they must be in one"
        )
    return _plan(shared, root, hardware, find_model, clock).outputs


def from_preview(path: Path, stack: str) -> tuple[tuple[PlannedResource, ...], tuple[PlannedResource, ...]]:
    """What stands before and after, from a file of `pulumi preview --json` for `stack`.

    Raises `UserError` for a file that is no such document, or another stack's.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no JSON: {error}; write it with `{PREVIEW_FORMAT} > FILE`") from None
    return read_preview(document, str(path), stack)


def read_preview(
    document: Any, source: str, stack: str
) -> tuple[tuple[PlannedResource, ...], tuple[PlannedResource, ...]]:
    """`from_preview` for the document itself; `source` names it in errors."""
    steps = document.get("steps") if isinstance(document, Mapping) else None
    if not isinstance(steps, list):
        raise UserError(f"{source} has no steps; write it with `{PREVIEW_FORMAT} > FILE`")
    before: dict[str, PlannedResource] = {}
    after: dict[str, PlannedResource] = {}
    for number, step in enumerate(steps):
        try:
            old, new, op = step.get("oldState"), step.get("newState"), step["op"]
            if any(str(state["type"]).startswith(_ENGINES_OWN) for state in (old, new) if state):
                continue
            if old:
                before.setdefault(step["urn"], resource_of_state(old))
            if new and op not in ("delete", "delete-replaced", "discard-replaced"):
                after[step["urn"]] = resource_of_state(new)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{source}: step {number} is no step of `{PREVIEW_FORMAT}`: {error}") from None
    named = {urn.split("::")[0].removeprefix("urn:pulumi:") for urn in (*before, *after)}
    if named - {stack}:
        raise UserError(f"{source} is a preview of {', '.join(sorted(named))}, not of {stack}")
    return tuple(before.values()), tuple(after.values())


_ENGINES_OWN = ("pulumi:pulumi:Stack", "pulumi:providers:")
"""Types of the engine itself: the stack with what it refers to, and its providers. They are no part of a plan."""


def resource_of_state(state: Mapping[str, Any]) -> PlannedResource:
    """A resource as the engine's state and previews hold it. Raises `KeyError` for one without URN or type."""
    urn = str(state["urn"])
    parent = str(state.get("parent") or "")
    return PlannedResource(
        urn=urn,
        type=str(state["type"]),
        name=urn.rsplit("::", 1)[-1],
        parent="" if _is_stack(parent) else parent,
        inputs=dict(state.get("inputs") or {}),
        options={k: v for k, v in (("protect", state.get("protect")),) if v},
        custom=bool(state.get("custom", True)),
    )
