"""Runs of training for the fault table: a real local AWS, an engine of a few resources, a node that is told what to do.

The engine keeps its state in a file and the AWS is a process of its own, so that a command can be killed with -9 and
another one goes on. Time is a clock that moves when somebody waits; the cloud's schedule is fired by it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra_projects import SHARED, TRAINING, Project

from infra.durations import parse_instant, write_instant
from infra.endings import schedule_at
from infra.lifecycle.engine import Changes, Removal, Resource, ResourceChange, StackBusyError, StackSummary
from infra.lifecycle.train_begin import begin
from infra.lifecycle.train_end import End, attend
from infra.lifecycle.train_prepare import Prepared, prepare
from infra.lifecycle.train_run import Desk, Run
from infra.places import run_prefix
from infra.resource_types import INSTANCE
from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.sandbox.node_schedule import fire_due
from infra.stack_files import read_stack
from infra.steps import Left, Step, silent
from model_runtime.artifacts import upload
from model_runtime.handler.bundle import Bundle
from model_runtime.manifest import NAME, sha256_of, write_manifest
from model_runtime.watch.deliver import report
from model_runtime.watch.limits import Limits
from model_runtime.watch.status import Status

STACK, REGION = "tuning", "us-east-1"
IMAGE = "ami-12c6146b"
"""One that moto has."""
MACHINE = INSTANCE
SCHEDULE = "aws:scheduler/schedule:Schedule"
GONE = timedelta(minutes=10)
FINETUNE: dict[str, Any] = {**TRAINING, "time_to_live": "2h", "zones": ["use1-az1"]}


class LittleEngine:
    """Two resources a stack: a machine, and the schedule that ends it. `at` is told each point that is passed."""

    name = "an engine of a test"

    def __init__(self, world: World, at: Callable[[str], None] = lambda _: None) -> None:
        self.aws, self.project, self.bucket, self.at = world.aws, world.project.root, world.bucket, at
        self._file = world.folder / "engine.json"
        self.refuse: set[str] = set()

    def explain(self) -> str:
        return ""

    def _state(self) -> dict[str, Any]:
        return dict(json.loads(self._file.read_text())) if self._file.is_file() else {}

    def _keep(self, stack: str, entry: Mapping[str, Any] | None) -> None:
        state = self._state()
        state.pop(stack, None)
        if entry is not None:
            state[stack] = entry
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(state))
        draft.replace(self._file)

    @contextlib.contextmanager
    def _locked(self, stack: str) -> Iterator[None]:
        import fcntl

        with self._file.with_suffix(".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StackBusyError(stack, "somebody else") from None
            yield

    def preview(self, stack: str) -> Changes:
        standing = [ResourceChange("same", r.type, r.name, id=r.id) for r in self.resources(stack)]
        return Changes(stack, tuple(standing or [ResourceChange("create", INSTANCE, "node")]))

    def up(self, stack: str, tell: Callable[[Step], None] = silent) -> Mapping[str, Any]:  # noqa: ARG002
        if stack == "shared":
            self.aws.client("s3").create_bucket(Bucket=self.bucket)
            self._keep(stack, {"outputs": {"artifacts_bucket": self.bucket}, "resources": []})
            return self.outputs(stack)
        with self._locked(stack):
            return self._up(stack)

    def _up(self, stack: str) -> Mapping[str, Any]:
        settings: Any = read_stack(stack, self.project).settings
        expires = parse_instant(settings.expires_at)
        ec2 = self.aws.client("ec2")
        tags = [{"Key": "world", "Value": self.bucket}, {"Key": "expiry", "Value": write_instant(expires)}]
        made = ec2.run_instances(
            ImageId=IMAGE, InstanceType="t3.micro", MinCount=1, MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )  # fmt: skip
        node = str(made["Instances"][0]["InstanceId"])
        resources = [{"type": INSTANCE, "name": "node", "id": node}]
        self._keep(stack, {"outputs": {}, "resources": resources})
        self.at("instance made")
        self.aws.client("scheduler").create_schedule(
            Name=f"{self.bucket}-expiry",
            ScheduleExpression=f"at({schedule_at(settings, expires):%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={
                "Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances",
                "RoleArn": "arn:aws:iam::123456789012:role/expiry",
                "Input": json.dumps({"InstanceIds": [node]}),
            },
        )
        resources.append({"type": SCHEDULE, "name": "expiry", "id": f"{self.bucket}-expiry"})
        self._keep(stack, {"outputs": {}, "resources": resources})
        self.at("schedule made")
        outputs = {
            "instances": [node],
            "artifacts": f"s3://{self.bucket}/{run_prefix(settings, stack)}",
            "expires_at": write_instant(expires),
        }
        self._keep(stack, {"outputs": outputs, "resources": resources})
        return outputs

    def destroy(self, stack: str, tell: Callable[[Step], None] = silent) -> Removal:  # noqa: ARG002
        with self._locked(stack):
            self.at("destroy")
            removed, left = [], []
            for resource in reversed(self.resources(stack)):
                if resource.type in self.refuse:
                    left.append(Left(resource.type, resource.name, resource.id, "DependencyViolation"))
                    continue
                if resource.type == INSTANCE:
                    self.aws.client("ec2").terminate_instances(InstanceIds=[resource.id])
                else:
                    scheduler = self.aws.client("scheduler")
                    with contextlib.suppress(scheduler.exceptions.ResourceNotFoundException):
                        scheduler.delete_schedule(Name=resource.id)
                removed.append(resource)
                kept = [r.to_json() for r in self.resources(stack) if r.id != resource.id]
                self._keep(stack, {"outputs": self.outputs(stack) if kept else {}, "resources": kept})
                self.at(f"{resource.name} removed")
            if not left:
                self._keep(stack, None)
            return Removal(tuple(removed), tuple(left))

    def outputs(self, stack: str) -> Mapping[str, Any]:
        return dict(self._state().get(stack, {}).get("outputs", {}))

    def resources(self, stack: str) -> tuple[Resource, ...]:
        return tuple(Resource(**r) for r in self._state().get(stack, {}).get("resources", []))

    def stacks(self) -> tuple[StackSummary, ...]:
        return tuple(StackSummary(name, REGION, resources=len(self.resources(name))) for name in self._state())


@dataclass
class Node:
    """A training node as AWS sees it, and as its watchdog speaks of it. `tick` is called as time passes.

    `does` is what happens on it: called with the node and the moment while the machine is there. A `watchdog` that is
    alive ends the machine by itself 5 minutes after its expiry.
    """

    world: World
    does: Callable[[Node, datetime], None] = lambda _node, _moment: None
    watchdog: bool = True
    instance: str = ""
    uri: str = ""
    expires: datetime | None = None
    since: datetime | None = None

    def switch_on(self, outputs: Mapping[str, Any]) -> None:
        if not self.instance:
            self._become(str(outputs["instances"][0]), str(outputs["artifacts"]), str(outputs["expires_at"]))

    def _become(self, instance: str, uri: str, expires: str) -> None:
        self.instance, self.uri, self.expires = instance, uri, parse_instant(expires)
        self.since = self.world.clock.moment

    def find(self) -> None:
        """The machine boots, whether or not the command that made it lives."""
        if not self.instance and (machines := self.world.alive()):
            settings: Any = read_stack(STACK, self.world.project.root).settings
            uri = f"s3://{self.world.bucket}/{run_prefix(settings, STACK)}"
            self._become(machines[0], uri, settings.expires_at)

    def tick(self, moment: datetime) -> None:
        self.find()
        if not self.instance or self.instance not in self.world.alive():
            return
        self.does(self, moment)
        if self.watchdog and self.expires and moment >= self.expires + timedelta(seconds=Limits().margin_s):
            self.halt()

    def minutes(self, moment: datetime) -> float:
        return 0.0 if self.since is None else (moment - self.since).total_seconds() / 60

    def bring(self, place: str, *, size: int = 2000) -> str:
        """Put a folder with its manifest under the run's prefix; its location."""
        folder = self.world.folder / "node" / self.instance / place
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(os.urandom(size))
            (folder / "trainer_state.json").write_text("{}")
            write_manifest(folder)
        upload(folder, f"{self.uri}/{place}", client=self.world.aws.client("s3"))
        return f"{self.uri}/{place}"

    def say(
        self, phase: Any, moment: datetime, *, reason: str = "", halted: str = "", brought: str = "", **job: Any
    ) -> None:
        """The watchdog's word. `brought`: the place that it says it has verified."""
        items = []
        if brought:
            manifest = self.world.folder / "node" / self.instance / brought / NAME
            items.append(
                {
                    "what": brought,
                    "location": f"{self.uri}/{brought}",
                    "manifest_sha256": sha256_of(manifest),
                    "bytes": 2000,
                    "checked": "every byte",
                }
            )
        delivered = {"result": "verified" if items else "nothing", "items": items, "problems": []}
        status = Status(
            phase, write_instant(moment), write_instant(self.since or moment), write_instant(self.expires or moment),
            {"stack": STACK, "instance": self.instance}, {"state": "running", **job}, reason, "", "",
            delivered if phase == "ended" else None, halted,
        )  # fmt: skip
        report(self.uri, {"status": status.to_json(), "events": []}, client=self.world.aws.client("s3"))

    def halt(self) -> None:
        self.world.aws.client("ec2").terminate_instances(InstanceIds=[self.instance])


@dataclass
class Clock:
    """`wait` moves it by `stride` seconds at least."""

    moment: datetime
    stride: float = 60.0
    passed: list[Callable[[datetime], Any]] = field(default_factory=list)

    def __call__(self) -> datetime:
        return self.moment

    def wait(self, seconds: float) -> None:
        self.moment += timedelta(seconds=max(seconds, self.stride))
        for tell in self.passed:
            tell(self.moment)


class World:
    """One project with a training stack on a local AWS, on which the machines and the bucket are this world's own."""

    def __init__(self, aws: Aws, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self.bucket = f"artifacts-{secrets.token_hex(6)}"
        self.project = Project(folder)
        self.project.write("shared", SHARED)
        self.project.write(STACK, FINETUNE)
        self.clock = Clock(datetime.now(tz=parse_instant("2026-01-01T00:00:00Z").tzinfo).replace(microsecond=0))
        self.said: list[str] = []
        self.node = Node(self)
        self.clock.passed += [self.node.tick, lambda moment: fire_due(self.aws, moment)]

    def desk(self, at: Callable[[str], None] = lambda _: None, **given: Any) -> Desk:
        engine: Any = LittleEngine(self, at)  # it does what a run asks of an engine
        made = Desk(engine, self.aws, self.project.root, self.clock, self.clock.wait, self.said.append, self.node)
        return replace(made, **given)

    def alive(self) -> list[str]:
        found = self.aws.client("ec2").describe_instances(
            Filters=[
                {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
                {"Name": "tag:world", "Values": [self.bucket]},
            ]
        )
        return [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]]

    def data(self, rows: int = 40) -> Path:
        path = self.folder / "pairs.jsonl"
        lines = [json.dumps({"input": f"word {i}", "target": f"ordway {i}"}) for i in range(rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def begin(self, prepared: Prepared, **given: Any) -> Run:
        return begin(self.fresh(prepared), self.desk(**given))

    def fresh(self, prepared: Prepared) -> Prepared:
        """The run as it is prepared at this world's moment."""
        expires = write_instant(self.clock.moment + timedelta(hours=2))
        values = {**prepared.values, "expires_at": expires}
        return replace(prepared, values=values)

    def until_gone(self, limit: datetime) -> None:
        """Time passes and nobody does anything."""
        while self.alive() and self.clock.moment < limit:
            self.clock.wait(0)

    def killed_at(self, point: str, do: Callable[[Callable[[str], None]], Any]) -> None:
        """`do` in a process of its own that is killed with -9 when it tells `point`."""

        def at(passed: str) -> None:
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)

        def child() -> None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            do(at)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"it passed {point} or broke: {process.exitcode}"


def succeeds(after: float = 1.0) -> Callable[[Node, datetime], None]:
    """A job that is done after some minutes: artifact, last word, halt."""

    def does(node: Node, moment: datetime) -> None:
        if node.minutes(moment) >= after:
            node.bring("checkpoints/checkpoint-10")
            node.bring("artifact")
            node.say("ended", moment, reason="job-succeeded", halted="verified", brought="artifact", state="succeeded")
            node.halt()
        else:
            node.say("watching", moment)

    return does


def a_run(folder: Path, world: World) -> Prepared:
    """A run as `prepare` makes it, with a bundle of one file: the real one is a few hundred, all alike here."""
    made = prepare(STACK, str(world.data()), folder, world.desk())
    small = folder / "small"
    small.mkdir()
    (small / "finetune.json").write_text("{}")
    files = write_manifest(small)
    return replace(made, bundle=Bundle(small, files, sha256_of(small / NAME)))


def ended(world: World, **given: Any) -> End:
    return attend(STACK, world.desk(**given))


def begun(world: World, prepared: Prepared) -> Run:
    """A run with its machine."""
    run = world.begin(prepared)
    assert world.alive() == list(run.instances)
    return run


@contextlib.contextmanager
def an_aws(folder: Path) -> Iterator[Aws]:
    """A local AWS in a process of its own: it outlives commands that are killed."""
    with server.locked(folder):
        found = server.start(folder)
    try:
        yield Aws(found.endpoint, REGION)
    finally:
        server.stop(folder)
