"""Every kind of plan that sizing can make is taken by DeepSpeed, accelerate, transformers, PEFT and the run itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from model_runtime.errors import ModelError
from model_runtime.training.plan import RunPlan, plan_of, planned_settings
from model_runtime.training.settings import FinetuneSettings
from sizing.hardware.load import load_hardware
from sizing.memory.training.setup import Method, Optimizer, Precision, TrainingSetup
from sizing.models.catalogue import load_catalogue
from sizing.training_plan.configuration import ACCELERATE, DEEPSPEED, configuration, write_configuration
from sizing.training_plan.lengths import lengths_of
from sizing.training_plan.plan import Plan
from sizing.training_plan.search import search
from sizing.training_plan.strategies import strategies
from sizing.training_plan.task import BASE_DTYPES, TrainingTask, TrainingWishes

ENCODER_DECODER = "google/flan-t5-base"
CASES = [
    *((ENCODER_DECODER, method) for method in get_args(Method)),
    ("mistralai/Mistral-7B-v0.1", "lora"),
    ("microsoft/deberta-v3-base", "lora"),
]
"""The model makes a difference to adapters alone."""
WORLDS = ((1, 1), (8, 1), (8, 2))
"""GPUs of a machine, machines."""


def setups(method: Method) -> Iterator[tuple[TrainingSetup, int]]:
    """All that `strategies` allows: precision, optimizer, ZeRO stage, offload, checkpointing, machines, held dtype."""
    precisions: tuple[Precision, ...] = get_args(Precision)
    optimizers: tuple[Optimizer, ...] = get_args(Optimizer)
    held = ("",) if method in ("full", "prompt") else ("", *BASE_DTYPES)
    for precision, optimizer, (gpus, nodes), base in itertools.product(precisions, optimizers, WORLDS, held):
        for strategy in strategies(method, precision, optimizer, gpus * nodes):
            yield TrainingSetup(
                method=method, precision=precision, optimizer=optimizer, micro_batch=4, gradient_accumulation_steps=2,
                gpus=gpus * nodes, gpus_per_node=gpus, zero_stage=strategy.zero_stage, offload=strategy.offload,
                checkpointing=strategy.checkpointing, base_dtype=base, input_tokens=300, output_tokens=60, padded=True,
            ), nodes  # fmt: skip


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> tuple[Any, TrainingTask, Plan]:
    model = load_catalogue()[request.param]
    task = TrainingTask(1000, lengths_of(model, (), 300, 60 if model.generates else None, None), 2.0)
    plan = search(model, task, load_hardware(), TrainingWishes(methods=("lora",), instance="g5.12xlarge")).recommended
    assert plan is not None
    return model, task, plan


@pytest.mark.parametrize(("found", "method"), CASES, indirect=["found"])
def test_every_kind_of_plan_is_read_by_what_runs_it(
    found: tuple[Any, TrainingTask, Plan], method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DeepSpeedPlugin
    from deepspeed.runtime.config import DeepSpeedConfig
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    model, task, base = found
    known: set[str] = set()
    kinds: set[tuple[int, str, bool]] = set()
    for setup, nodes in setups(method):
        plan = replace(base, setup=setup, nodes=nodes, global_batch=8 * setup.gpus)
        files = configuration(model, task, plan)
        text = json.dumps(files, sort_keys=True)
        if text in known:
            continue
        known.add(text)
        kinds.add((setup.zero_stage, setup.offload, nodes > 1))
        write_configuration(tmp_path, files)
        launched = load_config_from_file(str(tmp_path / ACCELERATE))
        assert (launched.num_processes, launched.num_machines) == (setup.gpus, nodes)
        arguments = {k: v for k, v in files["training_arguments.json"].items() if k not in ("bf16", "fp16")}
        made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **arguments)
        if method == "prompt":
            with pytest.raises(ModelError, match="prompt tuning"):
                taken(tmp_path)
            continue
        mine = taken(tmp_path)
        assert (mine.processes, mine.nodes, mine.zero_stage) == (setup.gpus, nodes, setup.zero_stage)
        details = files["training_plan.json"]
        if details["adapter"]:
            assert LoraConfig(**details["adapter"]).target_modules
        if details["quantization"]:
            assert BitsAndBytesConfig(**details["quantization"]).quantization_method()
        assert (tmp_path / DEEPSPEED).is_file() == bool(setup.zero_stage)
        if not setup.zero_stage:
            continue
        plugin = DeepSpeedPlugin(hf_ds_config=str(tmp_path / DEEPSPEED))
        assert (plugin.zero_stage, plugin.is_zero3_init_enabled()) == (setup.zero_stage, setup.zero_stage == 3)
        completed = HfTrainerDeepSpeedConfig(mine.deepspeed_config())
        # A machine without a GPU refuses 16-bit training when the arguments are made.
        made.bf16, made.fp16 = setup.precision == "bf16", setup.precision == "fp16"
        one = replace_batch(completed, setup.gpus)
        one.trainer_config_process(made)
        one.trainer_config_finalize(made, model, num_training_steps=100)
        parsed = DeepSpeedConfig(one.config)
        assert parsed.zero_config.stage == setup.zero_stage
        assert "auto" not in json.dumps(one.config), "all that was left open is filled in"
        assert (parsed.zero_config.offload_param is not None) == (setup.offload == "all")
    # What the search may choose from is all there; more kinds mean more than these.
    expected = {(0, "none", False), (0, "none", True)}
    if method == "full":
        expected |= {(stage, "none", many) for stage in (1, 2, 3) for many in (False, True)}
        expected |= {(2, "optimizer", False), (2, "optimizer", True), (3, "optimizer", False), (3, "optimizer", True)}
        expected |= {(3, "all", False), (3, "all", True)}
    elif method != "prompt":
        expected |= {(3, "none", False), (3, "none", True)}
    assert kinds == expected


def taken(folder: Path) -> RunPlan:
    """The plan as a run takes it."""
    settings = FinetuneSettings(model="m", data="d", output="o", plan=str(folder))
    plan = plan_of(settings)
    planned_settings(settings, plan)
    return plan


def replace_batch(config: Any, processes: int) -> Any:
    """Here there is one process, and both libraries hold the batch of a step against the number of processes."""
    config.config["train_batch_size"] //= processes
    return config
