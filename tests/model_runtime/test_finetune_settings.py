"""Settings and plans: mistakes told by name, and a batch that stays what it is however it is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.errors import ModelError
from model_runtime.training.plan import RunPlan, plan_of, planned_settings
from model_runtime.training.settings import FinetuneSettings, read_settings, settings_from
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model
from sizing.training_plan.configuration import configuration, write_configuration

LEAST = {"model": "m", "data": "d.jsonl", "output": "o"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "m"}, "data, output missing"),
        ({**LEAST, "learning_rat": 1}, "unknown setting learning_rat; did you mean learning_rate"),
        ({**LEAST, "epochs": "3"}, "epochs is '3'; it must be a number"),
        ({**LEAST, "micro_batch_size": 2.0}, "must be a whole number"),
        ({**LEAST, "packing": 1}, "must be true or false"),
        ({**LEAST, "lora_targets": "q"}, "must be a list of texts"),
        ({**LEAST, "columns": {"input": 1}}, "must be an object of texts"),
        ({**LEAST, "method": "prefix"}, "method is 'prefix'; one of full, lora, qlora"),
        ({**LEAST, "epochs": 0}, "epochs is 0"),
        ({**LEAST, "learning_rate": float("nan")}, "learning_rate is nan"),
        ({**LEAST, "prompt": "Say:"}, "must hold {input} once"),
        ({**LEAST, "packing": True, "form": "seq2seq"}, "packing is for text and chat"),
        ({**LEAST, "validation_share": 0.5, "test_share": 0.5}, "leave nothing"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError) as error:
        settings_from(given, "finetune.json")
    assert says in str(error.value)
    assert str(error.value).startswith("finetune.json: ")


def test_paths_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    path = tmp_path / "finetune.json"
    path.write_text(json.dumps({**LEAST, "validation": "s3://b/v.jsonl", "epochs": 2}))
    found = read_settings(path)
    assert (found.model, found.data, found.output) == tuple(str(tmp_path / n) for n in ("m", "d.jsonl", "o"))
    assert (found.validation, found.epochs) == ("s3://b/v.jsonl", 2.0)
    path.write_text(json.dumps({**LEAST, "model": "google/flan-t5-base"}))
    assert read_settings(path).model == "google/flan-t5-base"
    path.write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        read_settings(path)


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 8))
def test_halving_keeps_the_global_batch_until_one(micro: int, accumulation: int, processes: int) -> None:
    plan: RunPlan | None = RunPlan(micro, accumulation, processes, 1, {}, None, {})
    assert plan is not None
    batch, before = plan.global_batch, micro
    while (smaller := plan.halved()) is not None:
        assert smaller.global_batch == batch
        assert 1 <= smaller.micro_batch <= before // 2
        plan, before = smaller, smaller.micro_batch
    assert plan.micro_batch == 1


def test_halving_an_even_micro_batch_doubles_the_accumulation() -> None:
    smaller = RunPlan(8, 3, 2, 1, {}, None, {}).halved()
    assert smaller is not None
    assert (smaller.micro_batch, smaller.accumulation, smaller.processes) == (4, 6, 2)


def test_another_number_of_processes_keeps_the_batch_or_is_refused() -> None:
    plan = RunPlan(4, 2, 8, 1, {}, None, {})
    assert (plan.cut(4, 4).accumulation, plan.cut(4, 4).global_batch) == (4, 64)
    with pytest.raises(ModelError, match="cannot be cut"):
        plan.cut(4, 3)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`planned(model, instance, method)`: the folder of the plan for it, and the plan."""
    from sizing.training_plan.lengths import lengths_of
    from sizing.training_plan.search import search
    from sizing.training_plan.task import TrainingTask, TrainingWishes

    def make(model: str, instance: str, method: Any) -> tuple[Path, Any]:
        facts = resolve_model(model)
        task = TrainingTask(examples=10_000, lengths=lengths_of(facts, (), None, None, None), epochs=3)
        wishes = TrainingWishes(methods=(method,), instance=instance)
        found = search(facts, task, load_hardware(), wishes).recommended
        assert found is not None
        folder = tmp_path_factory.mktemp("plan")
        write_configuration(folder, configuration(facts, task, found))
        return folder, found

    return make


@pytest.mark.parametrize(
    ("model", "instance", "method"),
    [
        ("google/flan-t5-xl", "p4d.24xlarge", "full"),
        ("google/flan-t5-base", "g5.xlarge", "full"),
        ("mistralai/Mistral-7B-v0.1", "g5.2xlarge", "qlora"),
        ("mistralai/Mistral-7B-v0.1", "g5.12xlarge", "lora"),
    ],
)
def test_a_plan_is_taken_as_it_was_written(planned: Any, model: str, instance: str, method: str) -> None:
    folder, plan = planned(model, instance, method)
    settings = FinetuneSettings(model="m", data="d", output="o", plan=str(folder))
    found = plan_of(settings)
    assert (found.micro_batch, found.accumulation) == (plan.setup.micro_batch, plan.setup.gradient_accumulation_steps)
    assert (found.processes, found.global_batch) == (plan.setup.gpus, plan.global_batch)
    assert found.zero_stage == plan.setup.zero_stage
    if plan.setup.zero_stage:
        assert found.deepspeed_config() == json.loads((folder / "ds_config.json").read_text())
    chosen, said = planned_settings(settings, found)
    assert (chosen.method, chosen.epochs, chosen.instance_type) == (method, 3.0, instance)
    assert chosen.precision == plan.setup.precision
    assert chosen.gradient_checkpointing == plan.setup.checkpointing
    assert any("the plan sets epochs to 3" in line or chosen.epochs == settings.epochs for line in said)
    if method != "full":
        assert chosen.lora_rank == plan.setup.lora_rank
        assert chosen.lora_targets


def test_a_plan_that_is_incomplete_or_contradicts_itself_is_refused(planned: Any, tmp_path: Path) -> None:
    folder, _ = planned("google/flan-t5-xl", "p4d.24xlarge", "full")
    settings = FinetuneSettings(model="m", data="d", output="o", plan=str(folder))
    path = folder / "ds_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "train_batch_size": 7}))
    with pytest.raises(ModelError, match="cut the batch differently"):
        plan_of(settings)
    with pytest.raises(ModelError, match=r"lacks accelerate_config\.yaml"):
        plan_of(FinetuneSettings(model="m", data="d", output="o", plan=str(tmp_path)))
    (folder / "accelerate_config.yaml").write_text("a: [")
    with pytest.raises(ModelError, match="cannot be read"):
        plan_of(settings)
