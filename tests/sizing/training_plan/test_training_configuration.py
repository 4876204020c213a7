"""The files that run a plan, read by accelerate's, DeepSpeed's, transformers' and PEFT's own parsers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizing.errors import UserError
from sizing.hardware.load import load_hardware
from sizing.models.catalogue import load_catalogue
from sizing.training_plan.configuration import (
    ACCELERATE,
    ARGUMENTS,
    DEEPSPEED,
    PLAN,
    as_text,
    configuration,
    write_configuration,
)
from sizing.training_plan.lengths import lengths_of
from sizing.training_plan.plan import Plan
from sizing.training_plan.search import search
from sizing.training_plan.task import TrainingTask, TrainingWishes

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one GPU": ("google/flan-t5-base", {"methods": ("full",), "instance": "g5.2xlarge"}),
    "sharded": ("google/flan-t5-xl", {"methods": ("full",), "instance": "p4d.24xlarge"}),
    "ZeRO-3": ("google/flan-t5-xxl", {"methods": ("full",), "instance": "p4d.24xlarge"}),
    "offload": ("google/flan-t5-xxl", {"methods": ("full",), "instance": "g5.48xlarge"}),
    "several machines": ("meta-llama/Llama-3.1-70B", {"methods": ("full",), "instance": "p4d.24xlarge"}),
    "fp16": ("openai-community/gpt2", {"methods": ("full",), "instance": "g4dn.12xlarge"}),
    "lora": ("google/flan-t5-xl", {"methods": ("lora",), "instance": "g5.12xlarge"}),
    "qlora": ("meta-llama/Llama-2-7b-hf", {"methods": ("qlora",), "instance": "g4dn.2xlarge"}),
    "int8": ("google/flan-t5-xxl", {"methods": ("lora",), "base_dtype": "int8", "instance": "g5.4xlarge"}),
    "prompt": ("google/flan-t5-xl", {"methods": ("prompt",), "instance": "g5.12xlarge"}),
    "8-bit optimizer": (
        "google/flan-t5-xl",
        {"methods": ("full",), "optimizers": ("adamw8bit",), "instance": "g6.48xlarge"},
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Plan, Path]:
    name, wishes = CASES[request.param]
    model = load_catalogue()[name]
    task = TrainingTask(1000, lengths_of(model, (), 300, 60, None), 2.0)
    plan = search(model, task, load_hardware(), TrainingWishes(**wishes)).recommended
    assert plan is not None
    folder = tmp_path_factory.mktemp("configuration")
    write_configuration(folder, configuration(model, task, plan))
    return request.param, plan, folder


def test_deepspeed_parses_it_and_finds_the_plan_s_numbers(case: tuple[str, Plan, Path]) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    _, plan, folder = case
    setup = plan.setup
    assert (folder / DEEPSPEED).exists() == (setup.zero_stage > 0)
    if not setup.zero_stage:
        return
    written = json.loads((folder / DEEPSPEED).read_text(encoding="utf-8"))
    assert written["train_batch_size"] == plan.global_batch
    # Here there is one rank, and DeepSpeed checks the batch of a step against the number of ranks.
    parsed = DeepSpeedConfig({**written, "train_batch_size": plan.global_batch // setup.gpus})
    assert parsed.train_batch_size * setup.gpus == plan.global_batch
    assert parsed.train_micro_batch_size_per_gpu == setup.micro_batch
    assert parsed.gradient_accumulation_steps == setup.gradient_accumulation_steps
    zero = parsed.zero_config
    assert zero.stage == setup.zero_stage
    assert (zero.offload_optimizer is not None) == (setup.offload != "none")
    assert (zero.offload_param is not None) == (setup.offload == "all")
    assert parsed.bfloat16_config.enabled == (setup.precision == "bf16")
    assert parsed.float16_config.enabled == (setup.precision == "fp16")


def test_accelerate_loads_it(case: tuple[str, Plan, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    _, plan, folder = case
    setup = plan.setup
    loaded = load_config_from_file(str(folder / ACCELERATE))
    assert loaded.num_processes == setup.gpus
    assert loaded.num_machines == plan.nodes
    kind = "DEEPSPEED" if setup.zero_stage else ("MULTI_GPU" if setup.gpus > 1 else "NO")
    assert loaded.distributed_type.value == kind
    if setup.zero_stage:
        monkeypatch.chdir(folder)
        assert Path(loaded.deepspeed_config["deepspeed_config_file"]).exists()
        assert loaded.deepspeed_config["zero3_init_flag"] == (setup.zero_stage == 3)
    else:
        assert loaded.mixed_precision == (setup.precision if setup.precision in ("bf16", "fp16") else "no")


def test_accelerate_s_plugin_keeps_the_precision_of_the_deepspeed_file(
    case: tuple[str, Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.utils import DeepSpeedPlugin

    _, plan, folder = case
    if not plan.setup.zero_stage:
        return
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    plugin = DeepSpeedPlugin(hf_ds_config=str(folder / DEEPSPEED))
    plugin.set_mixed_precision("no")  # what `accelerate launch` passes when its own file names none
    assert plugin.zero_stage == plan.setup.zero_stage
    assert plugin.deepspeed_config["bf16"]["enabled"] == (plan.setup.precision == "bf16")
    assert plugin.gradient_accumulation_steps == plan.setup.gradient_accumulation_steps


def test_transformers_knows_every_training_argument(case: tuple[str, Plan, Path], tmp_path: Path) -> None:
    from transformers import TrainingArguments

    _, plan, folder = case
    arguments = json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))
    # A machine without a GPU refuses 16-bit training, so that the two flags are looked at apart.
    precision = {key: arguments.pop(key) for key in ("bf16", "fp16")}
    made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **arguments)
    assert made.per_device_train_batch_size == plan.setup.micro_batch
    assert made.gradient_accumulation_steps == plan.setup.gradient_accumulation_steps
    assert made.activation_checkpointing == plan.setup.checkpointing
    assert precision == {"bf16": plan.setup.precision == "bf16", "fp16": plan.setup.precision == "fp16"}


def test_peft_and_bitsandbytes_know_their_parts(case: tuple[str, Plan, Path]) -> None:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    name, plan, folder = case
    written = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    if plan.setup.method in ("lora", "qlora"):
        adapter = LoraConfig(**written["adapter"])
        assert adapter.r == plan.setup.lora_rank
        assert adapter.target_modules
    else:
        assert written["adapter"] is None
    if name in ("qlora", "int8"):
        quantized = BitsAndBytesConfig(**written["quantization"])
        assert quantized.load_in_8bit == (name == "int8")
        assert quantized.load_in_4bit == (name == "qlora")
    else:
        assert written["quantization"] is None
    assert written["predicted"]["gpu_driver_bytes"] == plan.memory.device.total_bytes
    assert written["machine"]["instance_type"] == plan.instance.name


def test_yaml_of_a_no_stays_a_text() -> None:
    import yaml

    assert yaml.safe_load(as_text(ACCELERATE, {"mixed_precision": "no", "a": {"b": True}})) == {
        "mixed_precision": "no",
        "a": {"b": True},
    }


def test_the_deepspeed_file_of_another_plan_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / DEEPSPEED).write_text("{}", encoding="utf-8")
    write_configuration(tmp_path, {ACCELERATE: {"num_processes": 1}})
    assert sorted(p.name for p in tmp_path.iterdir()) == [ACCELERATE]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written there"):
        write_configuration(tmp_path / "file" / "inside", {ACCELERATE: {}})
