"""The interlock: whether a training node may be destroyed yet.

A node may go when, and only when, one of these holds, looked at in this order:

1. `gone`: no node is alive any more. There is nothing left to lose; the sentence tells what S3 holds, verified.
2. `verified`: the artifact of this run is in S3 and is as its manifest says. An artifact that is older than the node
   is an earlier run's, and counts not.
3. `expired`: its expiry has come, by the stack's outputs and by the tags of its machines, which `berth extend` moves.
   The machine goes whatever is not safe, once the margin is over in which its watchdog may still be bringing work home;
   it has asked the job to save ten minutes before the expiry (docs/endings.md).
4. `abandoned`: a person said `--abandon`.
5. `nothing`: the run has failed, and its watchdog's last word is that no whole checkpoint or artifact was on the disk.
6. `checkpoint`: the run has failed or was stopped, its watchdog's last word is that the newest whole checkpoint is in
   S3, and that verifies now as well.

Everything else is `working`: the node is at work, is silent, or says that it has work which S3 has not. Then it may
not be destroyed; it ends by itself at its expiry at the latest. Words of the watchdog count only where they are of a
node of this stack. With several nodes the artifact is the first node's, and 5 and 6 must hold of every node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from infra.cloud import Cloud, asking_aws
from infra.durations import parse_instant, write_instant
from infra.instances import ENDED, Instance, by_id, first_seen, state_of, tags_of
from infra.lifecycle.saved import Saved, is_whole, node_uris, saved_under, status_of
from infra.lifecycle.skew import cloud_clock
from model_runtime.watch.limits import Limits
from model_runtime.watch.status import Status, describe
from sizing.errors import UserError

Kind = Literal["gone", "verified", "expired", "abandoned", "nothing", "checkpoint", "working"]
MARGIN = timedelta(seconds=Limits().margin_s + Limits().report_s)
"""After the expiry: until then the watchdog may upload, and say its last word."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the stack that EC2 still knows. `since`: its launch; `expires`: its tag `expiry`, which the watchdog
    obeys, None where it has none."""

    id: str
    state: str
    since: datetime
    expires: datetime | None = None

    @property
    def alive(self) -> bool:
        return self.state not in ENDED


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the nodes may be destroyed, and why in one sentence or two.

    `saved`: what S3 holds of the run (None where it was not looked at); `status`: the first node's watchdog's last
    word, None where there is none of this run; `nodes`: the machines that EC2 still knows.
    """

    kind: Kind
    sentence: str
    saved: Saved | None = None
    status: Status | None = None
    nodes: tuple[Node, ...] = ()

    @property
    def may_destroy(self) -> bool:
        return self.kind != "working"


def is_training(outputs: Mapping[str, Any]) -> bool:
    """Whether outputs are those of a training stack that is up (`infra.programs.training`)."""
    return bool(outputs.get("instances")) and "artifacts" in outputs


def nodes_of(outputs: Mapping[str, Any], cloud: Cloud) -> tuple[Node, ...]:
    """The stack's machines as EC2 knows them; those that it forgot are left out. Raises `UserError`."""
    ids = [str(i) for i in outputs.get("instances", [])]
    with asking_aws("to list the training nodes"):
        machines = by_id(cloud.client("ec2"), ids)
    found = [Node(i["InstanceId"], state_of(i), first_seen(i), _tagged_expiry(i)) for i in machines]
    return tuple(sorted(found, key=lambda node: ids.index(node.id)))


def _tagged_expiry(instance: Instance) -> datetime | None:
    text = tags_of(instance).get("expiry", "never")
    try:
        return None if text == "never" else parse_instant(text)
    except ValueError:  # somebody's own words
        return None


def own_status(status: Status | None, outputs: Mapping[str, Any]) -> Status | None:
    """The status where it is of a node of this stack, else None: a prefix may hold an earlier run's."""
    if status is None:
        return None
    return status if status.machine.get("instance") in [str(i) for i in outputs.get("instances", [])] else None


def check(
    outputs: Mapping[str, Any], cloud: Cloud, clock: Callable[[], datetime] | None = None, *, abandon: bool = False
) -> Verdict:
    """Whether the nodes of a training stack, known by its outputs, may be destroyed; see the module.

    Without a `clock` the moment is AWS's own: a computer whose clock is wrong must not find a node expired.
    Raises `UserError` where EC2 or S3 cannot be asked and neither the expiry nor `abandon` decides it.
    """
    clock = clock or cloud_clock(cloud)
    nodes: tuple[Node, ...] = ()
    try:
        nodes = nodes_of(outputs, cloud)
        saved, statuses = _look(outputs, cloud, nodes)
    except UserError as error:
        # Without an answer of EC2 it is not known whether the expiry was moved.
        forced = _forced(outputs, nodes, clock(), abandon) if nodes or abandon else None
        if forced is None:
            raise
        return Verdict(forced[0], f"{forced[1]} What is safe could not be seen: {error}.", nodes=nodes)
    forced = _forced(outputs, nodes, clock(), abandon)
    status = statuses[0] if statuses else None

    def verdict(kind: Kind, sentence: str) -> Verdict:
        return Verdict(kind, sentence, saved, status, nodes)

    alive = [node for node in nodes if node.alive]
    if not alive:
        return verdict("gone", f"No node is alive any more. {saved.sentence}")
    if saved.artifact is not None:
        return verdict("verified", saved.sentence)
    if forced is not None:
        return verdict(forced[0], f"{forced[1]} {saved.sentence}")
    said = [s for s in statuses if s is not None and s.phase == "ended"]
    if len(said) == len(statuses) and said:
        halted = {s.halted for s in said}
        if halted == {"nothing"}:
            return verdict("nothing", f"{_why(said[0], clock())} There was nothing to save.")
        if halted <= {"verified", "nothing"} and _delivered(said, saved, cloud):
            return verdict("checkpoint", f"{_why(said[0], clock())} {saved.sentence}")
    return verdict("working", _working(alive, status, saved, last_expiry(outputs, alive), clock()))


def _forced(
    outputs: Mapping[str, Any], nodes: Sequence[Node], moment: datetime, abandon: bool
) -> tuple[Kind, str] | None:
    if (expires := last_expiry(outputs, nodes)) is not None and moment >= expires + MARGIN:
        return (
            "expired",
            f"Its expiry, {write_instant(expires)}, has passed, and the machine goes whatever is not safe.",
        )
    if abandon:
        return "abandoned", "Abandoned as asked (--abandon): what is not in S3 is lost with the node."
    return None


def expiry_of(outputs: Mapping[str, Any]) -> datetime | None:
    """The moment at which the stack's machines must be gone; None where the outputs name none."""
    text = str(outputs.get("expires_at") or "never")
    return None if text == "never" else parse_instant(text)


def last_expiry(outputs: Mapping[str, Any], nodes: Sequence[Node]) -> datetime | None:
    """The latest moment that the stack or one of its living machines names."""
    named = [expiry_of(outputs), *(node.expires for node in nodes if node.alive)]
    return max((at for at in named if at is not None), default=None)


def _look(outputs: Mapping[str, Any], cloud: Cloud, nodes: tuple[Node, ...]) -> tuple[Saved, list[Status | None]]:
    uri, s3 = str(outputs["artifacts"]).rstrip("/"), cloud.client("s3")
    statuses = [own_status(status_of(place, s3), outputs) for place in node_uris(uri, len(outputs["instances"]))]
    saved = saved_under(uri, s3, statuses[0])
    since = min((node.since for node in nodes if node.alive), default=None)
    if saved.artifact is not None and since is not None and saved.written_at is not None and saved.written_at < since:
        about = f"the artifact that is there was written at {write_instant(saved.written_at)}, before this node began"
        saved = Saved(uri, problems=(about,))
    return saved, statuses


def _delivered(said: list[Status], saved: Saved, cloud: Cloud) -> bool:
    """Whether everything that the watchdogs' last words name is whole in S3; the first node's was just looked at."""
    s3 = cloud.client("s3")
    seen = set() if saved.checkpoint is None else {saved.checkpoint.location}
    wanted = [place for status in said for place in status.verified]
    return bool(wanted) and all(place in seen or is_whole(place, s3) for place in wanted)


def _why(status: Status, moment: datetime) -> str:
    return " ".join(describe(status, moment.timestamp())[:1])


def _working(alive: list[Node], status: Status | None, saved: Saved, expires: datetime | None, moment: datetime) -> str:
    names = ", ".join(node.id for node in alive)
    doing = _why(status, moment) if status is not None else "Its watchdog has not said anything yet."
    until = write_instant(expires) if expires is not None else "its expiry"
    return (
        f"{names} holds work that is not safe. {doing} {saved.sentence} It ends by itself when it is done, at {until} "
        "at the latest; `--abandon` destroys it at once and loses what is not in S3."
    )
