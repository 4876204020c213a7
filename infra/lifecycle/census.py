"""Every stack as it is: what runs, since when, for how much, until when; and orphans, which belong to no stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from infra.cloud import Cloud
from infra.durations import parse_instant, write_instant
from infra.instances import STANDING, state_of
from infra.inventory import Found, standing, strays
from infra.lifecycle.down import names_of
from infra.lifecycle.engine import Drift, Engine, Resource, StackSummary
from infra.lifecycle.health import Health, address, look, states
from infra.lifecycle.interlock import expiry_of, is_training, own_status
from infra.lifecycle.layers import Layer, layers_of
from infra.lifecycle.lives import lives_of_machines
from infra.lifecycle.remove import commands, ordered
from infra.lifecycle.saved import status_of
from infra.lifecycle.spent import Spent, latest_end, spent, standing_bill
from infra.resolve import now
from infra.resource_types import INSTANCE
from infra.stack_files import StackFile, read_stack, stack_names
from model_runtime.watch.status import describe
from sizing.errors import UserError


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a stack, as EC2 describes it."""

    id: str
    type: str
    state: str
    since: datetime

    @property
    def alive(self) -> bool:
        return self.state in STANDING

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, "state": self.state, "since": write_instant(self.since)}


@dataclass(frozen=True, slots=True)
class StackStatus:
    """A stack that stands, in whole or in part.

    `expires_at` is the earliest moment at which a layer ends it; `layers` are all of them, where they disagree. `drift`
    is None where it was not looked for. `problems` say what could not be told.
    """

    name: str
    role: str
    region: str
    summary: StackSummary | None
    machines: tuple[Machine, ...] = ()
    resources: int = 0
    since: datetime | None = None
    health: Health | None = None
    address: str = ""
    spent: Spent | None = None
    per_hour: Decimal | None = None
    expires_at: datetime | None = None
    layers: tuple[Layer, ...] = ()
    watchdog: tuple[str, ...] = ()
    drift: tuple[Drift, ...] | None = None
    problems: tuple[str, ...] = ()

    def overdue(self, moment: datetime) -> bool:
        """Whether its expiry has passed and machines of it live all the same."""
        return self.expires_at is not None and self.expires_at < moment and any(m.alive for m in self.machines)

    @property
    def complete(self) -> bool:
        return self.summary is None or self.summary.complete


@dataclass(frozen=True, slots=True)
class Orphan:
    """What carries the project's tag and is in no stack's state, with the commands that remove it."""

    found: Found
    region: str
    commands: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**self.found.to_json(), "region": self.region, "commands": list(self.commands)}


@dataclass(frozen=True, slots=True)
class Census:
    """`orphans` is None where no state could be read, and so nobody can tell what belongs to a stack."""

    at: datetime
    stacks: tuple[StackStatus, ...]
    down: tuple[str, ...]
    orphans: tuple[Orphan, ...] | None
    problems: tuple[str, ...] = field(default=())


def census(
    engine: Engine,
    cloud_of: Callable[[str], Cloud],
    *,
    only: str = "",
    drift: bool = False,
    clock: Callable[[], datetime] = now,
) -> Census:
    """Look at every stack that has a state, or at one, and at everything with the project's tag in their regions."""
    moment = clock()
    files = _files(engine, only)
    summaries = {s.name: s for s in engine.stacks() if not only or s.name == only}
    stacks = [
        _status(files.get(name), summary, engine, cloud_of, moment, drift)
        for name, summary in sorted(summaries.items())
        if summary.resources or not summary.complete
    ]
    known = {name: names_of(engine.resources(name)) for name in summaries}
    orphans, problems = _orphans(files, summaries, known, cloud_of, only)
    standing_names = {s.name for s in stacks}
    return Census(moment, tuple(stacks), tuple(sorted(set(files) - standing_names)), orphans, tuple(problems))


def by_tags(
    files: Mapping[str, StackFile], cloud_of: Callable[[str], Cloud], clock: Callable[[], datetime] = now
) -> Census:
    """What can be told without any state: what carries the project's tag, by the stack that the tag names."""
    moment = clock()
    found: dict[str, list[Found]] = {}
    regions: dict[str, str] = {}
    for region in sorted({f.region for f in files.values()}):
        for one in standing(cloud_of(region)):
            found.setdefault(one.stack, []).append(one)
            regions[one.stack] = region
    stacks = []
    for name in sorted(found):
        file, cloud = files.get(name), cloud_of(regions[name])
        machines = _machines([], cloud, [f.id for f in found[name] if f.kind == "ec2:instance"])
        stacks.append(
            StackStatus(
                name=name,
                role=file.settings.role if file is not None else "",
                region=regions[name],
                summary=None,
                machines=machines,
                resources=len(found[name]),
                since=min((m.since for m in machines), default=None),
                expires_at=_earliest(f.expiry for f in found[name]),
            )
        )
    return Census(moment, tuple(stacks), tuple(sorted(set(files) - set(found))), None)


def _files(engine: Engine, only: str) -> dict[str, StackFile]:
    names = [only] if only else stack_names(engine.project)
    return {name: read_stack(name, engine.project) for name in names}


def _status(
    file: StackFile | None,
    summary: StackSummary,
    engine: Engine,
    cloud_of: Callable[[str], Cloud],
    moment: datetime,
    drift: bool,
) -> StackStatus:
    name = summary.name
    if file is None:
        problem = f"its file stacks/Pulumi.{name}.yaml is missing, so nothing but its state is known"
        return StackStatus(name, "", summary.region, summary, resources=summary.resources, problems=(problem,))
    cloud, resources, outputs = cloud_of(file.region), engine.resources(name), engine.outputs(name)
    problems: list[str] = []

    def told(ask: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return ask()
        except UserError as error:
            problems.append(str(error))
            return otherwise

    since = told(lambda: _since(summary), None)
    seen = told(lambda: _machines(resources, cloud), None)
    machines = seen or ()
    lives = told(lambda: lives_of_machines(resources, cloud, moment, latest_end(file.settings)), {})
    bill = told(lambda: standing_bill(name, file.region, file.settings, resources, moment), None)
    layers = told(lambda: layers_of(file, cloud), ())
    return StackStatus(
        name=name,
        role=file.settings.role,
        region=file.region,
        summary=summary,
        machines=machines,
        resources=len(resources),
        since=since,
        health=told(lambda: look(name, file.settings, resources, cloud, since or moment), None),
        address=address(outputs, resources),
        spent=spent(bill, resources, moment, lives) if bill is not None else None,
        per_hour=_per_hour(bill, seen, resources) if bill is not None else None,
        expires_at=min((x.at for x in layers), default=expiry_of(outputs)),
        layers=layers,
        watchdog=told(lambda: _watchdog(outputs, cloud, moment), ()),
        drift=told(lambda: engine.drift(name), None) if drift else None,
        problems=tuple(problems),
    )


def _since(summary: StackSummary) -> datetime | None:
    return parse_instant(summary.since) if summary.since else None


def _machines(resources: Sequence[Resource], cloud: Cloud, ids: Iterable[str] = ()) -> tuple[Machine, ...]:
    return tuple(
        Machine(id_, found["InstanceType"], state_of(found), found["LaunchTime"].astimezone(UTC))
        for id_, found in sorted(states(resources, cloud, ids).items())
    )


def _per_hour(bill: Any, machines: tuple[Machine, ...] | None, resources: Sequence[Resource]) -> Decimal:
    """Of what lives: the lines of a single machine that has ended, or that EC2 has forgotten, count nothing.

    `machines` is None where EC2 could not be asked: then all of them count.
    """
    alive = {m.id for m in machines or () if m.alive}
    gone = {r.id for r in resources if r.type == INSTANCE and r.id not in alive} if machines is not None else set()
    names = {r.name for r in resources if r.id in gone}
    return sum(
        (x.per_hour for x in bill.with_status("priced") if x.per_hour is not None and x.resource not in names),
        Decimal(0),
    )


def _watchdog(outputs: Mapping[str, Any], cloud: Cloud, moment: datetime) -> tuple[str, ...]:
    if not is_training(outputs):
        return ()
    status = own_status(status_of(str(outputs["artifacts"]).rstrip("/"), cloud.client("s3")), outputs)
    if status is None:
        return ("Its watchdog has not said anything yet.",)
    return tuple(describe(status, moment.timestamp()))


def _orphans(
    files: Mapping[str, StackFile],
    summaries: Mapping[str, StackSummary],
    known: Mapping[str, set[str]],
    cloud_of: Callable[[str], Cloud],
    only: str,
) -> tuple[tuple[Orphan, ...], list[str]]:
    """Everything tagged in the stacks' regions that no state holds. With `only`, what has that stack's tag."""
    found: list[Orphan] = []
    problems: list[str] = []
    seen: set[str] = set()
    owned = {name for names in known.values() for name in names}
    regions = {f.region for f in files.values()} | {s.region for s in summaries.values() if s.region}
    for region in sorted(regions):
        cloud = cloud_of(region)
        try:
            for one in ordered(strays(standing(cloud, only), owned)):
                if one.id not in seen:
                    seen.add(one.id)
                    found.append(Orphan(one, region, tuple(commands(one, cloud))))
        except UserError as error:
            problems.append(f"{region}: {error}")
    return tuple(found), problems


def _earliest(moments: Iterable[str]) -> datetime | None:
    found = [parse_instant(m) for m in moments if m and m != "never"]
    return min(found, default=None)
