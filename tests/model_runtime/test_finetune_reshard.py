"""A sharded run goes on with another number of processes: the curve is that of a run that was never stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_runtime.artifacts import verify
from model_runtime.errors import ModelError
from model_runtime.training import reshard
from model_runtime.training.launch import STOP_FILE, run
from model_runtime.training.metrics import FILE, read_metrics
from model_runtime.training.reshard import MissingShardsError, Written
from tests.model_runtime import training_runs as runs
from tests.model_runtime.test_finetune_processes import plan


def stop_after(step: int, output: Path) -> Any:
    """Words of a run's worker cannot be heard here, so its metrics are looked at while its launcher waits."""
    import threading

    def watch() -> None:
        while not done.wait(0.02):
            lines = read_metrics(output / FILE) if (output / FILE).is_file() else []
            if lines and lines[-1]["step"] >= step:
                (output / STOP_FILE).write_text("the test")
                return

    done = threading.Event()
    threading.Thread(target=watch, daemon=True).start()
    return done


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "first", "then"), [(2, 2, 1), (3, 1, 2)])
def test_a_sharded_run_goes_on_with_another_number_of_processes(
    tiny: Any, tmp_path: Path, stage: int, first: int, then: int
) -> None:
    data = runs.pairs(tmp_path / "d.jsonl", 120)
    more: dict[str, Any] = {"validation_share": 0.1, "evaluations": 5, "schedule": "linear"}
    whole = runs.settings(tmp_path / "whole", tiny("llama"), data, micro_batch_size=8, **more)
    runs.train(whole)
    begun = replace(
        whole, output=str(tmp_path / "cut"),
        plan=str(plan(tmp_path / "first", stage=stage, processes=first, micro_batch=8 // first)),
    )  # fmt: skip
    done = stop_after(9, tmp_path / "cut")
    try:
        outcome = run(begun, say=print)
    finally:
        done.set()
    assert outcome.kind == "interrupted", outcome
    at = max(runs.losses(tmp_path / "cut"))
    said: list[str] = []
    on = replace(begun, plan=str(plan(tmp_path / "then", stage=stage, processes=then, micro_batch=8 // then)))
    assert run(on, say=said.append).kind == "done"
    assert runs.losses(tmp_path / "cut") == pytest.approx(runs.losses(tmp_path / "whole"), abs=1e-2)
    assert at < max(runs.losses(tmp_path / "cut"))
    assert verify(str(tmp_path / "cut" / "artifact")).whole
    assert not (tmp_path / "cut" / reshard.FOLDER).exists()
    last = max((tmp_path / "cut" / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
    assert reshard.written_by(last).processes in (first, then)


def checkpoint(folder: Path, ranks: tuple[int, ...], written: Written) -> Path:
    shards = folder / "global_step3"
    shards.mkdir(parents=True)
    for rank in ranks:
        (shards / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(b"shard")
    written.write(folder)
    return folder


def test_shards_of_another_machine_that_are_not_here_are_named(tmp_path: Path) -> None:
    written = Written(4, 2, 2, "adamw_torch_fused")
    here = checkpoint(tmp_path / "a" / "checkpoint-3", (0, 1), written)
    there = checkpoint(tmp_path / "b" / "checkpoint-3", (3,), written)
    assert reshard.ranks_in(here) == {0, 1}
    with pytest.raises(MissingShardsError, match="lacks the shards of process 2 of 4"):
        reshard.reshard(here, [there], tmp_path / "made", written, print, join=True)
    assert not list((tmp_path / "made").iterdir()), "nothing half-made stays"
    (there / "global_step3" / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt").write_bytes(b"shard")
    made = reshard.reshard(here, [there], tmp_path / "made", written, print, join=False)
    assert reshard.ranks_in(made) == {0, 1, 2, 3}
    assert reshard.ranks_in(here) == {0, 1}, "the checkpoint stays as it is"


def test_what_deepspeed_cannot_read_is_told_in_one_line(tmp_path: Path) -> None:
    written = Written(1, 1, 2, "adamw_torch")
    here = checkpoint(tmp_path / "checkpoint-3", (0,), written)
    with pytest.raises(ModelError, match="DeepSpeed's converter ended with code 1"):
        reshard.reshard(here, [], tmp_path / "made", written, print, join=True)
    assert not (tmp_path / "made" / "checkpoint-3").exists()


@pytest.mark.parametrize(
    ("written", "now", "says"),
    [
        (Written(2, 1, 2, "adamw_torch"), Written(2, 1, 0, "adamw_torch"), "with ZeRO-2, the plan has no sharding"),
        (Written(2, 1, 0, "adamw_torch"), Written(2, 1, 3, "adamw_torch"), "with no sharding, the plan has ZeRO-3"),
        (Written(2, 1, 2, "adafactor"), Written(4, 1, 2, "adafactor"), "joins the shards of AdamW alone"),
        (Written(2, 1, 2, "adafactor"), Written(2, 1, 2, "adafactor"), ""),
        (Written(2, 1, 2, "adamw_torch_fused"), Written(4, 1, 2, "adamw_torch"), ""),
        (Written(2, 1, 0, "adafactor"), Written(4, 1, 0, "adafactor"), ""),
    ],
)
def test_a_cut_that_cannot_be_gone_on_with_is_refused_with_a_way_out(written: Written, now: Written, says: str) -> None:
    if not says:
        reshard.check(written, now, "checkpoint-3")
        return
    with pytest.raises(ModelError, match=says):
        reshard.check(written, now, "checkpoint-3")


def test_a_checkpoint_that_does_not_say_who_wrote_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"processes\.json cannot be read"):
        reshard.written_by(tmp_path)
    (tmp_path / reshard.FILE).write_text(json.dumps({"processes": 2}))
    with pytest.raises(ModelError, match=r"processes\.json cannot be read"):
        reshard.written_by(tmp_path)


def test_joined_states_count_their_steps_apart_and_keep_their_weight_decay() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    inner = torch.optim.AdamW([{"params": [w], "weight_decay": 0.5} for w in weights])
    shared = torch.tensor(3.0)
    for weight in weights:
        weight.grad = torch.ones(2)
        inner.state[weight] = {"step": shared, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    reshard.mend_optimizer(SimpleNamespace(optimizer=SimpleNamespace(optimizer=inner)), [0.5, 0.0])
    inner.step()
    assert [inner.state[weight]["step"].item() for weight in weights] == [4.0, 4.0]
    assert [group["weight_decay"] for group in inner.param_groups] == [0.5, 0.0]
