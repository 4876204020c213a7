"""A stack file from a sizing choice: what `berth new` writes and `berth settings --record` adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from infra.recommend import Recommendation, recommend, to_record
from infra.resolve import now
from infra.settings import (
    AUTO,
    PROJECT,
    EndpointSettings,
    Keys,
    MachineSettings,
    Settings,
    TrainingSettings,
    read_settings,
)
from infra.stack_files import StackFile, read_stack, record, render_stack, stack_path, write_text
from sizing.errors import UserError
from sizing.hardware.load import Hardware, load_hardware
from sizing.models.facts import ModelFacts
from sizing.models.resolve import resolve_model

HEADROOM = Decimal("1.2")
"""A budget that nobody gave: a fifth above the plan's month, so that the plan passes and a surprise does not."""
STEADY = ("on-demand", "reserved-1y", "reserved-3y", "savings-1y", "savings-3y")
"""Ways of paying among which `best` chooses: spot can be taken away, so it must be asked for by name."""
CAPACITY_BLOCK = "capacity-block"
_NO_LIMIT = 10_000_000
DEFAULT_TIME_TO_LIVE = "24h"
"""Of a training stack for which none was given."""


@dataclass(frozen=True, slots=True)
class NewStack:
    """A stack file that was or would be written, and why it says what it says."""

    path: Path
    text: str
    settings: Settings
    notes: tuple[str, ...] = field(default=())


def new_stack(
    name: str,
    root: Path,
    region: str,
    given: Mapping[str, Any],
    *,
    pay: str = "on-demand",
    data: str | None = None,
    hardware: Hardware | None = None,
    clock: Callable[[], datetime] = now,
) -> NewStack:
    """The file of a new stack from the keys `given`, completed by sizing's choice; nothing is written.

    `pay` is a way of paying or `best` or `savings`, as `berth size` takes them. `data`, of a training stack: how many
    examples there are, or a local file of them. Raises `UserError` for what contradicts itself, for a model that fits
    nowhere, and for a region without prices.
    """
    path, hardware = stack_path(name, root), hardware or load_hardware()
    region = hardware.region(region)
    values: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    values.setdefault("budget_per_month", _NO_LIMIT)
    comments: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if values.get("role") == "training":
        values.setdefault("time_to_live", DEFAULT_TIME_TO_LIVE)
        if not values.get("dataset"):
            values["dataset"] = f"datasets/{name}"
            comments["dataset"] = "Where the data set lies in the artifact bucket; `berth train --data` puts it there."
        if values.get("capacity_block_id"):
            pay = values["purchase"] = CAPACITY_BLOCK
    settings = read_settings(values, name)
    if data is not None:
        told, notes = _data(data, settings)
        values |= {key: value for key, value in told.items() if key not in given}
        settings = read_settings(values, name)
    if isinstance(settings, MachineSettings):
        model = resolve_model(settings.model)
        values["model"] = model.name
        if settings.instance_type == AUTO:
            chosen, values["purchase"] = _cheapest(settings, region, model, hardware, pay)
            values |= chosen.values
            notes = tuple(dict.fromkeys((*notes, *chosen.notes)))
            comments["instance_type"] = f"Sizing's choice for {model.name} of {clock():%Y-%m-%d}, in {region}."
        else:
            values["instance_type"] = hardware.instance(settings.instance_type).name
            values["purchase"] = "savings-1y" if pay == "savings" else "on-demand" if pay == "best" else pay
        settings = read_settings(values, name)
        values |= to_record(_as_machines(settings), region, resolve_model, hardware, clock).values
        # A new stack's life begins with its `up`, not with its file.
        values.pop("expires_at", None)
    budgeted = "budget_per_month" in given
    if isinstance(settings, MachineSettings) or not budgeted:
        month, refused = _planned(name, root, region, values, hardware, clock)
        notes += refused
        if not budgeted:
            values["budget_per_month"] = max(10, math.ceil(month * HEADROOM / 10) * 10)
            comments["budget_per_month"] = "A fifth above what the plan costs a month."
    settings = read_settings(values, name)
    ordered = {k: values[k] for k in Keys.all() if k in values and not _said_anyway(k, values[k])}
    return NewStack(path, render_stack(region, ordered, comments), settings, notes)


def write(new: NewStack, *, replace: bool = False) -> None:
    """Write the file. Raises `UserError` where one stands already and `replace` is not asked for."""
    if new.path.exists() and not replace:
        raise UserError(f"{new.path} exists; give --force to replace it, or another name")
    write_text(new.path, new.text)


def record_choice(name: str, root: Path, clock: Callable[[], datetime] = now) -> dict[str, Any]:
    """Write what the stack file leaves open (`auto`, the moment of expiry, zones) into it; returns what was written."""
    file: StackFile = read_stack(name, root)
    if not isinstance(file.settings, MachineSettings):
        return {}
    found = to_record(file.settings, file.region, resolve_model, load_hardware(), clock)
    if found.values:
        read_settings({**file.given, **found.values}, name)
        record(file.path, found.values)
    return found.values


def _data(data: str, settings: Settings) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not isinstance(settings, TrainingSettings):
        raise UserError(f"--data is for training stacks; this one's role is {settings.role}")
    from infra.training_job import described  # noqa: PLC0415 (only training reads data)

    return described(data, resolve_model(settings.model))


def _as_machines(settings: Settings) -> MachineSettings:
    if not isinstance(settings, MachineSettings):
        raise TypeError("a stack with machines was expected")
    return settings


def _cheapest(
    settings: MachineSettings, region: str, model: ModelFacts, hardware: Hardware, pay: str
) -> tuple[Recommendation, str]:
    """Sizing's choice and the way of paying by its own name: `savings` is the one-year plan, `best` the cheapest."""
    if pay == "savings":
        pay = "savings-1y"
    if pay != "best" or isinstance(settings, TrainingSettings | EndpointSettings):
        way = "on-demand" if pay == "best" else pay
        if way == CAPACITY_BLOCK and not isinstance(settings, TrainingSettings):
            raise UserError("--pay capacity-block is for training; a service takes another way of paying")
        return recommend(settings, region, model, hardware, way), way
    found: list[tuple[float, Recommendation, str]] = []
    failed: UserError | None = None
    for way in STEADY:
        try:
            choice = recommend(settings, region, model, hardware, way)
        except UserError as error:
            failed = failed or error
            continue
        found.append((choice.usd_per_month or 0.0, choice, way))
    if not found:
        raise failed or UserError(f"no way of paying is priced in {region}")
    _, choice, way = min(found, key=lambda f: f[0])
    return choice, way


def _planned(
    name: str, root: Path, region: str, values: dict[str, Any], hardware: Hardware, clock: Callable[[], datetime]
) -> tuple[Decimal, tuple[str, ...]]:
    """US dollars a month of what the file plans, and why the policies would refuse it as it stands."""
    from infra.bill.bill import bill_of  # noqa: PLC0415 (importing Pulumi takes a second; a stack without machines and with a budget does without)
    from infra.plan import plan_file  # noqa: PLC0415
    from infra.policy.rules import check  # noqa: PLC0415
    from infra.policy.subject import Subject  # noqa: PLC0415

    file = StackFile(name, stack_path(name, root), region, read_settings(values, name), values)
    plan = plan_file(file, root, hardware=hardware, clock=clock)
    refused = [v for v in check(Subject.of_plan(plan)) if v.level == "mandatory"]
    said = tuple(f"policy {v.rule} refuses the stack until this is mended: {v.message}" for v in refused)
    return bill_of(plan, hardware=hardware).month_to_compare, said


def _said_anyway(key: str, value: Any) -> bool:
    return key != "role" and value == Keys.default(key)


def stack_reference_hint(root: Path) -> str:
    """Empty, or what to run first where the project has no shared stack yet."""
    if (root / "stacks" / "Pulumi.shared.yaml").is_file():
        return ""
    return f"`berth new shared --role shared` writes the stack that keeps artifacts ({PROJECT}/shared)"
