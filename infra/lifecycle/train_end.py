"""A run to its end: followed, its work verified in S3, its node destroyed, its bill made.

What is done next is decided from what is there: the stack's state, EC2, S3, the watchdog's word. So every command that
attends a run, the first, one after a crash, or a second person's, does the same, and may be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from infra.cloud import asking_aws
from infra.durations import parse_instant, write_instant
from infra.instances import by_id, ended_at
from infra.lifecycle.down import names_of
from infra.lifecycle.engine import Removal, StackBusyError
from infra.lifecycle.final_bill import FinalBill, final_bill, kept_bytes
from infra.lifecycle.follow import Follower, Look
from infra.lifecycle.interlock import MARGIN, Verdict, check
from infra.lifecycle.remove import sweep
from infra.lifecycle.saved import Saved, saved_under, status_of
from infra.lifecycle.train_run import (
    BEGUN,
    ENDED,
    Desk,
    Run,
    ended_note,
    last_run_uri,
    note,
    read_note,
    shared_outputs,
    standing_run,
    training_file,
    whoami,
)
from infra.settings import TrainingSettings
from infra.steps import Left, Tell, silent
from model_runtime.watch.status import Status, describe
from sizing.errors import UserError

POLL_S, SANDBOX_POLL_S = 5.0, 0.5
LAST_WORD_S = 60.0
"""After the artifact has come, for the watchdog's last word; one that is dead says none."""
HALT_S = 180.0
"""After the watchdog's last word, for the machine to halt by itself."""
CHECK_AGAIN_S = 60.0
"""After a look that found the work not safe, which may have read gigabytes."""
_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended. `verdict`: why its node could go; `removal` is None where this command destroyed nothing.

    `by`: who destroyed it, where that was another. `succeeded`: the artifact is whole in S3.
    """

    stack: str
    uri: str
    verdict: Verdict
    bill: FinalBill | None
    removal: Removal | None = None
    by: str = ""
    sentences: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        return self.verdict.saved is not None and self.verdict.saved.artifact is not None

    @property
    def clean(self) -> bool:
        """Whether nothing of the node is left."""
        return self.removal is None or not self.removal.left

    def to_json(self) -> dict[str, Any]:
        saved = self.verdict.saved
        best = None if saved is None else saved.best
        return {
            "run": self.uri,
            "succeeded": self.succeeded,
            "verdict": self.verdict.kind,
            "sentences": list(self.sentences),
            "saved": None
            if saved is None or best is None
            else {
                "what": "artifact" if saved.artifact is not None else "checkpoint",
                "location": best.location,
                "manifest_sha256": best.manifest_sha256,
                "bytes": best.total_bytes,
                "checked": saved.checked,
            },
            "destroyed_by": self.by or None,
            "left": [] if self.removal is None else [entry.to_json() for entry in self.removal.left],
            "bill": None if self.bill is None else self.bill.to_json(),
        }


Show = Callable[[Look], None]


def log_group(settings: TrainingSettings, desk: Desk) -> str:
    """The log group of training nodes, empty where the shared stack's state names none."""
    return str(shared_outputs(settings, desk).get("log_group_training", ""))


def attend(stack: str, desk: Desk, show: Show = lambda _: None, *, abandon: bool = False, tell: Tell = silent) -> End:
    """Follow the run of a stack to its end, verify, destroy, account. Raises `UserError` where there is no run at all.

    Interrupting it (`KeyboardInterrupt`) leaves the run as it is.
    """
    _, settings = training_file(stack, desk.project)
    run = standing_run(stack, desk)
    if run is None:
        return _without_machines(stack, settings, desk, tell)
    if not run.whole:
        desk.say(f"The `up` of stack {stack} broke off; its machine {', '.join(run.instances)} has begun all the same.")
    if desk.machines is not None:
        desk.machines.switch_on(run.outputs)
    follower = Follower(run, desk, log_group(settings, desk))
    verdict = _follow(follower, desk, show, abandon)
    return _end(run, verdict, follower, desk, tell, abandon=abandon)


def _without_machines(stack: str, settings: TrainingSettings, desk: Desk, tell: Tell) -> End:
    """What an interrupted `up` or `destroy` has left goes first: it costs, and no machine is among it."""
    removal: Removal | None = None
    if desk.engine.resources(stack):
        desk.say(f"Stack {stack} has no machine, but other resources of it stand; they are removed.")
        removal, _ = _destroy(stack, "", desk, tell)
    return replace(past(stack, settings, desk), removal=removal)


def _follow(follower: Follower, desk: Desk, show: Show, abandon: bool) -> Verdict:
    """Until the interlock lets the node go and there is nothing more to wait for."""
    said: set[str] = set()
    since: dict[str, datetime] = {}
    again: datetime | None = None
    poll = SANDBOX_POLL_S if desk.sandbox else POLL_S
    while True:
        try:
            if not abandon:
                look = follower.look()
                show(look)
                _say_once(look.trouble, said, desk)
            if abandon or (_may_be_over(look, since) and (again is None or desk.clock() >= again)):
                verdict = check(follower.run.outputs, desk.cloud, desk.clock, abandon=abandon)
                if verdict.may_destroy:
                    return verdict
                again = desk.clock() + timedelta(seconds=CHECK_AGAIN_S)
                _say_once((verdict.saved.sentence if verdict.saved else verdict.sentence,), said, desk)
        except UserError as error:
            if abandon:
                raise
            # The run does not depend on this command, nor on what it can see.
            _say_once((f"{error}; the run goes on, and this is asked again",), said, desk)
        desk.wait(poll)


def _say_once(lines: tuple[str, ...], said: set[str], desk: Desk) -> None:
    for line in lines:
        if line not in said:
            said.add(line)
            desk.say(line)


def _may_be_over(look: Look, since: dict[str, datetime]) -> bool:
    """Whether it is time to ask the interlock. `since` keeps when each reason was first seen."""
    if not look.alive:
        return True
    if look.expires_at is not None and look.moment >= look.expires_at + MARGIN:
        return True
    ended = look.status is not None and look.status.phase == "ended"
    waits = {"artifact": (look.artifact_at is not None, 0.0 if ended else LAST_WORD_S), "ended": (ended, HALT_S)}
    for reason, (holds, seconds) in waits.items():
        if not holds:
            since.pop(reason, None)
        elif (look.moment - since.setdefault(reason, look.moment)).total_seconds() >= seconds:
            return True
    return False


def _end(run: Run, verdict: Verdict, follower: Follower, desk: Desk, tell: Tell, *, abandon: bool) -> End:
    """Destroy what is left of the stack, note the end, and make the bill."""
    if any(node.alive for node in verdict.nodes):
        desk.say(f"{verdict.sentence} The node is destroyed now.")
    until = desk.clock() if any(node.alive for node in verdict.nodes) else None
    # Nothing comes before it that may fail: an account of the money must not cost any.
    removal, by = _destroy(run.stack, run.uri, desk, tell)
    bill = _bill(run, verdict, follower, desk, until)
    end = End(run.stack, run.uri, verdict, bill, removal, by, tuple(_sentences(verdict, desk)))
    if removal is None:
        return end
    try:
        if not abandon and verdict.kind != "expired":
            _still_there(verdict, desk)
        return _noted_end(end, desk) if not removal.left else end
    except UserError as error:
        desk.say(f"The node is gone; that could not be noted in S3: {error}")
        return end


def _noted_end(end: End, desk: Desk) -> End:
    if (found := ended_note(end.uri, read_note(end.uri, BEGUN, desk.cloud), desk.cloud)) is not None:
        return replace(end, by=str(found.get("by", "")))
    document = {**end.to_json(), "by": whoami(), "at": write_instant(desk.clock())}
    note(end.uri, ENDED, document, desk.cloud)
    return end


def _still_there(verdict: Verdict, desk: Desk) -> None:
    """The artifact outlives the node: a look after the removal, at its manifest alone."""
    best = verdict.saved.best if verdict.saved is not None else None
    if best is None:
        return
    after = saved_under(verdict.saved.uri, desk.cloud.client("s3"), verdict.status) if verdict.saved else None
    if after is None or after.best is None or after.best.manifest_sha256 != best.manifest_sha256:
        desk.say(
            f"{best.location} was whole before the node was destroyed and is another now; look at the bucket's versions"
        )


def _destroy(stack: str, uri: str, desk: Desk, tell: Tell) -> tuple[Removal | None, str]:
    """The engine's destroy. Where another command is at work on the stack, its end is waited for."""
    waited = False
    while True:
        try:
            if not desk.engine.resources(stack):  # somebody else was quicker
                ended = ended_note(uri, read_note(uri, BEGUN, desk.cloud), desk.cloud) if uri else None
                return None, str((ended or {}).get("by", "another command"))
            return _swept(stack, desk.engine.destroy(stack, tell), desk), ""
        except StackBusyError as error:
            if not waited:
                desk.say(f"{error.who} is changing the stack; waiting for that to end.")
            waited = True
            desk.wait(_BUSY_S)


def _swept(stack: str, removal: Removal, desk: Desk) -> Removal:
    """With what has the stack's tag and was in no state: an `up` that was killed may have made it, and told nobody."""
    known = names_of((*removal.kept, *removal.removed)) | {x.id for x in removal.left}
    try:
        rest = sweep(stack, desk.cloud, known)
    except UserError as error:
        desk.say(f"Whether something else with the tag of {stack} is left could not be seen: {error}")
        return removal
    reason = f"it is in no state; `berth status{desk.option}` names the command that removes it"
    return replace(removal, left=(*removal.left, *(Left(f.kind, f.name, f.id, reason) for f in rest)))


def _bill(run: Run, verdict: Verdict, follower: Follower, desk: Desk, until: datetime | None) -> FinalBill | None:
    """From the machines' launch to their end; where EC2 has forgotten both, from what was noted and said.

    `until`: when they were destroyed, None where they had ended before. What cannot be asked leaves no bill, aloud.
    """
    try:
        return _reckoned(run, verdict, follower, desk, until)
    except UserError as error:
        desk.say(f"There is no final bill: {error}; `berth train --attach {run.stack}{desk.option}` makes it later.")
        return None


def _reckoned(
    run: Run, verdict: Verdict, follower: Follower, desk: Desk, destroyed: datetime | None
) -> FinalBill | None:
    begun = follower.begun or read_note(run.uri, BEGUN, desk.cloud)
    since = min((n.since for n in verdict.nodes), default=None) or _noted(begun, "at")
    if since is None and verdict.status is not None:
        since = parse_instant(verdict.status.began_at)
    if since is None:
        return None
    until, sure = (destroyed, True) if destroyed is not None else _until(run, verdict, desk)
    size = kept_bytes(run.uri, desk.cloud.client("s3"))
    # What stood beside the machines has stood until now, however long ago they ended.
    return final_bill(begun, since, max(until, since), size, desk.cloud.region, sure=sure, removed=desk.clock())


def _noted(document: Mapping[str, Any] | None, key: str) -> datetime | None:
    return parse_instant(str(document[key])) if document is not None and document.get(key) else None


def _until(run: Run, verdict: Verdict, desk: Desk) -> tuple[datetime, bool]:
    """When machines that ended by themselves did so, and whether that is known."""
    moment = desk.clock()
    with asking_aws("to see when the nodes ended"):
        found = by_id(desk.cloud.client("ec2"), run.instances)
    ends = [at for i in found if (at := ended_at(i)) is not None]
    if ends:
        return max(ends), True
    return _by_word(verdict.status, moment)


def _by_word(status: Status | None, moment: datetime) -> tuple[datetime, bool]:
    """By the watchdog's last word; a machine that left none was gone ten minutes after its expiry, at the latest."""
    if status is None:
        return moment, False
    if status.phase == "ended":
        return parse_instant(status.updated_at), True
    latest = parse_instant(status.expires_at) + timedelta(minutes=10)
    return min(latest, moment), False


def _sentences(verdict: Verdict, desk: Desk) -> list[str]:
    """What happened, truthfully: the watchdog's last word, then what S3 was just seen to hold."""
    told = describe(verdict.status, desk.clock().timestamp()) if verdict.status is not None else []
    kept = [line for line in told if not line.startswith("Verified in S3")]
    if not kept:
        kept = ["Its watchdog never said a word: the machine ended before it, or its set-up failed."]
    return [*kept, *([] if verdict.saved is None else [verdict.saved.sentence])]


def past(stack: str, settings: TrainingSettings, desk: Desk) -> End:
    """The newest run of a stack that stands no more, told from what it left in S3. Raises `UserError` without one."""
    uri = last_run_uri(stack, settings, desk)
    if not uri:
        raise UserError(
            f"stack {stack} has no run, and left none in the bucket; `berth train {stack} --data …` begins one"
        )
    s3 = desk.cloud.client("s3")
    begun, status = read_note(uri, BEGUN, desk.cloud), status_of(uri, s3)
    ended = ended_note(uri, begun, desk.cloud)
    saved: Saved = saved_under(uri, s3, status)
    verdict = Verdict("verified" if saved.artifact is not None else "gone", saved.sentence, saved, status)
    by = str((ended or {}).get("by", ""))
    return End(
        stack,
        uri,
        verdict,
        _past_bill(uri, begun, ended, status, desk),
        None,
        by,
        tuple(_told(verdict, begun, ended, desk)),
    )


def _told(verdict: Verdict, begun: Mapping[str, Any] | None, ended: Mapping[str, Any] | None, desk: Desk) -> list[str]:
    name = f"Run {begun['run']}, begun by {begun['by']} at {begun['at']}" if begun else "The run"
    if ended is not None:
        how = f"{name}, is over; its node was destroyed by {ended['by']} at {ended['at']}."
    elif verdict.status is None and verdict.saved is not None and verdict.saved.best is None:
        how = f"{name}, has no machine: it was interrupted before one began, or was taken down."
    else:
        how = f"{name}, has no machine any more."
    return [how, *_sentences(verdict, desk)]


def _past_bill(
    uri: str,
    begun: Mapping[str, Any] | None,
    ended: Mapping[str, Any] | None,
    status: Status | None,
    desk: Desk,
) -> FinalBill | None:
    told = (ended or {}).get("bill") or {}
    since = _noted(told, "since") or (parse_instant(status.began_at) if status is not None else None)
    if since is None:
        return None
    until, sure = (_noted(told, "until"), bool(told.get("until_is_known"))) if told else _by_word(status, desk.clock())
    size = kept_bytes(uri, desk.cloud.client("s3"))
    removed = _noted(told, "removed")
    return final_bill(begun, since, max(until or since, since), size, desk.cloud.region, sure=sure, removed=removed)
