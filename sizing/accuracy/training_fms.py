"""Rows of IBM's fms-acceleration benches: `sft_trainer.py` on one or two A100s, packed to 4,096 tokens."""

from __future__ import annotations

from typing import Any

from sizing.accuracy.points import UNIT_BYTES, Point
from sizing.accuracy.training_rows import Case, sized
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts


def fms(point: Point, model: ModelFacts) -> Case | str:
    """`scripts/benchmarks/{defaults,scenarios,accelerate}.yaml` at the row's commit: TRL's SFTTrainer with packing,
    gradient checkpointing, flash attention, LoRA of rank 16 on query, key, value and output, Adam by torch's default
    kernel; several GPUs by FSDP's FULL_SHARD.

    transformers 4.48 (refs/requirements.txt): experts are layers of their own, and the loss copies shifted logits, as
    in `transformers-2023`. Runs without `bf16: True` compute in the weights' type. `accelerated-peft` leaves norms,
    embeddings and head in 16 bit. "nvidia" is nvidia-smi's figure less what the card held before.
    """
    base = sized(point)
    if isinstance(base, str):
        return base
    several = point.gpu_count > 1
    common: dict[str, Any] = {
        "checkpointing": True,
        "attention": "flash",
        "framework": "transformers-2023",
        "optimizer_kernel": "foreach",
        "sharding": "fsdp",
        "zero_stage": 3 if several else 0,
        **base,
    }
    if "LoRA" in point.method:
        common |= {"lora_rank": 16, "lora_targets": ("q_proj", "k_proj", "v_proj", "o_proj"), "lora_dropout": 0.1}
    if "GPTQ" in point.precision:
        setup = TrainingSetup(**common, method="qlora", base_dtype="gptq-int4", kept_dtype="bf16", precision="fp16")
    elif "NF4" in point.precision:
        kept = "" if "baseline" in point.method else "bf16"
        setup = TrainingSetup(**common, method="qlora", base_dtype="nf4", kept_dtype=kept, precision="bf16")
    else:
        setup = TrainingSetup(**common, method="lora" if "LoRA" in point.method else "full", precision="pure-bf16")
    return Case(model, setup, "driver" if "nvidia" in point.setting else "allocated", UNIT_BYTES[point.unit])
