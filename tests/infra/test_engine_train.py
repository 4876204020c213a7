"""`berth train` over Pulumi's own engine: a stand-in node trains, the command is lost or not, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_cli import needs_cli
from infra_projects import TRAINING, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra.cloud import sandbox_aws
from infra.durations import write_instant
from infra.instances import state_of
from infra.inventory import standing
from infra.resolve import now
from infra.sandbox import server
from infra.stack_files import ROOT
from model_runtime.artifacts import verify

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_cli]
REGION, STACK = "us-east-1", "tuning"
MOST_S = 400
SMALL = {
    "model": "google/flan-t5-small", "instance_type": "g4dn.xlarge", "dtype": "fp32", "method": "full",
    "zones": ["use1-az1"], "dataset": "datasets/pairs", "time_to_live": "2h", "epochs": 3,
}  # fmt: skip


class Trial:
    """A project with a training stack, and the sandbox that `berth` starts for it in a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder / "project", folder / "cache"
        self.folder.mkdir()
        project = Project(self.folder)
        project.write(STACK, {**TRAINING, **SMALL})
        self.environ = {
            **os.environ, "BERTH_CACHE_DIR": str(self.cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    @property
    def local(self) -> server.Server:
        found = server.find(self.cache / "sandbox")
        assert found is not None
        return found

    @property
    def aws(self) -> Any:
        return sandbox_aws(self.local.endpoint, REGION)

    @property
    def stacks(self) -> set[str]:
        """Those that the engine has a state of, by its own files."""
        place = self.cache / "sandbox" / "runs" / self.local.run / "engine" / "state" / ".pulumi" / "stacks" / "berth"
        return {path.stem for path in place.glob("*.json")}

    def data(self, rows: int) -> str:
        path = self.folder / f"pairs-{rows}.jsonl"
        words = ("ship", "tide", "dawn", "berth")
        lines = [json.dumps({"input": f"say {words[i % 4]} {i}", "target": words[i % 4][::-1]}) for i in range(rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path.name

    def start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        """`berth ARGUMENTS` in a session of its own, and the file to which it speaks."""
        path = self.folder / f"{time.monotonic_ns()}.log"
        with path.open("wb") as log:
            began = subprocess.Popen(
                [sys.executable, "-m", "berth", *arguments],
                cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return began, path

    def told(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The document of `berth ARGUMENTS --json`, held against its schema."""
        ran = subprocess.run(
            [sys.executable, "-m", "berth", *arguments, "--json"],
            cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=MOST_S, check=False,
        )  # fmt: skip
        assert ran.returncode == code, ran.stdout + ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        Draft202012Validator(load(arguments[0])).validate(found)
        return found

    def instances(self) -> dict[str, str]:
        """The state of every machine that has been, by its id."""
        found = self.aws.client("ec2").describe_instances()["Reservations"]
        return {i["InstanceId"]: state_of(i) for r in found for i in r["Instances"]}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    made = Trial(tmp_path_factory.mktemp("train"))
    yield made
    with server.locked(made.cache / "sandbox"):
        server.stop(made.cache / "sandbox")


def wait(done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    until = time.monotonic() + MOST_S
    while not done():
        assert process is None or process.poll() is None, log.read_text() if log else ""
        assert time.monotonic() < until, log.read_text() if log else "not in time"
        time.sleep(0.2)


def lost(process: subprocess.Popen[bytes]) -> None:
    """The command, its CLI, its program and its provider die at once, as with the laptop that they run on."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def test_a_run_from_its_data_to_nothing_left(trial: Trial) -> None:
    end = trial.told("train", STACK, "--data", trial.data(48), "--sandbox", "--yes")
    assert (end["succeeded"], end["left"], end["destroyed_by"]) == (True, [], None)
    assert end["saved"]["what"] == "artifact" and end["bill"]["usd"] > 0 and end["bill"]["until_is_known"]
    assert verify(end["saved"]["location"], client=trial.aws.client("s3")).total_bytes == end["saved"]["bytes"]
    # By the engine, not by the walk: the shared stack is in its state, and the walk has no journal.
    assert trial.stacks == {"shared"}
    assert not (trial.cache / "sandbox" / "journal.json").exists()
    assert (set(trial.instances().values()), standing(trial.aws, STACK)) == ({"terminated"}, [])
    again = trial.told("train", STACK, "--attach", "--sandbox")
    assert again["succeeded"] and "is over; its node was destroyed by" in " ".join(again["sentences"])


def test_the_command_is_lost_and_the_watchdog_ends_the_machine_at_its_expiry(trial: Trial) -> None:
    before = set(trial.instances()) if (trial.cache / "sandbox").is_dir() else set()
    first, log = trial.start("train", STACK, "--data", trial.data(8000), "--sandbox", "--yes")
    wait(lambda: "checkpoint-" in log.read_text() or " step " in log.read_text(), first, log)
    lost(first)
    (node,) = set(trial.instances()) - before
    assert trial.instances()[node] == "running"
    # Nobody waits for two hours: the tag that the watchdog obeys says that the expiry is near.
    soon = write_instant(now() + timedelta(minutes=9))
    trial.aws.client("ec2").create_tags(Resources=[node], Tags=[{"Key": "expiry", "Value": soon}])
    wait(lambda: trial.instances()[node] == "terminated")
    shown = trial.told("status", STACK, "--sandbox")["stacks"][0]
    assert [m["state"] for m in shown["machines"]] == ["terminated"]
    assert shown["usd_per_hour"] > 0  # what stands beside the machine, until somebody comes
    end = trial.told("train", STACK, "--attach", "--sandbox", code=3)
    assert (end["verdict"], end["succeeded"], end["left"]) == ("gone", False, [])
    assert end["saved"]["what"] == "checkpoint"
    verify(end["saved"]["location"], client=trial.aws.client("s3"))
    assert "its expiry came" in " ".join(end["sentences"])
    assert (trial.stacks, standing(trial.aws, STACK)) == ({"shared"}, [])


def test_lost_while_the_engine_makes_the_stack_its_machine_is_found_and_followed(trial: Trial) -> None:
    before = set(trial.instances()) if (trial.cache / "sandbox").is_dir() else set()
    first, log = trial.start("train", STACK, "--data", trial.data(40), "--sandbox", "--yes")
    wait(lambda: "made ec2.Instance" in log.read_text(), first, log)
    lost(first)
    (node,) = set(trial.instances()) - before
    shown = trial.told("status", STACK, "--sandbox")["stacks"][0]
    assert (shown["complete"], shown["busy"], [m["id"] for m in shown["machines"]]) == (False, None, [node])
    refused = subprocess.run(
        [sys.executable, "-m", "berth", "down", STACK, "--sandbox", "--yes"],
        cwd=trial.folder, env=trial.environ, capture_output=True, text=True, timeout=MOST_S, check=False,
    )  # fmt: skip
    assert "holds work that is not safe" in refused.stderr and trial.instances()[node] == "running"
    end = trial.told("train", STACK, "--attach", "--sandbox")
    assert end["succeeded"] and end["left"] == []
    assert (trial.stacks, standing(trial.aws, STACK)) == ({"shared"}, [])
    assert trial.instances()[node] == "terminated"
