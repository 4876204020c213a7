"""The files that run a plan: accelerate's configuration, DeepSpeed's, transformers' training arguments, and the plan.

They hold the plan's numbers and are used as they are: `accelerate launch --config_file accelerate_config.yaml …`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sizing.errors import UserError
from sizing.files import write_whole
from sizing.memory.training.sharding import MAX_LIVE, REUSE_DISTANCE, Buckets
from sizing.memory.training.trained import lora_targets
from sizing.memory.training.weights import base_dtype
from sizing.models.facts import ModelFacts
from sizing.training_plan.plan import Plan
from sizing.training_plan.task import TrainingTask

ACCELERATE, DEEPSPEED = "accelerate_config.yaml", "ds_config.json"
ARGUMENTS, PLAN = "training_arguments.json", "training_plan.json"
_OPTIM = {
    "adamw": "adamw_torch_fused",
    "adamw8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "lion": "lion_32bit",
}
_CLIP = 1.0
"""transformers' own default for `max_grad_norm`."""


def configuration(model: ModelFacts, task: TrainingTask, plan: Plan) -> dict[str, Any]:
    """File name -> content. `ds_config.json` only where ZeRO is used; one GPU and DistributedDataParallel need none."""
    files: dict[str, Any] = {ACCELERATE: accelerate_config(plan)}
    if plan.setup.zero_stage:
        files[DEEPSPEED] = deepspeed_config(model, plan)
    files[ARGUMENTS] = training_arguments(task, plan)
    files[PLAN] = run_plan(model, task, plan)
    return files


def accelerate_config(plan: Plan) -> dict[str, Any]:
    """What `accelerate config` writes. With a DeepSpeed file, precision and accumulation stand there alone: accelerate
    refuses them in both places (`DeepSpeedPlugin`)."""
    setup = plan.setup
    kind = "DEEPSPEED" if setup.zero_stage else ("MULTI_GPU" if setup.gpus > 1 else "NO")
    found: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": kind,
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": plan.nodes,
        "num_processes": setup.gpus,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if setup.zero_stage:
        found["deepspeed_config"] = {
            "deepspeed_config_file": DEEPSPEED,
            "zero3_init_flag": setup.zero_stage == 3,
        }
        if plan.nodes > 1:
            found["deepspeed_config"]["deepspeed_multinode_launcher"] = "standard"
    else:
        found["mixed_precision"] = setup.precision if setup.precision in ("bf16", "fp16") else "no"
    return found


def deepspeed_config(model: ModelFacts, plan: Plan) -> dict[str, Any]:
    """DeepSpeed's configuration, with the bucket sizes that the memory estimate counts."""
    setup = plan.setup
    buckets = Buckets.of(setup, model.hidden_size)
    zero: dict[str, Any] = {
        "stage": setup.zero_stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": buckets.reduce,
    }
    if setup.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": buckets.prefetch,
            "stage3_param_persistence_threshold": buckets.persistence,
            "stage3_max_live_parameters": MAX_LIVE,
            "stage3_max_reuse_distance": REUSE_DISTANCE,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    else:
        zero["allgather_bucket_size"] = buckets.reduce
    if setup.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": setup.pinned}
    if setup.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": setup.pinned}
    found: dict[str, Any] = {
        "train_batch_size": plan.global_batch,
        "train_micro_batch_size_per_gpu": setup.micro_batch,
        "gradient_accumulation_steps": setup.gradient_accumulation_steps,
        "gradient_clipping": _CLIP,
        "bf16": {"enabled": setup.precision == "bf16"},
        "fp16": {"enabled": setup.precision == "fp16"},
        "zero_optimization": zero,
        "steps_per_print": 100,
        "wall_clock_breakdown": False,
    }
    if setup.offload != "none":
        # The learning rate and its kin are the training script's; transformers and accelerate fill them in.
        found["optimizer"] = {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        }
    elif setup.optimizer != "adamw":
        found["zero_allow_untested_optimizer"] = True
    return found


def training_arguments(task: TrainingTask, plan: Plan) -> dict[str, Any]:
    """Keyword arguments of `transformers.TrainingArguments`: what the plan decides, and no more."""
    setup = plan.setup
    found: dict[str, Any] = {
        "per_device_train_batch_size": setup.micro_batch,
        "gradient_accumulation_steps": setup.gradient_accumulation_steps,
        "num_train_epochs": task.epochs,
        "bf16": setup.precision == "bf16",
        "fp16": setup.precision == "fp16",
        "activation_checkpointing": setup.checkpointing,
        "max_grad_norm": _CLIP,
        "optim": "adamw_torch" if setup.offload != "none" else _OPTIM[setup.optimizer],
    }
    if setup.checkpointing:
        found["activation_checkpointing_kwargs"] = {"use_reentrant": False}
    if setup.gpus > 1 and not setup.zero_stage:
        found["ddp_find_unused_parameters"] = False
    return found


def run_plan(model: ModelFacts, task: TrainingTask, plan: Plan) -> dict[str, Any]:
    """What no other file holds: the method and its parts, the lengths, the machine, and what was predicted."""
    setup, device = plan.setup, plan.memory.device
    compute = {"bf16": "bfloat16", "pure-bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[setup.precision]
    held = base_dtype(setup) if setup.method != "full" else None
    return {
        "model": model.name,
        "method": setup.method,
        "precision": setup.precision,
        "load_dtype": compute
        if setup.precision == "pure-bf16" or setup.zero_stage or setup.method != "full"
        else "float32",
        "attn_implementation": setup.attention,
        "adapter": _adapter(model, plan),
        "prompt_tokens": setup.prompt_tokens if setup.method == "prompt" else None,
        "quantization": _quantization(
            held.name if held and held.quantized else "", compute, sharded=setup.zero_stage == 3
        ),
        "max_input_tokens": task.lengths.input_tokens,
        "max_output_tokens": task.lengths.output_tokens or None,
        "context_window": model.context_window,
        "examples": task.examples,
        "epochs": task.epochs,
        "global_batch": plan.global_batch,
        "steps": plan.steps,
        "machine": {
            "instance_type": plan.instance.name,
            "nodes": plan.nodes,
            "gpus": setup.gpus,
            "region": plan.region,
            "pay": plan.pay,
        },
        "predicted": {
            "gpu_allocated_bytes": device.total("allocated"),
            "gpu_reserved_bytes": device.total("reserved"),
            "gpu_driver_bytes": device.total("driver"),
            "host_bytes": plan.memory.host.total_bytes,
            "step_s": round(plan.time.step.total, 4),
            "hours": plan.time.hours.to_json(3),
            "usd": plan.usd.to_json(2),
        },
    }


def _adapter(model: ModelFacts, plan: Plan) -> dict[str, Any] | None:
    """Keyword arguments of `peft.LoraConfig`; alpha is twice the rank, as published recipes have it."""
    setup = plan.setup
    if setup.method not in ("lora", "qlora"):
        return None
    task_type = {"encoder-decoder": "SEQ_2_SEQ_LM", "decoder-only": "CAUSAL_LM", "encoder-only": "SEQ_CLS"}
    return {
        "r": setup.lora_rank,
        "lora_alpha": 2 * setup.lora_rank,
        "lora_dropout": setup.lora_dropout,
        "target_modules": list(lora_targets(model, setup)),
        "task_type": task_type[model.architecture],
    }


def _quantization(base: str, compute: str, *, sharded: bool) -> dict[str, Any] | None:
    """Keyword arguments of `transformers.BitsAndBytesConfig`. ZeRO-3 shards 4-bit weights only when they are stored in
    the type of the others (PEFT's guide to DeepSpeed and QLoRA)."""
    if base == "int8":
        return {"load_in_8bit": True}
    if base in ("nf4", "nf4-dq"):
        found: dict[str, Any] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": base == "nf4-dq",
            "bnb_4bit_compute_dtype": compute,
        }
        if sharded:
            found["bnb_4bit_quant_storage"] = compute
        return found
    return None


def as_text(name: str, content: Any) -> str:
    """A file's text: YAML for accelerate's, JSON for the others."""
    if name.endswith(".yaml"):
        return "\n".join(_yaml(content)) + "\n"
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_configuration(folder: Path, files: dict[str, Any]) -> tuple[Path, ...]:
    """Write the files into `folder`, each whole or not at all; a `ds_config.json` of another plan is taken away.

    Raises `UserError` where the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = tuple(_write(folder / name, as_text(name, content)) for name, content in files.items())
        if DEEPSPEED not in files:
            (folder / DEEPSPEED).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the configuration cannot be written there: {error.strerror}") from None
    return written


def _write(path: Path, text: str) -> Path:
    write_whole(path, text.encode())
    return path


def _yaml(values: dict[str, Any], indent: str = "") -> list[str]:
    """A mapping of plain values and mappings as YAML; texts are quoted, so that "no" stays one."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_yaml(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(value)}")
    return lines
