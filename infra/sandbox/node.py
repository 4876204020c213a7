"""The sandbox's stand-in for a training node: the bundle's own job under the real watchdog, as local processes.

`python -m infra.sandbox.node FOLDER` is what EC2 and systemd are on a real node: it boots, keeps the watchdog alive,
sets the dead man's switch, and everything on it ends when its instance is terminated, whoever did that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.durations import parse_instant
from infra.endings import DEAD_MAN_AFTER_EXPIRY
from infra.instances import by_id, state_of
from infra.resolve import now
from infra.sandbox.aws import Aws
from infra.sandbox.node_boot import Booted, SetUpError, boot, environment_of, script_of
from infra.sandbox.node_logs import Shipper
from infra.sandbox.node_metadata import serve
from infra.sandbox.node_process import alone, kill_marked, spawn
from infra.stack_files import write_text
from model_runtime.fetch import split_s3
from model_runtime.watch.job import SupervisedJob, alive, started
from model_runtime.watchdog import place
from sizing.errors import UserError

CONFIG, STATE, JOB = "node.json", "machine.json", "job.json"
MARK = "BERTH_STAND_IN"
"""Environment variable of everything that runs on a stand-in: its folder."""
POLL_S = 0.5
_SILENCE_S = 20.0
_RESTART_S = 1.0
LIMITS = {"poll_s": 0.5, "heartbeat_s": 5.0, "retry_s": 1.0, "halt_s": 20.0}
"""The watchdog's, where a trial need not wait as long as a real node; the rest is as on a node."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`limits`: of the watchdog (`model_runtime.watch.limits`), by name."""

    endpoint: str
    region: str
    instance: str
    limits: dict[str, float] = field(default_factory=lambda: dict(LIMITS))


def start_node(aws: Aws, instance: str, folder: Path, limits: Mapping[str, float] = LIMITS) -> bool:
    """Switch the stand-in of an instance on, in a process that outlives this one; False where it ran before.

    A node boots once: one that has ended is not switched on again. Raises `UserError` where `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).is_file():
            return False
        config = NodeConfig(aws.endpoint, aws.region, instance, dict(limits))
        write_text(folder / CONFIG, json.dumps(asdict(config)) + "\n")
        pid = spawn(["infra.sandbox.node", str(folder)], folder / "berth.log")
        write_text(folder / STATE, json.dumps({"pid": pid, "started": started(pid)}) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; the stand-in for {instance} cannot be started") from None
    return True


class Machine:
    """One stand-in. `tick` looks at everything once; False: it is off."""

    def __init__(
        self, folder: Path, config: NodeConfig, *, aws: Aws | None = None, clock: Callable[[], datetime] = now
    ) -> None:
        self.folder, self.config, self._clock = folder, config, clock
        self.aws = aws or Aws(config.endpoint, config.region)
        self.job = SupervisedJob(folder / JOB)
        self.booted: Booted | None = None
        self._metadata: Any = None
        self._watchdog: tuple[int, int] = (0, 0)
        self._watchdog_since = 0.0
        self._expires: datetime | None = None
        self._heard = time.monotonic()
        self._shippers: list[Shipper] = []

    def boot(self) -> bool:
        """Fetch what the node needs and start the job and its watchdog. False: the set-up failed, and it is off."""
        ec2, s3, instance = self.aws.client("ec2"), self.aws.client("s3"), self.config.instance
        environment: dict[str, str] = {}
        try:
            environment, group = environment_of(script_of(ec2, instance))
            if environment.get("BERTH_EXPIRES_AT"):
                self._expires = parse_instant(environment["BERTH_EXPIRES_AT"])
            if group:
                stream = f"{environment.get('BERTH_STACK', '')}/{instance}"
                logs = self.aws.client("logs")
                self._shippers = [
                    Shipper(logs, group, f"{stream}/host", self.folder / "berth.log"),
                    Shipper(logs, group, f"{stream}/service", self.folder / "train.log"),
                ]
            self.booted = boot(self.folder, environment, group, s3, _say)
        except SetUpError as error:
            _say(f"the set-up failed: {error}")
            self._leave_log(environment)
            self.power_off()
            return False
        self._metadata, self._imds = serve(ec2, instance, self.folder)
        command = ["model_runtime.watch.supervise", str(self.folder / JOB), "--", sys.executable, "-m"]
        job = [*command, "model_runtime.finetune", str(self.booted.settings)]
        spawn(job, self.folder / "train.log", self._environment())
        self._start_watchdog()
        return True

    def tick(self) -> bool:
        state = self._instance_state()
        if state in ("terminated", "shutting-down", "absent"):
            self.off()
            return False
        for shipper in self._shippers:
            shipper.ship()
        if self._expires is not None and self._clock() >= self._expiry() + DEAD_MAN_AFTER_EXPIRY:
            _say("the dead man's switch")
            self.power_off()
        elif not alive(*self._watchdog) and time.monotonic() - self._watchdog_since > _RESTART_S:
            _say("the watchdog is gone; it is started again")
            self._start_watchdog()
        return True

    def power_off(self) -> None:
        """A node's shutdown is its termination."""
        try:
            self.aws.client("ec2").terminate_instances(InstanceIds=[self.config.instance])
        except (ClientError, BotoCoreError) as error:
            _say(f"power off: {error}")

    def off(self) -> None:
        """Nothing of the machine runs any more."""
        for shipper in self._shippers:
            shipper.ship()
        self.job.kill()
        kill_marked(MARK, str(self.folder))
        if self._metadata is not None:
            self._metadata.shutdown()
            self._metadata.server_close()

    def _start_watchdog(self) -> None:
        if self.booted is None:
            raise RuntimeError("a node boots before it is watched")
        given = self.booted.environment
        halt = f"{sys.executable} -m infra.sandbox.node halt {self.folder}"
        options = ["--job", str(self.folder / JOB), "--output", str(self.booted.output), "--uri", place(given)]
        options += ["--expires-at", given["BERTH_EXPIRES_AT"], "--state", str(self.folder / "watchdog")]
        options += ["--log", str(self.folder / "train.log"), "--gpus", "off", "--metadata", self._imds]
        options += ["--halt-command", halt]
        for name, value in self.config.limits.items():
            options += ["--set", f"{name}={value:g}"]
        environment = {**self._environment(), "BERTH_INSTANCE": self.config.instance}
        pid = spawn(["model_runtime.watchdog", *options], self.folder / "watchdog.log", environment)
        self._watchdog, self._watchdog_since = (pid, started(pid)), time.monotonic()
        write_text(self.folder / "watchdog.pid", f"{pid}\n")

    def _environment(self) -> dict[str, str]:
        """The node's own, in which the code of its bundle comes before this installation's."""
        booted = self.booted
        if booted is None:
            raise RuntimeError("a node boots before it runs anything")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "BERTH_", "PYTHONPATH"))}
        return {
            **kept,
            **booted.environment,
            MARK: str(self.folder),
            "PYTHONPATH": str(booted.bundle),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_ENDPOINT_URL": self.config.endpoint,
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "HF_HUB_OFFLINE": "1",
        }

    def _instance_state(self) -> str:
        """What EC2 says of the instance; an AWS that has ended has ended it as well."""
        try:
            found = by_id(self.aws.client("ec2"), [self.config.instance])
        except (ClientError, BotoCoreError) as error:
            if time.monotonic() - self._heard < _SILENCE_S:
                return "unknown"
            _say(f"the local AWS has ended: {error}")
            return "absent"
        self._heard = time.monotonic()
        return state_of(found[0]) if found else "absent"

    def _expiry(self) -> datetime:
        """As the watchdog knows it, which moves the dead man's switch with the instance's tag."""
        if self._expires is None:
            raise RuntimeError("a node has an expiry")
        try:
            at = json.loads((self.folder / "watchdog" / "state.json").read_text(encoding="utf-8"))["expiry_at"]
            return datetime.fromtimestamp(float(at), tz=self._expires.tzinfo)
        except (OSError, ValueError, KeyError, TypeError):
            return self._expires

    def _leave_log(self, environment: Mapping[str, str]) -> None:
        uri = place(environment)
        if not uri:
            return
        bucket, prefix = split_s3(uri)
        key = f"{prefix}logs/{self.config.instance}/berth.log"
        try:
            self.aws.client("s3").put_object(Bucket=bucket, Key=key, Body=(self.folder / "berth.log").read_bytes())
        except (ClientError, BotoCoreError, OSError) as error:
            _say(f"its log did not reach S3: {error}")


def read_config(folder: Path) -> NodeConfig:
    return NodeConfig(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))


def _say(line: str) -> None:
    sys.stderr.write(f"{now().isoformat()} {line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """`FOLDER`: be that node until it is off. `halt FOLDER`: switch it off."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[0] == "halt":
        config = read_config(Path(given[1]))
        Aws(config.endpoint, config.region).client("ec2").terminate_instances(InstanceIds=[config.instance])
        return 0
    alone()
    folder = Path(given[0])
    machine = Machine(folder, read_config(folder))
    signal.signal(signal.SIGTERM, lambda *_: machine.power_off())
    if machine.boot():
        while machine.tick():
            time.sleep(POLL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
