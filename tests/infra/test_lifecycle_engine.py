"""The four commands over Pulumi's own engine, on the sandbox: the same words, a real state, locks that are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from engine_cli import needs_cli
from lifecycle_sandbox import Run, World, document

from infra.durations import parse_instant
from infra.inventory import standing
from infra.lifecycle.pulumi_engine import PulumiEngine

CLI = shutil.which("pulumi")
pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_cli]


@pytest.fixture
def with_cli(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world of the other tests, in which there is a CLI after all."""
    monkeypatch.setenv("PATH", f"{Path(str(CLI)).parent}{os.pathsep}{os.environ['PATH']}")
    world.trial()
    return world


def locks(world: World) -> list[Path]:
    return list((world.place.state / "state" / ".pulumi" / "locks").rglob("*.json"))


def test_up_status_extend_and_down_through_the_engine(run_berth: Run, with_cli: World) -> None:
    world = with_cli
    made = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert made["engine"].startswith("pulumi")
    assert {c["operation"] for c in made["changes"]} == {"create"}
    again = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert (again["changes"], again["outputs"]) == ([], made["outputs"])

    machine = next(o for o in made["outputs"].values() if str(o).startswith("http"))
    assert machine == "http://trial.berth.internal:8080"
    world.aws.client("cloudwatch").delete_dashboards(DashboardNames=["berth-trial"])
    found = document("status", run_berth("status", "trial", "--sandbox", "--drift", "--json"))
    stack = found["stacks"][0]
    assert (stack["complete"], found["orphans"]) == (True, [])
    assert [(d["kind"], d["name"]) for d in stack["drift"]] == [("gone", "trial-watch-dashboard")]
    assert stack["spent"]["since"] is not None

    longer = document("extend", run_berth("extend", "trial", "--by", "3h", "--sandbox", "--yes", "--json"))
    assert longer["complete"] is True
    assert parse_instant(longer["until"]) - parse_instant(longer["from"]) == timedelta(hours=3)
    after = document("up", run_berth("up", "trial", "--sandbox", "--yes", "--json"))
    assert [c["name"] for c in after["changes"] if c["operation"] != "create"] == []

    down = document("down", run_berth("down", "trial", "--sandbox", "--yes", "--json"))
    assert (down["nothing_left"], standing(world.aws, "trial")) == (True, [])
    down = document("down", run_berth("down", "shared", "--sandbox", "--yes", "--json"))
    assert (down["nothing_left"], down["kept"], standing(world.aws)) == (True, [], [])
    assert document("status", run_berth("status", "--sandbox", "--json"))["stacks"] == []


def test_an_up_that_is_killed_is_seen_goes_on_and_its_lock_is_lifted(run_berth: Run, with_cli: World) -> None:
    world = with_cli
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", "up", "shared", "--sandbox", "--yes"],
        cwd=world.project.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip().startswith("5/"):
            break
    os.killpg(process.pid, signal.SIGKILL)  # the command, its CLI and its program: a laptop that is lost
    process.communicate()
    assert len(locks(world)) == 1
    stack = document("status", run_berth("status", "shared", "--sandbox", "--json"))["stacks"][0]
    assert (stack["complete"], stack["busy"]) == (False, None)
    document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    assert locks(world) == []
    stack = document("status", run_berth("status", "shared", "--sandbox", "--json"))["stacks"][0]
    assert (stack["complete"], stack["resources"]) == (True, 22)


def test_attributes_that_a_killed_command_left_half_written_do_not_hide_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a person's own backend of files, of which the CLI says EOF then and no more."""
    (tmp_path / "Pulumi.yaml").write_text("name: berth\nruntime: python\n", encoding="utf-8")
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PATH", f"{Path(str(CLI)).parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in (("HOME", "home"), ("BACKEND_URL", (tmp_path / "state").as_uri()), ("CONFIG_PASSPHRASE", "")):
        monkeypatch.setenv(f"PULUMI_{name}", str(tmp_path / value) if name == "HOME" else value)
    asked = {"cwd": tmp_path, "capture_output": True, "text": True}
    subprocess.run(["pulumi", "stack", "init", "trial", "--non-interactive"], check=True, **asked)
    (left,) = (tmp_path / "state" / ".pulumi" / "stacks").rglob("trial.json.attrs")
    left.write_bytes(b"")
    broken = subprocess.run(
        ["pulumi", "stack", "export", "--stack", "trial", "--non-interactive"], check=False, **asked
    )
    assert broken.returncode != 0 and "EOF" in broken.stderr
    engine = PulumiEngine(tmp_path)
    assert (engine.resources("trial"), [s.name for s in engine.stacks()]) == ((), ["trial"])
    assert not left.exists()


def test_a_lock_of_a_living_process_is_another_persons(run_berth: Run, with_cli: World) -> None:
    world = with_cli
    document("up", run_berth("up", "shared", "--sandbox", "--yes", "--json"))
    folder = world.place.state / "state" / ".pulumi" / "locks" / "organization" / "berth" / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "pid": os.getpid(),
        "username": "ada",
        "hostname": socket.gethostname(),
        "timestamp": "2026-11-24T08:00:00Z",
    }
    (folder / "0a1b2c3d-0000-0000-0000-000000000000.json").write_text(json.dumps(told), encoding="utf-8")
    ran = run_berth("down", "shared", "--sandbox", "--yes")
    assert ran.code == 2
    assert f"stack shared is being changed by ada on {socket.gethostname()} (process {os.getpid()})" in ran.err
    stack = document("status", run_berth("status", "shared", "--sandbox", "--json"))["stacks"][0]
    assert stack["busy"].startswith(f"ada on {socket.gethostname()}")
