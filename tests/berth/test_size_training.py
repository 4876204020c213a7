"""`berth size --for training`, as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
BASE = ("size", "google/flan-t5-xl", "--for", "training")


def test_the_plan_is_said_in_the_first_lines(run_berth: Run) -> None:
    ran = run_berth(*BASE, "--data", "15000", "--epochs", "3", "--method", "full", "--instance-type", "p4d.24xlarge")
    assert (ran.code, ran.err) == (0, "")
    assert "15,000 examples, 3 epochs, 64 a step: 705 steps" in ran.out
    assert "p4d.24xlarge in us-east-1, on-demand: " in ran.out
    assert "full fine-tuning in bf16 with adamw on 8 × A100: ZeRO-" in ran.out
    for heading in (
        "hours against dollars",
        "where the time goes",
        "GPU memory, each",
        "paid by",
        "Why not the others",
    ):
        assert heading in ran.out
    assert max(map(len, ran.out.splitlines()[:-1])) <= 100


def test_the_json_document(run_berth: Run) -> None:
    ran = run_berth(*BASE, "--data", "15k", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0
    assert {"plan", "front", "refused", "memory", "configuration", "costs", "by_method", "task", "wishes"} <= set(found)
    plan = found["plan"]
    assert plan["global_batch"] == plan["micro_batch_size"] * plan["gradient_accumulation_steps"] * plan["gpus"]
    assert plan["gpu_memory_free_share"] >= 0.1
    assert found["memory"]["device"]["total_bytes"] == plan["gpu_memory_bytes"]
    assert set(found["by_method"]) == {"full", "lora", "qlora", "prompt"}
    assert found["costs"]["by_pay"]["on-demand"]["usd"] == plan["usd"]["likely"]
    assert "accelerate_config.yaml" in found["configuration"]


def test_a_file_of_examples(run_berth: Run, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "%s", "completion": "fine"}\n' % ("word " * 80) * 50, encoding="utf-8")
    found = json.loads(run_berth(*BASE, "--data", str(path), "--json").out)
    assert found["task"]["examples"] == 50
    assert found["task"]["input_tokens"] == 100
    assert any("50 examples in train.jsonl" in note for note in found["notes"])


def test_the_files_that_run_it_are_written(run_berth: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    flags = ("--data", "1000", "--method", "full", "--instance-type", "p4d.24xlarge", "--write-config", str(folder))
    ran = run_berth(*BASE, *flags)
    assert ran.code == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "accelerate_config.yaml",
        "ds_config.json",
        "training_arguments.json",
        "training_plan.json",
    ]
    assert "Written: " in ran.out


def test_where_nothing_will_do_one_line_names_the_nearest_miss_and_nothing_is_written(
    run_berth: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ran = run_berth(*BASE, "--data", "15000", "--max-hours", "0.01", "--write-config", str(folder))
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("berth: no machine fine-tunes google/flan-t5-xl as asked; the nearest is ")
    assert "over --max-hours" in ran.err
    assert not folder.exists()


def test_and_with_json_every_refusal_is_printed_all_the_same(run_berth: Run) -> None:
    ran = run_berth(*BASE, "--data", "15000", "--max-usd", "0.01", "--json")
    found = json.loads(ran.out)
    assert ran.code == 2
    assert (found["plan"], found["memory"], found["configuration"], found["costs"]) == (None, None, None, None)
    assert len(found["refused"]) > 50
    assert found["front"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "--for training needs --data"),
        (("--data", "nothing.jsonl"), "there is no file nothing.jsonl"),
        (("--data", "10", "--epochs", "0"), "epochs is 0"),
        (("--data", "10", "--method", "lorra"), "unknown method 'lorra'"),
        (("--data", "10", "--batch", "4"), "--batch has no meaning with --for training"),
        (("--data", "10", "--engine", "vllm"), "--engine has no meaning with --for training"),
        (("--data", "10", "--global-batch", "0"), "global-batch is 0"),
        (("--data", "10", "--tokenizer", "nowhere"), "tokenizer: nowhere is not there"),
        (("--data", "10", "--region", "mars"), "unknown region 'mars'"),
    ],
)
def test_a_mistake_is_one_line(run_berth: Run, flags: tuple[str, ...], says: str) -> None:
    ran = run_berth(*BASE, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err


def test_training_options_without_for_training_are_named(run_berth: Run) -> None:
    ran = run_berth("size", "google/flan-t5-xl", "--epochs", "3")
    assert ran.code == 2
    assert "--epochs has no meaning with --for inference (add --for training)" in ran.err


def test_an_unknown_purpose_is_named(run_berth: Run) -> None:
    ran = run_berth("size", "google/flan-t5-xl", "--for", "trianing")
    assert ran.code == 2
    assert "did you mean training?" in ran.err


def test_without_a_model_it_says_so(run_berth: Run) -> None:
    ran = run_berth("size", "--for", "training", "--data", "10")
    assert ran.code == 2
    assert "which model is to be fine-tuned?" in ran.err
