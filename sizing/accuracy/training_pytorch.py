"""Rows measured by torchtune, torchtitan, fsdp_qlora and single layers, source by source."""

from __future__ import annotations

from typing import Any

from sizing.accuracy.points import Point
from sizing.accuracy.training_rows import (
    Case,
    offloads,
    sized,
)
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.units import GIB

TORCHTUNE_TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def torchtune(point: Point, model: ModelFacts) -> Case | str:
    """torchtune's README: its recipes' configurations (`recipes/configs`), packed batches, torch.compile; GiB of
    `active_bytes.all.peak`. On a 24 GB card the memory flags of the single-device configurations are on (checkpointing,
    8-bit paged optimizer stepping in the backward pass); a 48 GB card runs without checkpointing."""
    if "unpacked" in point.method:
        return "batches of unknown lengths"
    base = sized(point)
    if isinstance(base, str):
        return base
    common: dict[str, Any] = {
        "precision": "pure-bf16",
        "framework": "torchtune",
        "attention": "flash",
        "compiled": True,
        "loss": "chunked",
        "optimizer_kernel": "fused",
        **base,
    }
    if "cumulative" in point.method or "packed,compile" in point.method or "(same)" in point.method:
        return Case(model, _ablation(point, common), "allocated", GIB)
    small = "4090" in point.gpu_type
    several = point.gpu_count > 1
    lora = "LoRA" in point.method
    setup = TrainingSetup(
        **common,
        method="qlora" if "QLoRA" in point.method else "lora" if lora else "full",
        kept_dtype="bf16",
        adapter_dtype="bf16",
        base_dtype="nf4-dq" if "QLoRA" in point.method else "",
        lora_rank=16 if several else 8,
        lora_targets=TORCHTUNE_TARGETS if lora else (),
        checkpointing=small or several,
        sharding="fsdp",
        zero_stage=3 if several else 0,
        offload="all" if offloads(point) else "none",
        optimizer="adamw" if lora or several else "adamw8bit",
        paged_optimizer=not lora and not several,
        optimizer_in_backward=not lora and not several,
    )
    return Case(model, setup, "allocated", GIB)


_STEPS = (
    "packed",
    "compile",
    "chunked",
    "activation checkpointing",
    "optimizer in backward",
    "activation offloading",
    "8-bit",
)


def _ablation(point: Point, common: dict[str, Any]) -> TrainingSetup:
    """The README's table of techniques, each on top of the ones before it."""
    lora = "cumulative" not in point.method
    reached = len(_STEPS) if lora else max(i for i, step in enumerate(_STEPS) if step in point.method)
    on = {step: i <= reached for i, step in enumerate(_STEPS)}
    quantized = "QLoRA" in point.method
    return TrainingSetup(
        **{
            **common,
            "compiled": on["compile"],
            "loss": "chunked" if on["chunked"] else "plain",
            "checkpointing": on["activation checkpointing"],
            "optimizer_in_backward": on["optimizer in backward"] and not lora,
            "offload_activations": on["activation offloading"],
            "optimizer": "adamw8bit" if on["8-bit"] and not lora else "adamw",
            "method": "qlora" if quantized else "lora" if lora else "full",
            "base_dtype": "nf4-dq" if quantized else "",
            "kept_dtype": "bf16",
            "adapter_dtype": "bf16",
            "lora_rank": 64,
            "lora_targets": TORCHTUNE_TARGETS if lora else (),
        }
    )


def torchtune_tutorials(_point: Point, _model: ModelFacts) -> Case | str:
    return "batches of unknown lengths (alpaca, unpacked)"


FSDP_QLORA_TARGETS = ("k_proj", "q_proj", "v_proj", "up_proj", "down_proj", "gate_proj")


def fsdp_qlora(point: Point, model: ModelFacts) -> Case | str:
    """`train.py`: bf16, rank 64 on every linear layer but the attention's output, dropout 0.1, checkpointing, sdpa,
    AdamW, transformers 4.38."""
    if "after_model_wrap" in point.setting:
        return "memory before training"
    base = sized(point)
    if isinstance(base, str):
        return base
    ddp = "DDP" in point.method
    setup = TrainingSetup(
        method="qlora" if "QLoRA" in point.method else "lora",
        base_dtype="nf4" if "QLoRA" in point.method else "",
        kept_dtype="bf16",
        adapter_dtype="bf16",
        # The script turns the whole model to bf16 and runs without autocast, whether sharded or not.
        precision="pure-bf16",
        sharding="fsdp",
        zero_stage=0 if ddp else 3,
        offload="all" if offloads(point) else "none",
        checkpointing=True,
        attention="sdpa",
        framework="transformers-2023",
        optimizer_kernel="foreach",
        keeps_logits=True,
        lora_rank=64,
        lora_targets=FSDP_QLORA_TARGETS,
        lora_dropout=0.1,
        **base,
    )
    return Case(model, setup, "allocated" if "allocated" in point.setting else "reserved", GIB)


def layer(point: Point, model: ModelFacts) -> Case | str:
    if not point.method.startswith("one decoder layer"):
        return "Megatron-LM's efficiency, not memory"
    return _one_layer(model)


def _one_layer(model: ModelFacts) -> Case:
    """`activation-memory-per-layer.py`: one layer's forward pass in bf16, 32,384 tokens, in units of the hidden states;
    transformers of mid-2025 expands key and value heads and copies the kernel's output."""
    setup = TrainingSetup(precision="pure-bf16", micro_batch=1, input_tokens=32_384, attention="sdpa", padded=True)
    return Case(model, setup, "layer", 1.0)


def titan(_point: Point, _model: ModelFacts) -> Case | str:
    return "the row does not say which activations torchtitan's selective checkpointing kept"
