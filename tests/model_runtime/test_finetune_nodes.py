"""Several machines, as processes on loopback with folders of their own: they meet, halve together, save and go on."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_runtime.artifacts import verify
from model_runtime.training.launch import STOP_FILE, Nodes, run
from model_runtime.training.meeting import Meeting, MeetingError
from model_runtime.training.metrics import FILE, read_metrics
from model_runtime.training.outcome import Outcome
from model_runtime.training.settings import FinetuneSettings
from tests.model_runtime import training_runs as runs
from tests.model_runtime.test_finetune_processes import COMMAND, environment, plan, write
from tests.moto_server import moto_server


def free_port() -> int:
    """One with a free port after it, below those that the system gives to connections.

    Another test may draw at the same moment, and a training run seeds `random` alike in every process that it is in.
    """
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(20_000, 32_000)
        with socket.socket() as one, socket.socket() as next_one:
            try:
                one.bind(("127.0.0.1", port))
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def nodes_of(chosen: list[FinetuneSettings], folder: Path, **more: str) -> list[subprocess.Popen[bytes]]:
    port = str(free_port())
    started = []
    for rank, one in enumerate(chosen):
        path = write(folder / f"{rank}.json", **one.to_json())
        place = {
            "BERTH_NODES": str(len(chosen)), "BERTH_NODE_RANK": str(rank), "BERTH_FIRST_NODE": "127.0.0.1",
            "BERTH_PORT": port, **more,
        }  # fmt: skip
        log = (folder / f"{rank}.log").open("wb")
        started.append(
            subprocess.Popen(
                [*COMMAND, str(path)], env={**environment(), **place}, stdout=log, stderr=subprocess.STDOUT
            )
        )
        log.close()
    return started


def ended(machines: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes; a machine that hangs is ended, so that a test that fails leaves none behind."""
    try:
        return [machine.wait(540) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                machine.terminate()
                machine.kill()
                machine.wait(30)


def test_the_nodes_of_a_stack_are_read_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Nodes.here() == Nodes(1, 0, "127.0.0.1", 0)
    for name, value in (("NODES", "4"), ("NODE_RANK", "2"), ("FIRST_NODE", "node-0.training.berth.internal")):
        monkeypatch.setenv(f"BERTH_{name}", value)
    assert Nodes.here() == Nodes(4, 2, "node-0.training.berth.internal", 29400)


def together(*work: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, done at once."""
    found: list[Any] = [None] * len(work)

    def one(i: int) -> None:
        try:
            found[i] = work[i]()
        except MeetingError as error:
            found[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


@pytest.fixture
def met() -> tuple[Meeting, Meeting]:
    port = free_port()
    first, second = together(
        lambda: Meeting("127.0.0.1", port, 0, 2, come_s=2.0), lambda: Meeting("127.0.0.1", port, 1, 2, come_s=2.0)
    )
    return first, second


FITS, FULL, DONE = Outcome("fits", ""), Outcome("out-of-memory", "of the second"), Outcome("done", "artifact")


@pytest.mark.parametrize(
    ("first", "second", "settled"),
    [
        (FITS, FITS, "fits"),
        (FITS, FULL, "out-of-memory"),
        (Outcome("crashed", "its peer is gone"), FULL, "out-of-memory"),
        (Outcome("refused", "no"), FITS, "refused"),
        (Outcome("interrupted", "at step 3"), Outcome("interrupted", "at step 3"), "interrupted"),
        (DONE, DONE, "done"),
    ],
)
def test_an_attempt_ends_alike_on_all_machines(
    met: tuple[Meeting, Meeting], first: Outcome, second: Outcome, settled: str
) -> None:
    cut = {"micro_batch_size": 4, "tried": False}
    assert together(lambda: met[0].begin(cut), lambda: met[1].begin({"micro_batch_size": 9})) == [cut, cut]
    assert not met[0].failed()
    ends = together(lambda: met[0].end(first), lambda: met[1].end(second))
    assert {end.kind for end in ends} == {settled}
    assert met[0].failed() == (settled not in ("fits", "done"))
    if first is FULL or second is FULL:
        assert ends[0].message == "of the second"


def test_a_machine_that_begins_again_joins_the_next_attempt(met: tuple[Meeting, Meeting]) -> None:
    cut = {"micro_batch_size": 2, "tried": True}
    together(lambda: met[0].begin(cut), lambda: met[1].begin({}))
    port = met[1]._store.port
    again, end = together(
        lambda: Meeting("127.0.0.1", port, 1, 2, come_s=2.0), lambda: met[0].end(Outcome("crashed", "peer gone"))
    )
    assert end.kind == "crashed"
    assert together(lambda: met[0].begin(cut), lambda: again.begin({})) == [cut, cut]


def test_a_machine_that_is_not_heard_of_ends_the_run(met: tuple[Meeting, Meeting]) -> None:
    together(lambda: met[0].begin({}), lambda: met[1].begin({}))
    with pytest.raises(MeetingError, match="machine 1 has not said how its attempt ended"):
        met[0].end(FULL)
    with pytest.raises(MeetingError, match="the first machine has not begun"):
        met[1].begin({})
    with pytest.raises(MeetingError, match="does not answer"):
        Meeting("127.0.0.1", free_port(), 1, 2, come_s=0.2)


@pytest.mark.slow
def test_two_nodes_meet_on_loopback(tiny: Any, tmp_path: Path) -> None:
    data = runs.pairs(tmp_path / "d.jsonl", 60)
    one = runs.settings(tmp_path / "one", tiny("llama"), data, micro_batch_size=8)
    runs.train(one)
    both = nodes_of(
        [replace(one, output=str(tmp_path / f"node-{rank}"), micro_batch_size=4) for rank in (0, 1)], tmp_path
    )
    assert ended(both) == [0, 0], (tmp_path / "0.log").read_text()[-3000:]
    assert runs.losses(tmp_path / "node-0") == pytest.approx(runs.losses(tmp_path / "one"), abs=1e-2)
    assert verify(str(tmp_path / "node-0" / "artifact")).whole
    assert not (tmp_path / "node-1" / "artifact").exists()


@pytest.mark.slow
def test_memory_that_runs_out_on_one_machine_halves_the_micro_batch_on_both(tiny: Any, tmp_path: Path) -> None:
    long = runs.write_rows(tmp_path / "d.jsonl", [{"text": f"{i} " + "ship harbour " * 40} for i in range(64)])
    base = runs.settings(
        tmp_path / "r", tiny("llama"), long, micro_batch_size=64, epochs=1.0, preflight=True, validation_share=0.0
    )
    half = 96 << 20  # enough for 32 examples: each attempt starts four processes anew
    small = replace(base, memory_cap_bytes=half, output=str(tmp_path / "node-1"))
    both = nodes_of([replace(base, output=str(tmp_path / "node-0")), small], tmp_path)
    assert ended(both) == [0, 0], (tmp_path / "0.log").read_text()[-3000:]
    logs = [(tmp_path / f"{rank}.log").read_text() for rank in (0, 1)]
    assert all("OUT OF MEMORY with micro-batch 64" in log for log in logs)
    cuts = [json.loads((tmp_path / f"node-{rank}" / "run.json").read_text()) for rank in (0, 1)]
    assert cuts[0]["micro_batch_size"] == cuts[1]["micro_batch_size"] < 64
    assert cuts[0]["micro_batch_size"] * cuts[0]["gradient_accumulation_steps"] == 64
    assert verify(str(tmp_path / "node-0" / "artifact")).whole


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with moto_server() as endpoint:
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="runs-of-a-test")
        yield client


@pytest.mark.slow
def test_two_sharded_machines_leave_checkpoints_that_two_new_ones_or_one_go_on_with(
    s3: Any, tiny: Any, tmp_path: Path
) -> None:
    """The notice comes to the second machine alone. Each keeps and uploads the shards of its own processes, and new
    machines, whose disks are empty, fetch those of all."""
    data = runs.pairs(tmp_path / "d.jsonl", 120)
    whole = runs.settings(tmp_path / "whole", tiny("llama"), data, micro_batch_size=8)
    runs.train(whole)
    two = plan(tmp_path / "two", stage=2, processes=2, micro_batch=4, machines=2)
    base = replace(whole, plan=str(two), upload="s3://runs-of-a-test/run")
    both = nodes_of([replace(base, output=str(tmp_path / f"node-{rank}")) for rank in (0, 1)], tmp_path)
    until = time.monotonic() + 480
    metrics = tmp_path / "node-0" / FILE
    while time.monotonic() < until and all(process.poll() is None for process in both):
        if metrics.is_file() and len(read_metrics(metrics)) >= 6:
            (tmp_path / "node-1" / STOP_FILE).write_text("spot notice")
            break
        time.sleep(0.02)
    assert ended(both) == [75, 75], (tmp_path / "0.log").read_text()[-3000:]
    step = max(runs.losses(tmp_path / "node-0"))
    parts = [f"s3://runs-of-a-test/run{place}/checkpoints/checkpoint-{step}" for place in ("", "/node-1")]
    assert [verify(part, client=s3).problems for part in parts] == [(), ()]
    shards = [
        {
            item["Key"].split("/")[-1]
            for item in s3.list_objects_v2(Bucket="runs-of-a-test", Prefix=p.split("/", 3)[3])["Contents"]
        }
        for p in parts
    ]
    assert [len({name for name in names if "optim_states" in name}) for names in shards] == [1, 1]
    assert not shards[0] & shards[1] & {name for name in shards[0] if "optim_states" in name}
    for item in s3.list_objects_v2(Bucket="runs-of-a-test", Prefix="run/")["Contents"]:
        source = {"Bucket": "runs-of-a-test", "Key": item["Key"]}
        s3.copy_object(Bucket="runs-of-a-test", Key=f"again{item['Key'].removeprefix('run')}", CopySource=source)
    (tmp_path / "again").mkdir()
    again = [
        replace(base, upload="s3://runs-of-a-test/again", output=str(tmp_path / "again" / f"node-{rank}"))
        for rank in (0, 1)
    ]
    assert ended(nodes_of(again, tmp_path / "again")) == [0, 0], (tmp_path / "again" / "0.log").read_text()[-3000:]
    one = plan(tmp_path / "one", stage=2, processes=1, micro_batch=8)
    outcome = run(replace(base, plan=str(one), output=str(tmp_path / "new")), say=print)
    assert outcome.kind == "done"
    uncut = runs.losses(tmp_path / "whole")
    for rest in (runs.losses(tmp_path / "again" / "node-0"), runs.losses(tmp_path / "new")):
        assert min(rest) == step + 1
        assert runs.losses(tmp_path / "node-0") | rest == pytest.approx(uncut, abs=1e-2)
    assert verify("s3://runs-of-a-test/again/artifact", client=s3).whole
