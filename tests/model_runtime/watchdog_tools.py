"""A machine to watch: a clock that tests move, real processes that train, a real S3, and a halt that is noted."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from model_runtime.artifacts import verify
from model_runtime.errors import ModelError
from model_runtime.manifest import write_manifest
from model_runtime.watch import deliver
from model_runtime.watch.courier import Delivery, Task
from model_runtime.watch.dog import Ports, Watchdog
from model_runtime.watch.job import Job, SupervisedJob
from model_runtime.watch.limits import Limits
from model_runtime.watch.metadata import MetadataError
from model_runtime.watch.record import Record
from model_runtime.watch.status import Status, describe, read_status

START = 1_800_000_000.0
HOUR = 3600.0
BUCKET = "work-of-a-test"
URI = f"s3://{BUCKET}/output/training"
LATEST = 600.0
"""Seconds after the expiry at which a machine must be gone."""


class Gone(Exception):  # noqa: N818 (the machine's end, no error)
    """The machine has halted: nothing runs any more."""


class FakeClock:
    """Moves when the watchdog sleeps, but for the time that something real takes (`holds`)."""

    def __init__(self) -> None:
        self.now, self.set_by = 0.0, 0.0
        self.holds: list[Callable[[], bool]] = []
        self.hooks: list[tuple[float, Callable[[], Any]]] = []

    def wall(self) -> float:
        return START + self.now + self.set_by

    def monotonic(self) -> float:
        return self.now

    def at(self, moment: float, do: Callable[[], Any]) -> None:
        self.hooks.append((moment, do))

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + 60
        while any(hold() for hold in self.holds):
            assert time.monotonic() < until, "what the clock waits for does not end"
            time.sleep(0.005)
        self.now += seconds
        due = [hook for hook in self.hooks if hook[0] <= self.now]
        self.hooks = [hook for hook in self.hooks if hook[0] > self.now]
        for _, do in due:
            do()


class FakeMetadata:
    def __init__(self) -> None:
        self.notice, self.risk, self.tag, self.reachable = "", "", "", True

    def _say(self, word: str) -> str:
        if not self.reachable:
            raise MetadataError("api/token: timed out")
        return word

    def spot_notice(self) -> str:
        return self._say(self.notice)

    def rebalance(self) -> str:
        return self._say(self.risk)

    def expiry(self) -> str:
        return self._say(self.tag)


class FakeMachine:
    """`refuse`: so many halts fail before one is taken."""

    final = False
    arms = True

    def __init__(self, clock: FakeClock, refuse: int = 0) -> None:
        self._clock, self.refuse = clock, refuse
        self.halts: list[tuple[float, int]] = []
        self.armed: list[float] = []
        self.halted_at: float | None = None

    def halt(self, attempt: int) -> str:
        self.halts.append((self._clock.now, attempt))
        if len(self.halts) <= self.refuse:
            return "Failed to connect to bus"
        self.halted_at = self._clock.now
        raise Gone

    def arm(self, seconds: float) -> str:
        self.armed.append(self._clock.now + seconds)
        return ""


class ThreadTask:
    def __init__(self, work: Callable[[], Delivery]) -> None:
        self._work, self._found, self._stopped = work, [], False
        self._found: list[Delivery] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except (ModelError, OSError) as error:
            self._found.append(Delivery("failed", problems=(str(error),)))

    def poll(self) -> Delivery | None:
        if self._found:
            return self._found[0]
        return Delivery("failed", problems=("given up",)) if self._stopped else None

    def stop(self) -> None:
        self._stopped = True


class Hanging:
    """An upload that never ends by itself."""

    def __init__(self) -> None:
        self.stopped = False

    def poll(self) -> Delivery | None:
        return Delivery("failed", problems=("given up: it took too long",)) if self.stopped else None

    def stop(self) -> None:
        self.stopped = True


class ThreadCourier:
    """The project's own delivery in a thread; the clock stands still while it works."""

    def __init__(self, clock: FakeClock, output: Path, endpoint: str) -> None:
        self._clock, self._output = clock, output
        retries = {"mode": "standard", "max_attempts": 1}
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, config=Config(connect_timeout=2, read_timeout=5, retries=retries)
        )
        self.hang = False
        self.before: Callable[[], Any] | None = None

    def deliver(self, seconds: float) -> Task:
        if self.hang:
            return Hanging()
        if self.before is not None:
            self.before()
        return self._start(lambda: deliver.deliver(self._output, URI, seconds, client=self.client, wait=lambda _: None))

    def report(self, status: dict[str, Any], events: Sequence[dict[str, Any]]) -> Task:
        if self.hang:
            return Hanging()
        words = {"status": status, "events": list(events)}
        return self._start(lambda: deliver.report(URI, words, client=self.client))

    def _start(self, work: Callable[[], Delivery]) -> ThreadTask:
        task = ThreadTask(work)
        self._clock.holds.append(task.thread.is_alive)
        return task


STAND_IN = """
    import os, signal, sys, time
    from pathlib import Path
    from model_runtime.manifest import write_manifest

    mode, output, size = sys.argv[1], Path(sys.argv[2]), 200_000
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))

    def folder(place, whole=True):
        made = output / place
        made.mkdir(parents=True)
        (made / "model.safetensors").write_bytes(os.urandom(size))
        (made / "trainer_state.json").write_text("{}")
        if whole:
            write_manifest(made)

    folder("checkpoints/checkpoint-10")
    if mode == "in-a-checkpoint":
        folder("checkpoints/checkpoint-20", whole=False)
    (output / "ready").touch()
    while mode in ("saves", "hangs", "in-a-checkpoint") and not (asked and mode == "saves"):
        time.sleep(0.01)
    if mode == "saves":
        folder("checkpoints/checkpoint-20")
        sys.exit(75)
    if mode == "out-of-memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "disk-full":
        (output / "checkpoints/checkpoint-20").mkdir()
        (output / "checkpoints/checkpoint-20/model.safetensors").symlink_to("/dev/full")
        (output / "checkpoints/checkpoint-20/model.safetensors").write_bytes(bytes(size))
    if mode == "succeeds":
        folder("artifact")
    sys.exit(1 if mode == "fails" else 0)
"""


@dataclass
class World:
    """One machine. `job`: its real process, by the mode of the stand-in."""

    folder: Path
    moto: str
    endpoint: str = ""
    expires_in: float = HOUR
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.output = self.folder / "output"
        self.output.mkdir()
        self.clock = FakeClock()
        self.metadata, self.machine = FakeMetadata(), FakeMachine(self.clock)
        self.courier = ThreadCourier(self.clock, self.output, self.endpoint or self.moto)
        self.s3 = boto3.client("s3", endpoint_url=self.moto)
        self.state = self.folder / "job.json"
        self.job: Job = SupervisedJob(self.state)
        self.busy: float | None = 90.0
        self.process: subprocess.Popen[bytes] | None = None
        self.expires = START + self.expires_in
        self.dog: Watchdog

    def start(self, mode: str) -> None:
        script = self.folder / "stand_in.py"
        script.write_text(textwrap.dedent(STAND_IN), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "model_runtime.watch.supervise", str(self.state), "--"),
                *(sys.executable, str(script), mode, str(self.output)),
            ],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        _wait(lambda: (self.output / "ready").exists() and self.state.exists())
        ends = mode in ("fails", "succeeds", "out-of-memory", "disk-full")
        if ends:
            _wait(lambda: self.job.state().ended)
        elif mode == "saves":
            self.clock.holds.append(lambda: self._is_asked() and not self.job.state().ended)
        self.clock.holds.append(lambda: self._was_killed() and not SupervisedJob(self.state).state().ended)

    def _is_asked(self) -> bool:
        return self.dog.memory.phase == "stopping"

    def _was_killed(self) -> bool:
        return self.dog.memory.killed is not None and isinstance(self.job, SupervisedJob)

    def watch(self) -> Watchdog:
        """A watchdog, as systemd starts it."""
        ports = Ports(
            clock=self.clock,
            job=self.job,
            busy=lambda: self.busy,
            courier=self.courier,
            machine=self.machine,
            record=Record(self.folder / "run", self.clock, say=lambda _: None),
            metadata=self.metadata,
        )
        self.dog = Watchdog(self.limits, self.expires, ports, {"stack": "training", "instance": "i-1"})
        return self.dog

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until the machine halts, or `until` holds after a tick; never past what the outside allows."""
        if not hasattr(self, "dog"):
            self.watch()
        with contextlib.suppress(Gone):
            while not until():
                assert self.clock.now <= self.expires_in + LATEST, f"alive past its expiry: {self.dog.memory}"
                self.dog.tick()
                self.clock.sleep(self.limits.poll_s)
            return
        self._hold_to_the_truth()

    @property
    def status(self) -> Status | None:
        return read_status(URI, client=self.s3)

    def say(self) -> str:
        status = self.status
        return "" if status is None else "\n".join(describe(status, self.clock.wall()))

    def whole(self) -> set[str]:
        """Places in S3 that are whole, every byte."""
        found = set()
        for place in ("artifact", "checkpoints/checkpoint-10", "checkpoints/checkpoint-20"):
            with contextlib.suppress(ModelError):  # nothing there
                if verify(f"{URI}/{place}", client=self.s3).whole:
                    found.add(place)
        return found

    def _hold_to_the_truth(self) -> None:
        """What holds for every end: in time, and with a status that says what is."""
        assert self.machine.halted_at is not None and self.machine.halted_at <= self.expires_in + LATEST
        memory = self.dog.memory
        assert memory.phase == "ended"
        if memory.halted != "deadline":
            assert memory.delivered is not None
            assert memory.delivered["result"] == ("verified" if memory.halted == "verified" else "nothing")
        status = self.status
        if status is not None:
            whole = {f"{URI}/{place}" for place in self.whole()}
            assert set(status.verified) <= whole, "it says verified what is not"
            if status.phase == "ended":
                assert (status.halted, status.reason) == (memory.halted, memory.reason)

    def close(self) -> None:
        if self.process is not None:
            SupervisedJob(self.state).kill()
            self.process.wait(20)


def _wait(done: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def checkpoint(output: Path, step: int, size: int = 1000) -> Path:
    made = output / "checkpoints" / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(size))
    write_manifest(made)
    return made


class Proxy:
    """Hands connections on to `port` until it is cut; then those that are open break and new ones are refused."""

    def __init__(self, port: int, cut_after: int = 0) -> None:
        self._port, self._cut_after = port, cut_after
        self.passed = 0
        self.cut = False
        self._open: list[socket.socket] = []
        self._listen()

    def _listen(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
                other = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._open += [client, other]
            threading.Thread(target=self._pump, args=(client, other, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(other, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                target.sendall(data)
                if counted:
                    self.passed += len(data)
                    if self._cut_after and self.passed > self._cut_after:
                        self.break_off()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def break_off(self) -> None:
        self.cut = True
        self._cut_after = 0
        self._shut(self._server)
        for end in self._open:
            self._shut(end)

    @staticmethod
    def _shut(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    def mend(self) -> None:
        self.cut = False
        self._listen(self.port)

    def close(self) -> None:
        self.break_off()


@contextlib.contextmanager
def proxy_to(url: str, cut_after: int = 0) -> Iterator[tuple[Proxy, str]]:
    proxy = Proxy(int(url.rsplit(":", 1)[1]), cut_after)
    try:
        yield proxy, f"http://127.0.0.1:{proxy.port}"
    finally:
        proxy.close()
