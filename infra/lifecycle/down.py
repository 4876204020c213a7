"""Taking a stack down: what goes and what stays, what stands in the way, and the proof that nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.cloud import Cloud
from infra.inventory import Found, standing, strays
from infra.lifecycle.engine import Engine, Removal, Resource
from infra.lifecycle.interlock import Verdict
from infra.lifecycle.interlock import check as interlock
from infra.lifecycle.lives import Life, lives_of_machines
from infra.lifecycle.outlook import forget_expiry
from infra.lifecycle.remove import sweep
from infra.lifecycle.spent import Spent, latest_end, spent, standing_bill
from infra.lifecycle.train_run import run_of
from infra.resolve import now
from infra.settings import Settings, TrainingSettings
from infra.stack_files import StackFile, read_stack, stack_names
from infra.steps import Tell, silent
from sizing.errors import UserError


@dataclass(frozen=True, slots=True)
class Departure:
    """What a `down` would remove and keep. `spent` is what the stack has cost until now, None where nothing stands.

    `verdict` is the interlock's, None for a stack that does not train; `strays` have the stack's tag and are in no
    state.
    """

    file: StackFile
    going: tuple[Resource, ...]
    kept: tuple[Resource, ...]
    strays: tuple[Found, ...]
    spent: Spent | None
    verdict: Verdict | None
    outputs: Mapping[str, Any]
    stands: bool = True
    """Whether the engine has a state of it, be it an empty one that a command left which was killed."""

    @property
    def empty(self) -> bool:
        return not self.going and not self.kept and not self.strays and not self.stands


@dataclass(frozen=True, slots=True)
class Gone:
    """What a `down` did. `standing`: what has the stack's tag afterwards, but for what was kept on purpose."""

    removal: Removal
    standing: tuple[Found, ...]
    spent: Spent | None

    @property
    def whole(self) -> bool:
        return not self.removal.left and not self.standing


def departure(
    stack: str, engine: Engine, cloud: Cloud, *, abandon: bool = False, clock: Callable[[], datetime] = now
) -> Departure:
    """What `down` would do. Raises `UserError` for a stack that others use."""
    file = read_stack(stack, engine.project)
    resources = engine.resources(stack)
    outputs = engine.outputs(stack)
    if users := users_of(stack, engine):
        raise UserError(f"stack {stack} is used by {', '.join(users)}; take that down first")
    stands = any(s.name == stack for s in engine.stacks())
    sandbox = cloud.endpoint is not None
    kept = tuple(r for r in resources if (r.protect or r.retain) and not sandbox)
    going = tuple(r for r in resources if r not in kept)
    unowned = tuple(strays(standing(cloud, stack), names_of(resources)))
    # Without a clock of the caller's it is AWS's, which decides over a node's expiry.
    own = None if clock is now else clock
    verdict = _work(file, engine, cloud, own, abandon)
    return Departure(file, going, kept, unowned, _spent(file, resources, cloud, clock()), verdict, outputs, stands)


def _work(
    file: StackFile, engine: Engine, cloud: Cloud, clock: Callable[[], datetime] | None, abandon: bool
) -> Verdict | None:
    """What the interlock says of a training stack's nodes, those of an `up` that broke off among them."""
    if not isinstance(file.settings, TrainingSettings):
        return None
    try:
        run = run_of(file.name, engine)
    except UserError:
        if not abandon:
            raise
        return None
    return None if run is None else interlock(run.outputs, cloud, clock, abandon=abandon)


def take_down(
    found: Departure, engine: Engine, cloud: Cloud, tell: Tell = silent, clock: Callable[[], datetime] = now
) -> Gone:
    """Remove the stack, and list afterwards what still has its tag.

    Raises `UserError` where the interlock forbids it. What could not be removed stays in the state: the next `down`
    goes on with it.
    """
    stack = found.file.name
    if found.verdict is not None and not found.verdict.may_destroy:
        raise UserError(f"stack {stack} is not taken down: {found.verdict.sentence}")
    resources = (*found.going, *found.kept)
    bill = standing_bill(stack, found.file.region, found.file.settings, resources, clock())
    machines = _lives(found.file, resources, cloud, clock())
    began = clock()
    removal = engine.destroy(stack, tell) if found.stands or found.strays else Removal(())
    rest = sweep(stack, cloud, names_of(removal.kept), [x.id for x in removal.left])
    moment = clock()
    # A machine that was alive counts until it was asked to go; one that had ended, until then.
    ended = {n: replace(x, until=x.until or began, gone=x.gone or began) for n, x in machines.items()}
    final = spent(bill, resources, moment, ended) if resources else None
    if not removal.left and not rest:
        forget_expiry(found.file)
    return Gone(removal, rest, final)


def users_of(stack: str, engine: Engine) -> list[str]:
    """The stacks that stand and take their artifacts from this one."""
    files = set(stack_names(engine.project))
    return sorted(
        s.name
        for s in engine.stacks()
        if s.name != stack and s.name in files and s.resources and _uses(read_stack(s.name, engine.project), stack)
    )


def _uses(file: StackFile, stack: str) -> bool:
    return file.shared_name == stack


def _spent(file: StackFile, resources: tuple[Resource, ...], cloud: Cloud, moment: datetime) -> Spent | None:
    if not resources:
        return None
    settings: Settings = file.settings
    bill = standing_bill(file.name, file.region, settings, resources, moment)
    return spent(bill, resources, moment, _lives(file, resources, cloud, moment))


def _lives(file: StackFile, resources: tuple[Resource, ...], cloud: Cloud, moment: datetime) -> Mapping[str, Life]:
    return lives_of_machines(resources, cloud, moment, latest_end(file.settings))


def names_of(resources: Iterable[Resource]) -> set[str]:
    """By what the inventory may know a resource: its id, the id's last part, its ARN."""
    found: set[str] = set()
    for resource in resources:
        arn = str(resource.outputs.get("arn", ""))
        found |= {resource.id, resource.id.rsplit("/", 1)[-1], resource.id.rsplit(":", 1)[-1], arn}
    return found - {""}
