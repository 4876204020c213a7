"""The watchdog's parts against real ones: metadata service, nvidia-smi, systemctl, processes, and its own command."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_runtime.artifacts import verify
from model_runtime.errors import ModelError
from model_runtime.watch import command
from model_runtime.watch.clock import instant, parse_instant
from model_runtime.watch.courier import ProcessCourier
from model_runtime.watch.gpu import nvidia_smi, parse
from model_runtime.watch.job import JobState, SupervisedJob, UnitJob
from model_runtime.watch.machine import SystemdMachine
from model_runtime.watch.metadata import Imds, MetadataError
from model_runtime.watch.status import parse_status, read_status
from model_runtime.watchdog import beat, main, place
from tests.model_runtime.watchdog_tools import checkpoint
from tests.moto_server import moto_server

ROOT = Path(__file__).parents[2]
FAILED = "ActiveState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStartTimestamp=Tue"


class Service(http.server.BaseHTTPRequestHandler):
    """An instance metadata service that answers only to those who bring a token."""

    said: dict[str, str]

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, "a-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "a-token":
            self._answer(401, "")
        else:
            text = self.said.get(self.path.removeprefix("/latest/meta-data/"))
            self._answer(404 if text is None else 200, text or "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def imds() -> Iterator[tuple[dict[str, str], str]]:
    said: dict[str, str] = {}
    handler = type("Handler", (Service,), {"said": said})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield said, f"http://127.0.0.1:{server.server_port}/latest"
        server.shutdown()


def test_the_metadata_service_is_asked_with_a_token(imds: tuple[dict[str, str], str]) -> None:
    said, base = imds
    asked = Imds(base)
    assert (asked.spot_notice(), asked.rebalance(), asked.expiry()) == ("", "", "")
    said["spot/instance-action"] = '{"action": "terminate", "time": "2026-11-24T08:22:00Z"}'
    said["events/recommendations/rebalance"] = '{"noticeTime": "2026-11-24T08:20:00Z"}'
    said["tags/instance/expiry"] = "2026-11-24T10:00:00Z\n"
    assert asked.spot_notice() == "2026-11-24T08:22:00Z"
    assert asked.rebalance() == "2026-11-24T08:20:00Z"
    assert asked.expiry() == "2026-11-24T10:00:00Z"
    said["spot/instance-action"] = "<html>"
    with pytest.raises(MetadataError, match="html"):
        asked.spot_notice()


def test_a_metadata_service_that_is_not_there_is_said() -> None:
    with pytest.raises(MetadataError, match="api/token"):
        Imds("http://127.0.0.1:9/latest", 0.5).spot_notice()


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_gpus_are_as_busy_as_the_busiest(tmp_path: Path) -> None:
    assert parse("3\n97\n0\n") == 97
    assert parse("[N/A]\n") is None and parse("") is None
    assert nvidia_smi([program(tmp_path, "smi", "echo 12; echo 40")])() == 40
    assert nvidia_smi([program(tmp_path, "lost", "echo 'Unable to determine the device handle'; exit 15")])() is None
    assert nvidia_smi([str(tmp_path / "none")])() is None


def test_a_command_that_hangs_is_given_up(tmp_path: Path) -> None:
    ran = command.run([program(tmp_path, "hangs", "exec sleep 600")], timeout_s=0.2)
    assert ran.code is None and "did not answer within 0.2 s" in ran.problem


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("ActiveState=active\nNRestarts=0", "running", None),
        ("ActiveState=activating\nSubState=auto-restart\nNRestarts=2", "running", None),
        ("ActiveState=activating\nSubState=auto-restart\nNRestarts=4", "failed", None),
        ("ActiveState=inactive\nResult=success\nExecMainStatus=0\nExecMainStartTimestamp=", "waiting", None),
        ("ActiveState=inactive\nResult=success\nExecMainStatus=0\nExecMainStartTimestamp=Tue", "succeeded", 0),
        (f"{FAILED}\nExecMainStatus=2", "failed", 2),
        (f"{FAILED}\nExecMainStatus=137", "failed", 137),
    ],
)  # fmt: skip
def test_a_unit_s_state_is_what_systemd_says(tmp_path: Path, said: str, kind: str, code: int | None) -> None:
    shown = program(tmp_path, "systemctl", f"cat <<'E'\n{said}\nE")
    job = UnitJob("berth-train", "berth", command=lambda words, *_: command.run([shown, *words[1:]]))
    state = job.state()
    assert (state.kind, state.exit_code) == (kind, code)
    assert ("out of memory" in state.detail) == (code == 137)


def test_a_systemd_that_does_not_answer_says_nothing_of_the_job() -> None:
    job = UnitJob("berth-train", command=lambda *_: command.Ran(None, problem="systemctl did not answer within 5 s"))
    assert job.state() == JobState("unknown", detail="systemctl did not answer within 5 s")
    assert job.kill() == "systemctl did not answer within 5 s"


def test_the_dead_man_s_switch_stands_before_the_one_before_goes() -> None:
    asked: list[list[str]] = []

    def answer(words: Any, *_: float) -> command.Ran:
        asked.append(list(words))
        listed = "berth-deadman.timer loaded active waiting x\n" if "list-units" in words else ""
        return command.Ran(0, listed)

    machine = SystemdMachine(answer)
    assert machine.arm(5400.7) == ""
    assert asked[1:] == [
        [
            *("systemd-run", "--unit=berth-deadman-1", "--on-active=5400", "--timer-property=AccuracySec=1s"),
            *("systemctl", "poweroff"),
        ],
        ["systemctl", "stop", "berth-deadman.timer"],
    ]  # fmt: skip
    asked.clear()
    for attempt in range(4):
        machine.halt(attempt)
    assert [" ".join(words[1:]) for words in asked] == [
        "poweroff",
        "poweroff --force",
        "poweroff --force --force",
        "poweroff --force --force",
    ]


def test_without_systemd_run_the_switch_is_a_scheduled_shutdown() -> None:
    asked: list[list[str]] = []

    def answer(words: Any, *_: float) -> command.Ran:
        asked.append(list(words))
        return command.Ran(0) if words[0] == "shutdown" else command.Ran(1, problem="Failed to connect to bus")

    assert SystemdMachine(answer).arm(5400) == ""
    assert asked[-1] == ["shutdown", "-P", "+90"]
    refused = SystemdMachine(lambda *_: command.Ran(1, problem="no bus"))
    assert refused.arm(5400) == "no bus; no bus" and refused.halt(0) == "no bus"


def test_systemd_hears_that_the_watchdog_lives(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        beat({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listening.recv(100) == b"READY=1\nWATCHDOG=1"
    beat({})


def test_moments_are_read_with_their_offset() -> None:
    assert instant(parse_instant("2026-11-24T09:00:00+01:00")) == "2026-11-24T08:00:00Z"
    with pytest.raises(ValueError, match="no offset"):
        parse_instant("2026-11-24T09:00:00")


def test_a_status_of_another_hand_is_refused() -> None:
    for text in ("", "[]", "{}", '{"format": "berth-watchdog/9"}', '{"format": "berth-watchdog/1"}'):
        with pytest.raises(ModelError):
            parse_status(text, "status.json")


def test_work_of_further_nodes_has_places_of_its_own() -> None:
    known = {"BERTH_BUCKET": "b", "BERTH_OUTPUT": "output/training"}
    assert place(known) == "s3://b/output/training"
    assert place({**known, "BERTH_NODE_RANK": "2"}) == "s3://b/output/training/node-2"
    assert place({}) == ""


def test_an_upload_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = program(tmp_path, "python", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    task = ProcessCourier([script], "/output", "s3://b/x", str(tmp_path)).deliver(100)
    _until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip() != "")
    assert task.poll() is None
    task.stop()
    found = task.poll()
    assert found is not None and found.kind == "failed" and "took too long" in found.problems[0]
    child = int((tmp_path / "child").read_text())
    _until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


@pytest.mark.parametrize("script", ["echo Traceback; exit 1", 'echo \'{"result": "perfect"}\'', "exit 0"])
def test_an_upload_that_says_nothing_sensible_has_failed(tmp_path: Path, script: str) -> None:
    for start in ([program(tmp_path, "python", script)], ["/none"]):
        task = ProcessCourier(start, "/o", "s3://b/x").report({}, [])
        _until(lambda task=task: task.poll() is not None)
        found = task.poll()
        assert found is not None and found.kind == "failed" and found.problems


def test_mistakes_in_the_options_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ["--output", "/o", "--uri", "s3://b/x", "--job", str(tmp_path / "job"), "--state", str(tmp_path / "s")]
    late = ["--expires-at", "2026-11-24T08:00:00Z"]
    for given, said in (
        (good, "--expires-at is missing"),
        ([*good, "--expires-at", "tomorrow"], "write 2026-11-24T08:00:00Z"),
        ([*good, *late, "--unit", "x"], "either --unit or --job"),
        ([*good, *late, "--set", "pol_s=1"], "there is no limit pol_s"),
        ([*good, *late, "--set", "poll_s=soon"], "write NAME=NUMBER"),
        (["--output", "/o", *late, "--unit", "x"], "--uri is missing"),
    ):
        assert main(given) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1


def test_a_job_whose_supervisor_vanished_is_not_taken_for_running(tmp_path: Path) -> None:
    state = tmp_path / "job.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "model_runtime.watch.supervise", str(state), "--", "sleep", "600"], cwd=ROOT
    )
    job = SupervisedJob(state)
    assert job.state().kind in ("waiting", "running")
    _until(lambda: job.state().kind == "running")
    process.kill()
    process.wait()
    assert job.state().kind == "running", "the job itself goes on"
    job.kill()
    _until(lambda: job.state().kind == "failed")
    assert "without a word" in job.state().detail


@pytest.fixture
def endpoint() -> Iterator[str]:
    with moto_server() as address:
        yield address


def test_the_command_survives_kill_9_and_ends_the_machine(endpoint: str, tmp_path: Path) -> None:
    s3 = boto3.client("s3", endpoint_url=endpoint)
    s3.create_bucket(Bucket="real-command")
    checkpoint(tmp_path / "output", 10)
    job, halted = tmp_path / "job.json", tmp_path / "halted"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL_S3": endpoint, "BERTH_INSTANCE": "i-9"}
    words = [sys.executable, "-m", "model_runtime.watch.supervise", str(job), "--", "sleep", "600"]
    running = subprocess.Popen(words, env=environment)
    words = [
        *(sys.executable, "-m", "model_runtime.watchdog", "--output", str(tmp_path / "output"), "--job", str(job)),
        *("--uri", "s3://real-command/run", "--expires-at", instant(time.time() + 604), "--gpus", "off"),
        *("--metadata", "off", "--state", str(tmp_path / "run"), "--halt-command", f"touch {halted}", "--set"),
        "poll_s=0.1",
    ]  # fmt: skip
    events = tmp_path / "run" / "events.jsonl"
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(words, env=environment, stderr=log)
        _until(lambda: events.exists() and '"began"' in events.read_text() and job.exists())
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = subprocess.run(words, env=environment, timeout=60, stderr=log, check=False)
    assert second.returncode == 0 and halted.exists(), (tmp_path / "log").read_text()
    running.wait(20)
    assert SupervisedJob(job).state().signal == signal.SIGTERM
    status = read_status("s3://real-command/run", client=s3)
    assert status is not None and (status.phase, status.halted, status.reason) == ("ended", "verified", "expiry")
    assert status.machine["instance"] == "i-9"
    assert verify(status.verified[0], client=s3).whole
    lines = s3.get_object(Bucket="real-command", Key="run/watchdog/events.jsonl")["Body"].read().decode().splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert names.index("began") < names.index("went on") < names.index("stopping") < names.index("ended")


def _until(done: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)
