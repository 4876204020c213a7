"""Any schedule of mishaps: the machine is gone in time, and what the watchdog calls verified is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.watch.clock import instant
from model_runtime.watch.courier import Delivery, Task
from model_runtime.watch.dog import Ports, Watchdog
from model_runtime.watch.job import JobState
from model_runtime.watch.limits import Limits
from model_runtime.watch.metadata import MetadataError
from model_runtime.watch.record import Record
from tests.model_runtime.watchdog_tools import LATEST, START, FakeClock, FakeMachine, Gone

LIMITS = Limits(idle_minutes=10)
Window = tuple[float, float]


@dataclass(frozen=True)
class Schedule:
    """Moments in seconds after the start; windows are (from, length)."""

    expires_in: float
    ends_at: float | None
    """When the job ends by itself."""
    exit_code: int
    saving_s: float | None
    """How long its last checkpoint takes; None: it does not hear SIGTERM."""
    killable: bool
    every_s: float
    """Between two checkpoints of the job's own."""
    upload_s: float
    s3_down: tuple[Window, ...]
    idle_from: float | None
    spot_at: float | None
    metadata_down: tuple[Window, ...]
    jumps: tuple[tuple[float, float], ...]
    kills: tuple[float, ...]
    """Of the watchdog."""


def within(windows: Sequence[Window], now: float) -> bool:
    return any(start <= now < start + length for start, length in windows)


@dataclass
class Simulated:
    """Job, S3, metadata and GPUs of a schedule."""

    schedule: Schedule
    clock: FakeClock
    asked: float | None = None
    killed: float | None = None
    stored: set[str] = field(default_factory=set)

    def ended_at(self) -> float | None:
        plan = self.schedule
        ends = [plan.ends_at] if plan.ends_at is not None else []
        if self.asked is not None and plan.saving_s is not None:
            ends.append(self.asked + plan.saving_s)
        if self.killed is not None and plan.killable:
            ends.append(self.killed)
        return min(ends) if ends and min(ends) <= self.clock.now else None

    def newest(self) -> int:
        """Number of whole checkpoints on the disk; the one that SIGTERM asked for counts when it was saved in time."""
        ended, plan = self.ended_at(), self.schedule
        worked = self.clock.now if ended is None else ended
        stopped = plan.saving_s is not None and self.asked is not None and ended == self.asked + plan.saving_s
        if self.asked is not None:
            worked = min(worked, self.asked)
        return int(worked // plan.every_s) + (1 if stopped else 0)

    def state(self) -> JobState:
        ended = self.ended_at()
        if ended is None:
            return JobState("running")
        if ended == self.schedule.ends_at:
            code = self.schedule.exit_code
            return JobState("failed" if code else "succeeded", code)
        return JobState("failed", 75)

    def ask_to_stop(self) -> str:
        if self.asked is None and self.ended_at() is None:
            self.asked = self.clock.now
        return ""

    def kill(self) -> str:
        self.killed = self.clock.now if self.killed is None else self.killed
        return ""

    def busy(self) -> float | None:
        idle = self.schedule.idle_from
        return 0.0 if idle is not None and self.clock.now >= idle else 80.0

    def spot_notice(self) -> str:
        if within(self.schedule.metadata_down, self.clock.now):
            raise MetadataError("timed out")
        spot = self.schedule.spot_at
        return "" if spot is None or self.clock.now < spot else instant(START + spot + 120)

    def rebalance(self) -> str:
        return ""

    def expiry(self) -> str:
        return ""

    def deliver(self, seconds: float) -> Task:  # noqa: ARG002
        newest = self.newest()
        place = f"checkpoint-{newest}" if newest else ""
        return Upload(self, place, self.clock.now + self.schedule.upload_s)

    def report(self, status: dict[str, Any], events: Sequence[dict[str, Any]]) -> Task:  # noqa: ARG002
        for item in (status["delivered"] or {}).get("items", []):
            assert item["location"] in self.stored, "it says verified what is not"
        return Upload(self, "status", self.clock.now)


@dataclass
class Upload:
    world: Simulated
    place: str
    ready: float
    given_up: bool = False

    def poll(self) -> Delivery | None:
        if self.given_up:
            return Delivery("failed", problems=("given up",))
        if self.world.clock.now < self.ready:
            return None
        if not self.place:
            return Delivery("nothing")
        if within(self.world.schedule.s3_down, self.world.clock.now):
            return Delivery("failed", problems=("refused",))
        self.world.stored.add(self.place)
        return Delivery("verified", ({"location": self.place, "checked": "every byte"},))

    def stop(self) -> None:
        self.given_up = True


def moments(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most).map(lambda t: round(t, 1))


def windows() -> st.SearchStrategy[tuple[Window, ...]]:
    return st.lists(st.tuples(moments(2400), moments(2400)), max_size=3).map(tuple)


schedules = st.builds(
    Schedule,
    expires_in=st.sampled_from([30.0, 400.0, 1200.0, 1800.0]),
    ends_at=st.none() | moments(2400),
    exit_code=st.sampled_from([0, 1, 137]),
    saving_s=st.none() | moments(900),
    killable=st.booleans(),
    every_s=st.sampled_from([50.0, 300.0, 100_000.0]),
    upload_s=st.sampled_from([0.0, 20.0, 200.0, 1000.0, 1e9]),
    s3_down=windows(),
    idle_from=st.none() | moments(2000),
    spot_at=st.none() | moments(2000),
    metadata_down=windows(),
    jumps=st.lists(st.tuples(moments(2000), st.floats(-1e5, 1e5)), max_size=2).map(tuple),
    kills=st.lists(moments(2400), max_size=3).map(tuple),
)


def play(schedule: Schedule) -> tuple[Simulated, Watchdog, float]:
    """The machine's life; the moment of its halt."""
    clock = FakeClock()
    world, machine = Simulated(schedule, clock), FakeMachine(clock)
    for moment, by in schedule.jumps:
        clock.at(moment, lambda by=by: setattr(clock, "set_by", clock.set_by + by))
    with tempfile.TemporaryDirectory() as folder:

        def start() -> Watchdog:
            record = Record(Path(folder), clock, say=lambda _: None)
            ports = Ports(clock, world, world.busy, world, machine, record, world)
            return Watchdog(LIMITS, START + schedule.expires_in, ports, {})

        dog = start()
        kills = sorted(schedule.kills, reverse=True)
        while machine.halted_at is None:
            assert clock.now <= schedule.expires_in + LATEST, f"alive past its expiry: {dog.memory}"
            if kills and clock.now >= kills[-1]:
                kills.pop()
                dog = start()
            try:
                dog.tick()
            except Gone:
                break
            clock.sleep(LIMITS.poll_s)
    assert machine.halted_at is not None
    assert len(set(machine.armed)) == 1
    return world, dog, machine.halted_at


@settings(max_examples=50)
@given(schedules)
def test_the_machine_is_gone_in_time_and_what_it_says_is_true(schedule: Schedule) -> None:
    world, dog, halted_at = play(schedule)
    memory = dog.memory
    assert halted_at <= schedule.expires_in + LIMITS.margin_s + LIMITS.poll_s
    if memory.reason == "spot-notice":
        seen = schedule.spot_at or 0.0
        late = sum(length for _, length in schedule.metadata_down)
        assert halted_at <= seen + late + 120 + LIMITS.poll_s
    if memory.halted == "verified":
        assert memory.delivered is not None
        assert [item["location"] for item in memory.delivered["items"]] == [f"checkpoint-{world.newest()}"]
        assert f"checkpoint-{world.newest()}" in world.stored
    elif memory.halted == "nothing":
        assert world.newest() == 0
    else:
        left = schedule.expires_in + LIMITS.margin_s - halted_at
        forced = left <= LIMITS.report_s + LIMITS.poll_s or memory.spot_until is not None or schedule.jumps
        assert forced, "it gave up the work while there was time"


@settings(max_examples=25)
@given(schedules)
def test_where_s3_answers_and_time_allows_everything_whole_is_home(schedule: Schedule) -> None:
    kind = {name: getattr(schedule, name) for name in Schedule.__dataclass_fields__}
    kind |= {"s3_down": (), "upload_s": min(schedule.upload_s, 20.0), "jumps": ()}
    kind["expires_in"] = max(schedule.expires_in, 1200.0)
    world, dog, halted_at = play(Schedule(**kind))
    assert dog.memory.halted in ("verified", "nothing")
    assert halted_at <= kind["expires_in"]
    if world.newest():
        assert f"checkpoint-{world.newest()}" in world.stored
