"""The folder that a training node runs, and the environment that a stack gives it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_runtime.manifest import check_folder
from model_runtime.training.bundle import write_training_bundle
from model_runtime.training.launch import run
from model_runtime.training.outcome import Outcome, write_outcome
from model_runtime.training.settings import FinetuneSettings, read_settings


def test_a_bundle_runs_by_itself_and_names_the_nodes_places(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    ran = run_berth(
        "finetune", "--model", "google/flan-t5-base", "--data", "tickets.jsonl", "--out", "run", "--epochs", "2",
        "--bundle", target,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert check_folder(target)
    settings = read_settings(target / "finetune.json")
    assert (settings.model, settings.data) == ("/opt/berth/data/model", "/opt/berth/data/dataset")
    assert (settings.output, settings.epochs) == ("/opt/berth/data/output", 2.0)
    assert settings.model_name == "google/flan-t5-base"
    helped = subprocess.run(
        [sys.executable, "-P", "-m", "model_runtime.finetune", "--help"], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(target)}, check=True,
    )  # fmt: skip
    assert "settings" in helped.stdout
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    refused = run_berth("finetune", "-m", "m", "--data", "d", "-o", "o", "--bundle", tmp_path / "mine")
    assert (refused.code, "is no training bundle" in refused.err) == (2, True)


def test_a_plan_travels_with_its_bundle(tmp_path: Path) -> None:
    plan = tmp_path / "p"
    plan.mkdir()
    (plan / "accelerate_config.yaml").write_text('distributed_type: "NO"\nnum_machines: 1\nnum_processes: 1\n')
    (plan / "training_arguments.json").write_text(
        '{"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}'
    )
    (plan / "training_plan.json").write_text('{"model": "google/flan-t5-base", "method": "lora"}')
    chosen = FinetuneSettings(model="m", data="d", output="o", plan=str(plan))
    made = write_training_bundle(tmp_path / "b", chosen)
    assert {"plan/training_plan.json", "finetune.json", "model_runtime/finetune.py"} <= {e.path for e in made.files}
    assert read_settings(tmp_path / "b" / "finetune.json").plan == str(tmp_path / "b" / "plan")


def test_a_machine_uploads_where_its_stack_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_BUCKET", "artifacts")
    monkeypatch.setenv("BERTH_OUTPUT", "output/training")

    def start(settings: Any, plan: Any, nodes: Any, preflight: bool) -> None:
        write_outcome(Path(settings.output), Outcome("done", settings.upload))

    chosen = FinetuneSettings(model="m", data="d", output=str(tmp_path / "o"), preflight=False, device="cpu")
    assert run(chosen, say=lambda _: None, start=start).message == "s3://artifacts/output/training"
    assert json.loads((tmp_path / "o" / "settings.json").read_text())["upload"] == "s3://artifacts/output/training"


def test_what_is_missing_is_told_by_its_option(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("finetune", "--model", "m")
    assert (ran.code, ran.out) == (2, "")
    assert "give SETTINGS, or --data, --out" in ran.err
