"""The rules as policies of Pulumi's: each a validation of the whole stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pulumi.runtime.config import CONFIG
from pulumi_policy import EnforcementLevel, StackValidationPolicy
from pulumi_policy.proxy import UnknownValueError

from infra.durations import parse_duration
from infra.engine_config import settings_of_engine
from infra.plan import UNKNOWN, PlannedResource
from infra.policy.rules import RULES, Named
from infra.policy.subject import Subject
from infra.resolve import now
from infra.settings import MachineSettings
from infra.stack_files import project_root, read_stack

Report = Callable[..., None]


def subject_of(
    resources: Iterable[Any],
    root: Path | None = None,
    clock: Callable[[], datetime] = now,
    config: Mapping[str, Any] | None = None,
) -> Subject:
    """What the policy server shows of a stack.

    `config`: the engine's configuration, which newer CLIs give to policy packs. Without it the settings are those of
    the stack's file under `root`, found by the name in the URNs.
    """
    found = tuple(_planned(r) for r in resources)
    names = {r.urn.split("::")[0].removeprefix("urn:pulumi:") for r in found}
    if len(names) != 1:
        raise ValueError(f"resources of {len(names)} stacks")
    name = names.pop()
    if config:
        region, settings = settings_of_engine(config, name)
    else:
        file = read_stack(name, root or project_root())
        region, settings = file.region, file.settings
    expires_at = None
    if isinstance(settings, MachineSettings):
        lives = parse_duration(settings.time_to_live)
        expires_at = settings.expiry or (clock() + lives if lives else None)
    return Subject(name, region, settings, found, clock(), expires_at)


def _planned(resource: Any) -> PlannedResource:
    parent = getattr(resource, "parent", None)
    type_ = str(resource.resource_type)
    return PlannedResource(
        urn=str(resource.urn),
        type=type_,
        name=str(resource.name),
        parent=str(parent.urn) if parent is not None else "",
        inputs={key: _known(value) for key, value in _items(resource.props)},
        custom=type_.startswith("aws:"),
    )


def _items(props: Any) -> Iterable[tuple[str, Any]]:
    """Properties one by one: the server's view raises for one that is not known yet."""
    for key in props:
        try:
            yield key, props[key]
        except UnknownValueError:
            yield key, UNKNOWN


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _known(inner) for key, inner in _items(value)}
    return [_known(v) for v in value] if isinstance(value, list | tuple) else value


def validator(rule: Named, root: Path | None = None) -> Callable[[Any, Report], None]:
    """The function that Pulumi's server calls with the resources of a stack."""

    def validate(args: Any, report: Report) -> None:
        resources = [r for r in args.resources if not str(r.resource_type).startswith("pulumi:")]
        if not resources:
            return
        for violation in rule.check(subject_of(resources, root, config=None if root else CONFIG.get())):
            where = f"{violation.resource}: " if violation.resource else ""
            said = "" if violation.level == "mandatory" else "(to consider) "
            report(f"{said}{where}{violation.message}")

    return validate


def policies() -> list[StackValidationPolicy]:
    """One policy a rule."""
    return [
        StackValidationPolicy(
            name=rule.name,
            description=rule.description,
            enforcement_level=EnforcementLevel.MANDATORY,
            validate=validator(rule),
        )
        for rule in RULES
    ]
