"""The watchdog itself: watch, stop the job, bring its work to S3, say what happened, halt. Knows only ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from model_runtime.watch.clock import JUMP_S, Clock, Expiry, instant, parse_instant
from model_runtime.watch.courier import Courier, Task
from model_runtime.watch.end import hard_left, saving_s
from model_runtime.watch.gpu import Busy
from model_runtime.watch.job import Job
from model_runtime.watch.limits import Limits
from model_runtime.watch.machine import Machine
from model_runtime.watch.metadata import Metadata, MetadataError
from model_runtime.watch.record import Record
from model_runtime.watch.status import Phase, Status

_REPORT_TRY_S = 60.0
_ARM_AGAIN_S = 60.0
_LEAVING_SHARE = 0.1
_HEARTBEAT_END_S = 5.0
"""For a status on its way to arrive before the last one is sent, which it must not overwrite."""


@dataclass(frozen=True)
class Ports:
    """What the watchdog touches the world with. `metadata` is None where there is no EC2, `busy` where GPUs are not
    watched; `beat` tells systemd that the watchdog lives."""

    clock: Clock
    job: Job
    busy: Busy | None
    courier: Courier
    machine: Machine
    record: Record
    metadata: Metadata | None = None
    beat: Callable[[], None] = lambda: None
    last_line: Callable[[], str] = lambda: ""
    """Of the job's own log, for the status."""


@dataclass
class Memory:
    """What a watchdog that is started anew must know. Numbers are of the monotonic clock, `expiry_at` of the wall's."""

    expiry_at: float
    expiry_monotonic: float
    began_at: str
    phase: Phase = "watching"
    reason: str = ""
    detail: str = ""
    stopping_since: str = ""
    since: float = 0.0
    save_until: float = 0.0
    killed: float | None = None
    leave_at: float = 0.0
    spot_until: float | None = None
    idle_since: float | None = None
    armed_for: float | None = None
    rebalance: str = ""
    halted: str = ""
    delivered: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Memory | None:
        """From a state file, None where it is another's or damaged."""
        try:
            made = cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError):
            return None
        numbers = (made.expiry_at, made.expiry_monotonic, made.since, made.save_until)
        known = made.phase in ("watching", "stopping", "delivering", "ended")
        return made if known and all(isinstance(n, (int, float)) for n in numbers) else None


class Watchdog:
    """`machine_facts`: what the status says of the machine (stack, instance, node)."""

    def __init__(self, limits: Limits, expires_at: float, ports: Ports, machine_facts: dict[str, str]) -> None:
        self.limits, self.ports, self._facts = limits, ports, machine_facts
        self.clock, self.record = ports.clock, ports.record
        clock = self.clock
        found = self.record.load()
        memory = None if found is None else Memory.of(found)
        if memory is None:
            expiry = Expiry.of(expires_at, clock)
            memory = Memory(expires_at, expiry.monotonic_at, instant(clock.wall()))
            self.record.save(asdict(memory))  # first: a successor must foresee the same moment
            self.record.event("began", expires_at=instant(expires_at), seconds_left=round(expiry.left(clock)))
        else:
            self.record.event("went on", phase=memory.phase, expires_at=instant(memory.expiry_at))
        self.memory = memory
        self._offset = clock.wall() - clock.monotonic()
        self._job = ports.job.state()
        self._task: Task | None = None
        self._task_until = 0.0
        self._next_try = 0.0
        self._pause = limits.retry_s
        self._words: Task | None = None
        self._words_until = 0.0
        self._last_words = clock.monotonic() - limits.heartbeat_s
        self._last_tag = clock.monotonic() - limits.heartbeat_s
        self._last_gpu = clock.monotonic() - limits.gpu_s
        self._report_until = 0.0
        self._next_arm = clock.monotonic()
        self._halts = 0
        self._said: set[str] = set()

    @property
    def expiry(self) -> Expiry:
        return Expiry(self.memory.expiry_at, self.memory.expiry_monotonic)

    def run(self) -> None:
        """Until the machine is halted; returns where the machine outlives its halt (`CommandMachine`)."""
        while not self.tick():
            self.clock.sleep(self.limits.poll_s)

    def tick(self) -> bool:
        """Look at everything once. True: there is nothing left to do."""
        self.ports.beat()
        armed = self.memory.armed_for == self.memory.expiry_monotonic
        if self.ports.machine.arms and not armed and self.clock.monotonic() >= self._next_arm:
            self._arm()
        self._look_at_the_clock()
        if self.memory.phase != "ended":
            self._look_at_the_metadata()
        if self.memory.phase == "watching":
            self._watch()
        elif self.memory.phase == "stopping":
            self._stop()
        elif self.memory.phase == "delivering":
            self._deliver()
        if self.memory.phase == "ended":
            return self._end()
        return False

    # What may end the machine.
    def _watch(self) -> None:
        self._job = self.ports.job.state()
        idle = self._idle()
        if self.expiry.left(self.clock) <= self.limits.lead_s:
            self._begin_stop("expiry", instant(self.memory.expiry_at))
        elif self._job.kind == "succeeded":
            self._begin_stop("job-succeeded")
        elif self._job.kind == "failed":
            self._begin_stop("job-failed", self._job.detail)
        elif idle is not None:
            self._begin_stop("gpu-idle", f"below {self.limits.idle_percent:g} % for {idle / 60:.0f} minutes")
        else:
            self._heartbeat()
            self._polled()

    def _idle(self) -> float | None:
        """For how long no GPU has worked, once that is too long. A reading that fails says nothing."""
        now, limits, memory = self.clock.monotonic(), self.limits, self.memory
        if self.ports.busy is None or not limits.idle_minutes or now - self._last_gpu < limits.gpu_s:
            return None
        self._last_gpu = now
        busy = self.ports.busy()
        if busy is None:
            self._once("the GPUs' use cannot be read")
            # Rarely from then on: each nvidia-smi that hangs in the kernel stays there.
            self._last_gpu = now + limits.heartbeat_s
            return None
        before = memory.idle_since
        if busy >= limits.idle_percent:
            memory.idle_since = None
        elif before is None:
            memory.idle_since = now
        if memory.idle_since != before:
            self._save()
        lasted = 0.0 if memory.idle_since is None else now - memory.idle_since
        return lasted if lasted >= limits.idle_minutes * 60 else None

    def _look_at_the_clock(self) -> None:
        offset = self.clock.wall() - self.clock.monotonic()
        moved = offset - self._offset
        if abs(moved) > JUMP_S:
            self._warn(f"the clock was set {'forward' if moved > 0 else 'back'} by {abs(moved):.0f} s")
            self._offset = offset

    def _look_at_the_metadata(self) -> None:
        metadata, memory, now = self.ports.metadata, self.memory, self.clock.monotonic()
        if metadata is None:
            return
        try:
            if memory.spot_until is None and (moment := metadata.spot_notice()):
                self._spot(moment)
            if memory.phase != "watching":
                return
            if not memory.rebalance and (moment := metadata.rebalance()):
                memory.rebalance = moment
                self.record.event("rebalance", since=moment)
                self._save()
                self._start_delivery(self.limits.longest_try_s)
            if now - self._last_tag >= self.limits.heartbeat_s:
                self._last_tag = now
                self._take_expiry(metadata.expiry())
        except MetadataError as error:
            self._once(f"the metadata service does not answer: {error}")

    def _spot(self, moment: str) -> None:
        limits, memory, now = self.limits, self.memory, self.clock.monotonic()
        try:
            left = parse_instant(moment) - self.clock.wall()
        except ValueError:
            left = limits.spot_s
        # The clock may be wrong: notices come two minutes before, neither more nor much less.
        left = min(left, limits.spot_s) if left > 0 else limits.spot_s
        memory.spot_until = now + left
        self.record.event("spot notice", at_moment=moment, seconds_left=round(left))
        if memory.phase == "watching":
            self._begin_stop("spot-notice", moment)
        elif memory.phase == "stopping":
            memory.save_until = min(memory.save_until, now + saving_s(left, limits, spot=True))
        self._save()

    def _take_expiry(self, tag: str) -> None:
        """`berth extend` moves the machine's tag; the moment is moved by the same amount on both clocks."""
        if not tag or tag == "never":
            return
        try:
            at = parse_instant(tag)
        except ValueError as error:
            self._once(f"the tag expiry cannot be read: {error}")
            return
        moved = at - self.memory.expiry_at
        if abs(moved) < 1:
            return
        self.memory.expiry_at, self.memory.expiry_monotonic = at, self.memory.expiry_monotonic + moved
        self.record.event("expiry moved", expires_at=tag, by_s=round(moved))
        self._save()

    def _arm(self) -> None:
        left = self.expiry.left_monotonic(self.clock) + self.limits.dead_man_s
        problem = self.ports.machine.arm(max(1.0, left))
        if problem:
            self._next_arm = self.clock.monotonic() + _ARM_AGAIN_S
            self._once(f"the dead man's switch is not set: {problem}")
            return
        self.memory.armed_for = self.memory.expiry_monotonic
        self.record.event("dead man's switch set", seconds=round(left))
        self._save()

    # The way to the end.
    def _left(self) -> float:
        memory = self.memory
        return hard_left(self.expiry, self.limits, self.clock, memory.since, memory.spot_until)

    def _report_s(self) -> float:
        return self.limits.report_s / (1 if self.memory.spot_until is None else 2)

    def _begin_stop(self, reason: str, detail: str = "") -> None:
        memory, now = self.memory, self.clock.monotonic()
        memory.phase, memory.reason, memory.detail = "stopping", reason, detail
        memory.since, memory.stopping_since = now, instant(self.clock.wall())
        left = self._left()
        memory.save_until = now + saving_s(left, self.limits, spot=memory.spot_until is not None)
        self.record.event("stopping", reason=reason, detail=detail, seconds_left=round(left), job=self._job.to_json())
        # Also where it ended: a unit that failed must not be started again.
        if problem := self.ports.job.ask_to_stop():
            self._warn(f"the job could not be asked to stop: {problem}")
        if reason == "spot-notice" and self._task is None:
            # What is whole goes up while the job writes what is not.
            self._start_delivery(left)
        self._save()

    def _stop(self) -> None:
        memory, now = self.memory, self.clock.monotonic()
        self._job = self.ports.job.state()
        self._heartbeat()
        self._polled()
        if self._job.ended or self._job.kind == "waiting":
            self._begin_delivery()
        elif self._left() <= self._report_s():
            self._conclude("deadline")
        elif memory.killed is None and now >= memory.save_until:
            memory.killed = now
            memory.leave_at = now + min(self.limits.kill_s, _LEAVING_SHARE * self._left())
            problem = self.ports.job.kill()
            self._warn("the job did not end in time and was killed" + (f" ({problem})" if problem else ""))
            self._save()
        elif memory.killed is not None and now >= memory.leave_at:
            self._warn("the job outlives SIGKILL: it hangs in the kernel and is left behind")
            self._begin_delivery()

    def _begin_delivery(self) -> None:
        self.record.event("job ended", job=self._job.to_json())
        self._drop_task()  # begun while the job wrote: it may have missed the newest
        self.memory.phase = "delivering"
        self._next_try = 0.0
        self._save()

    def _deliver(self) -> None:
        now, left = self.clock.monotonic(), self._left()
        self._heartbeat()
        found = self._polled()
        if found in ("verified", "nothing"):
            self._conclude(found)
        elif left <= self._report_s():
            self._conclude("deadline")
        elif self._task is None and now >= self._next_try:
            self._start_delivery(left)

    def _start_delivery(self, left: float) -> None:
        budget = left - self._report_s()
        self._task = self.ports.courier.deliver(budget)
        self._task_until = self.clock.monotonic() + min(self.limits.longest_try_s, max(20.0, budget / 2))
        self.record.event("upload begun", seconds=round(budget))

    def _polled(self) -> str | None:
        """How the delivery that runs ended, None while it goes on; one that takes too long is given up."""
        task, now = self._task, self.clock.monotonic()
        if task is None:
            return None
        if task.poll() is None and now >= self._task_until:
            task.stop()
        found = task.poll()
        if found is None:
            return None
        self._task = None
        document = found.to_json()
        if not found.items and self.memory.delivered:
            document["items"] = self.memory.delivered["items"]  # what was verified before is still there
        self.memory.delivered = document
        self.record.event("upload ended", **document)
        self._save()
        if found.kind == "failed":
            self._next_try = now + self._pause
            self._pause = min(self._pause * 2, self.limits.longest_retry_s)
        return found.kind

    def _drop_task(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _conclude(self, halted: str) -> None:
        self._drop_task()
        memory = self.memory
        memory.phase, memory.halted = "ended", halted
        self.record.event("ended", reason=memory.reason, halted=halted, delivered=memory.delivered)
        self._save()
        self._words_until = min(self._words_until, self.clock.monotonic() + _HEARTBEAT_END_S)

    def _end(self) -> bool:
        """The last words, then the halt; where words cannot be said there is a halt all the same."""
        now = self.clock.monotonic()
        if self._halts == 0:
            if not self._report_until:
                if self._words is not None and self._words.poll() is None and now < self._words_until:
                    return False
                self._drop_words()
                self._report_until = now + max(0.0, min(_REPORT_TRY_S, self._left()))
                self._words = self.ports.courier.report(self._status().to_json(), self.record.events)
            said = None if self._words is None else self._words.poll()
            if said is not None and said.kind != "verified":
                self.record.event("status not said", problems=list(said.problems))
                self._words = self.ports.courier.report(self._status().to_json(), self.record.events)
                said = None
            if said is None and now < self._report_until:
                return False
            self._drop_words()
            self._words_until = now
        if now < self._words_until:
            return False
        self.record.event("halt", attempt=self._halts)
        problem = self.ports.machine.halt(self._halts)
        if problem:
            self.record.event("halt refused", problem=problem)
        self._halts += 1
        self._words_until = now + self.limits.halt_s
        return self.ports.machine.final and not problem

    # Words.
    def _status(self) -> Status:
        memory, clock = self.memory, self.clock
        warnings = list(memory.warnings)
        if self.record.unwritten:
            warnings.append(f"the watchdog's own log could not be written: {self.record.unwritten}")
        return Status(
            phase=memory.phase,
            updated_at=instant(clock.wall()),
            began_at=memory.began_at,
            expires_at=instant(memory.expiry_at),
            machine=self._facts,
            job={**self._job.to_json(), "last_line": self.ports.last_line()},
            reason=memory.reason,
            detail=memory.detail,
            stopping_since=memory.stopping_since,
            delivered=memory.delivered,
            halted=memory.halted,
            warnings=warnings,
        )

    def _heartbeat(self) -> None:
        now = self.clock.monotonic()
        if self._words is not None:
            said = self._words.poll()
            if said is None and now < self._words_until:
                return
            self._drop_words()
            if said is None or said.kind != "verified":
                self._once(f"a status did not reach S3: {'; '.join(said.problems) if said else 'it took too long'}")
        if now - self._last_words >= self.limits.heartbeat_s:
            self._last_words, self._words_until = now, now + _REPORT_TRY_S
            self._words = self.ports.courier.report(self._status().to_json(), self.record.events)

    def _drop_words(self) -> None:
        if self._words is not None:
            self._words.stop()
            self._words = None

    def _warn(self, text: str) -> None:
        self.memory.warnings = [*self.memory.warnings[-19:], text]
        self.record.event("warning", text=text)

    def _once(self, text: str) -> None:
        kind = text.split(":", maxsplit=1)[0]
        if kind not in self._said:
            self._said.add(kind)
            self._warn(text)

    def _save(self) -> None:
        self.record.save(asdict(self.memory))
