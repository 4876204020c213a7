"""Fine-tuning in processes of its own, as on a machine: the command line, torchrun, DeepSpeed, nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_runtime.artifacts import verify
from model_runtime.errors import ModelError
from model_runtime.training.launch import run
from model_runtime.training.metrics import FILE, read_metrics
from model_runtime.training.notice import Notice
from tests.model_runtime import training_runs as runs

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "model_runtime.finetune"]


def write(path: Path, **given: Any) -> Path:
    path.write_text(json.dumps(given))
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def plan(
    folder: Path, *, stage: int, processes: int, micro_batch: int, accumulation: int = 1, machines: int = 1
) -> Path:
    """A plan's files as berth size writes them, for a tiny model in fp32."""
    folder.mkdir()
    kind = "DEEPSPEED" if stage else "MULTI_GPU" if processes > 1 else "NO"
    accelerate = {"distributed_type": kind, "num_machines": machines, "num_processes": processes}
    (folder / "accelerate_config.yaml").write_text(yaml.safe_dump(accelerate))
    cut = {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulation}
    write(folder / "training_arguments.json", **cut, num_train_epochs=2, max_grad_norm=1.0, optim="adamw_torch")
    write(folder / "training_plan.json", model="tiny", method="full", precision="fp32")
    if stage:
        zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": 500_000, "contiguous_gradients": True}
        if stage == 3:
            zero |= {
                "stage3_gather_16bit_weights_on_model_save": True,
                "stage3_param_persistence_threshold": 100,
                "stage3_prefetch_bucket_size": 50_000,
            }
        write(
            folder / "ds_config.json",
            train_batch_size=micro_batch * accumulation * processes,
            train_micro_batch_size_per_gpu=micro_batch,
            gradient_accumulation_steps=accumulation,
            gradient_clipping=1.0,
            bf16={"enabled": False},
            zero_optimization=zero,
        )
    return folder


def test_the_command_trains_from_a_settings_file_and_says_what_is_wrong(tiny: Any, tmp_path: Path) -> None:
    runs.pairs(tmp_path / "d.jsonl", 20)
    path = write(
        tmp_path / "finetune.json", model=str(tiny("llama")), data="d.jsonl", output="out", epochs=1, device="cpu",
        micro_batch_size=4, logging_steps=1, preflight=False, usd_per_hour=3.6,
    )  # fmt: skip
    ran = subprocess.run([*COMMAND, str(path)], env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "the artifact is in" in ran.stdout
    assert "so far" in ran.stdout
    assert verify(str(tmp_path / "out" / "artifact")).whole
    write(path, model="m", data="d.jsonl", output="out", method="magic")
    wrong = subprocess.run([*COMMAND, str(path)], env=environment(), capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "method is 'magic'" in wrong.stderr


def test_a_spot_notice_stops_the_run_before_its_first_step(tiny: Any, tmp_path: Path) -> None:
    """The metadata service as EC2 has it: a token first, then 404 until there is a notice."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    asked: list[str] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, "token")

        def do_GET(self) -> None:
            asked.append(self.headers["X-aws-ec2-metadata-token"])
            ready = len(asked) > 1
            self._answer(200 if ready else 404, '{"action": "terminate"}' if ready else "")

        def _answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said: list[str] = []
    stop = tmp_path / "r" / "stop-requested"

    def start(settings: Any, plan: Any, nodes: Any, preflight: bool) -> None:
        until = time.monotonic() + 30
        while not stop.exists() and time.monotonic() < until:
            time.sleep(0.01)
        runs.copied(settings, plan, nodes, preflight)

    try:
        chosen = runs.settings(tmp_path / "r", tiny("llama"), runs.pairs(tmp_path / "d.jsonl"))
        notice = Notice(f"http://127.0.0.1:{server.server_port}", every_s=0.05)
        outcome = run(chosen, say=said.append, notice=notice, start=start)
    finally:
        server.shutdown()
        server.server_close()
    assert outcome.kind == "interrupted"
    assert (tmp_path / "r" / "checkpoints" / "checkpoint-1").is_dir()
    assert set(asked) == {"token"}
    assert any("spot notice" in line for line in said)
    assert Notice(f"http://127.0.0.1:{server.server_port}").read() == "", "no service, no notice"


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_ends_with_75(tiny: Any, tmp_path: Path) -> None:
    runs.pairs(tmp_path / "d.jsonl", 200)
    path = write(
        tmp_path / "finetune.json", model=str(tiny("t5")), data="d.jsonl", output="out", epochs=40, device="cpu",
        micro_batch_size=4, logging_steps=1, preflight=False, learning_rate=1e-3,
    )  # fmt: skip
    with subprocess.Popen([*COMMAND, str(path)], env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 5/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 75
    assert "saving a checkpoint at the next step" in rest
    assert "with a checkpoint; start it again to go on" in rest


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_processes_have_the_loss_of_one(tiny: Any, tmp_path: Path, stage: int) -> None:
    data = runs.pairs(tmp_path / "d.jsonl", 60)
    one = runs.settings(tmp_path / "one", tiny("llama"), data, micro_batch_size=8)
    runs.train(one)
    two = runs.settings(
        tmp_path / "two", tiny("llama"), data, checkpoint_minutes=0.001,
        plan=str(plan(tmp_path / "plan", stage=stage, processes=2, micro_batch=4)),
    )  # fmt: skip
    outcome = run(two, say=lambda _: None)
    assert outcome.kind == "done", outcome
    record = json.loads((tmp_path / "two" / "artifact" / "training.json").read_text())
    assert record["plan"]["processes"] == 2
    assert runs.losses(tmp_path / "two") == pytest.approx(runs.losses(tmp_path / "one"), abs=1e-2)
    assert verify(str(tmp_path / "two" / "artifact")).whole
    if stage:
        newest = max((tmp_path / "two" / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
        shards = list(newest.glob("global_step*/*_optim_states.pt"))
        assert len(shards) == 2, "each process keeps its own part: they share one group"


@pytest.mark.slow
def test_a_sharded_run_goes_on_after_kill_9_with_as_many_processes(tiny: Any, tmp_path: Path) -> None:
    data = runs.pairs(tmp_path / "d.jsonl", 120)
    folder = plan(tmp_path / "plan", stage=2, processes=2, micro_batch=4)
    whole = runs.settings(tmp_path / "whole", tiny("llama"), data, plan=str(folder))
    run(whole, say=lambda _: None)
    cut = replace(whole, output=str(tmp_path / "cut"), checkpoint_minutes=0.001)
    settings = write(tmp_path / "s.json", **cut.to_json())
    process = subprocess.Popen(
        [*COMMAND, str(settings)], env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 7/"):
            break
    children = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for row in children.splitlines():
        if str(tmp_path / "cut") in row and "--worker" in row:
            os.kill(int(row.split()[0]), signal.SIGKILL)
    process.kill()
    process.wait(30)
    process.stdout.close()
    with pytest.raises(ModelError, match="was written with ZeRO-2, the plan has no sharding"):
        run(replace(cut, plan=str(plan(tmp_path / "plan1", stage=0, processes=1, micro_batch=8))), say=lambda _: None)
    assert run(cut, say=lambda _: None).kind == "done"
    assert runs.losses(tmp_path / "cut") == pytest.approx(runs.losses(tmp_path / "whole"), abs=1e-4)


@pytest.mark.slow
def test_a_run_without_sharding_goes_on_with_another_number_of_processes(tiny: Any, tmp_path: Path) -> None:
    data = runs.pairs(tmp_path / "d.jsonl", 60)
    whole = runs.settings(tmp_path / "whole", tiny("llama"), data, micro_batch_size=8)
    runs.train(whole)
    one = replace(whole, output=str(tmp_path / "cut"), checkpoint_minutes=0.001)
    runs.signal_at(one, 5)
    two = replace(one, plan=str(plan(tmp_path / "plan", stage=0, processes=2, micro_batch=2, accumulation=2)))
    said: list[str] = []
    assert run(two, say=said.append).kind == "done"
    assert runs.losses(tmp_path / "cut") == pytest.approx(runs.losses(tmp_path / "whole"), abs=1e-2)
    assert min(line["step"] for line in read_metrics(tmp_path / "cut" / FILE)) == 1
