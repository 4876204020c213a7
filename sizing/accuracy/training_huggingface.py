"""Rows measured by Hugging Face's own scripts (PEFT, blog) and by Phil Schmid's notebooks, source by source."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from sizing.accuracy.points import Point, number
from sizing.accuracy.training_rows import (
    Case,
    about_fitting,
    batch_of,
    capacity_of,
    offloads,
    rank_for,
    sized,
    trainable_of,
)
from sizing.memory.training.setup import TrainingSetup
from sizing.models.facts import ModelFacts
from sizing.units import GB, GIB

_METAMATH: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"full FT", {"method": "full"}),
    (r"LoRA-FA", {"method": "lora", "lora_a_frozen": True}),
    (r"LoRA r|AdaLoRA", {"method": "lora"}),
    (r"prompt tuning", {"method": "prompt", "prompt_tokens": 200}),
    (r"p-tuning", {"method": "prompt", "prompt_tokens": 20}),
    (r"LN tuning", {"method": "prompt", "prompt_tokens": 0, "train_norms": True}),
    (r"trainable tokens", {"method": "prompt", "prompt_tokens": 0}),
)


def metamath(point: Point, model: ModelFacts) -> Case | str:
    """PEFT's `method_comparison/MetaMathQA/run.py`: bf16 without autocast, fp32 adapters, sdpa over padded batches, a
    loop that holds the outputs, AdamW with torch's default kernel, most memory reserved after a step."""
    if "average" in point.setting:
        return "an average over batches of unknown lengths"
    found = next((extra for pattern, extra in _METAMATH if re.search(pattern, point.method)), None)
    if found is None:
        return f"Berth makes no estimate for {point.method}"
    base = sized(point)
    if isinstance(base, str):
        return base
    setup = TrainingSetup(
        **found,
        precision="pure-bf16",
        attention="sdpa",
        padded=True,
        keeps_logits=True,
        optimizer_kernel="foreach",
        empty_cache_steps=10,
        **base,
    )
    if setup.method == "lora":
        trained = trainable_of(point) or 0
        one = replace(setup, lora_a_frozen=False)
        setup = replace(setup, lora_rank=rank_for(model, one, trained * (2 if setup.lora_a_frozen else 1)))
    return Case(model, setup, "reserved", GIB)


TWITTER_TOKENS, TWITTER_TARGET, TWITTER_BATCH = 64, 2, 8
"""PEFT 0.2, `examples/conditional_generation`, `causal_language_modeling`: max_length 64, batch 8, class labels."""


def peft_readme(point: Point, model: ModelFacts) -> Case | str:
    """The table of PEFT's README, made with the two example scripts: fp32, batch 8, LoRA of rank 8 with dropout 0.1;
    DeepSpeed is ZeRO-3 with parameters and optimizer on the CPU. The scripts print max_memory_allocated(); torch 1.13's
    AdamW worked tensor by tensor."""
    offloaded = "DeepSpeed" in point.method
    decoder = model.architecture == "decoder-only"
    setup = TrainingSetup(
        method="full" if point.method.startswith("full") else "lora",
        precision="fp32",
        micro_batch=TWITTER_BATCH,
        input_tokens=TWITTER_TOKENS,
        output_tokens=0 if decoder else TWITTER_TARGET,
        lora_rank=8,
        lora_dropout=0.1,
        framework="transformers-2023",
        attention="eager",
        optimizer_kernel="loop",
        keeps_logits=True,
        zero_stage=3 if offloaded else 0,
        offload="all" if offloaded else "none",
        loading="mmap",
    )
    if point.unit == "fit":
        return about_fitting(point, model, setup)
    if point.unit == "GB CPU":
        if not offloaded:
            return "host memory of a process whose model is on the GPU: `sizing.memory.loading` answers"
        return Case(model, setup, "process", GB)
    return Case(model, setup, "allocated", GB)


def peft_docs(point: Point, model: ModelFacts) -> Case | str:
    """PEFT's DeepSpeed and FSDP guides: `examples/sft/run_peft_*.sh` (rank 8 on all linear layers, flash attention,
    checkpointing, packed), and for BART the seq2seq script with everything on the CPU."""
    if number(point.measured_value) is None:
        return f"a range, {point.measured_value}"
    if "bart" in point.model:
        return "the guide's log shows six times what BART's weights, gradients and states take: it is another model's"
    base = sized(point)
    if isinstance(base, str):
        return base
    sharding: Any = "fsdp" if "FSDP" in point.method else "zero"
    quantized = "QLoRA" in point.method
    setup = TrainingSetup(
        method="qlora" if quantized else "lora",
        precision="bf16",
        sharding=sharding,
        zero_stage=3,
        offload="all" if offloads(point) else "none",
        checkpointing=True,
        attention="flash",
        lora_rank=8,
        lora_targets=("all-linear",),
        lora_dropout=0.1,
        gradient_accumulation_steps=4,
        **base,
    )
    if "CPU" in point.unit:
        return Case(model, setup, "host", GB)
    return Case(model, setup, "driver", GB)


def four_bit_blog(point: Point, model: ModelFacts) -> Case | str:
    """ "Making LLMs even more accessible": SFTTrainer, LoRA of rank 64 on query and value, AdamW, one T4 of 16 GB."""
    base = sized(point)
    if isinstance(base, str):
        return base
    int8 = "int8" in point.precision
    setup = TrainingSetup(
        method="qlora",
        base_dtype="int8" if int8 else "nf4",
        precision="bf16",
        checkpointing="ckpt=yes" in point.setting,
        attention="eager",
        framework="transformers-2023",
        lora_rank=64,
        lora_dropout=0.1,
        gradient_accumulation_steps=4,
        optimizer_kernel="foreach",
        **base,
    )
    return about_fitting(point, model, setup)


def most_that_fits(point: Point, model: ModelFacts) -> Case | str:
    """Hugging Face's FSDP and DeepSpeed posts: the largest batch a GPU took. The batch itself must be seen to fit."""
    if "block_size" in point.seq_len:
        if not point.measured_value.startswith("OOM"):
            return "the printed block size of 12 tokens cannot be what was run"
        setup = TrainingSetup(precision="fp32", micro_batch=1, input_tokens=12, gpus=point.gpu_count, attention="eager")
        return replace(
            Case(model, setup, "fits", capacity_bytes=capacity_of(point)), fits=False, note="weights and states alone"
        )
    batch = number(point.measured_value)
    lengths = re.findall(r"\d+", point.seq_len)
    if batch is None or not lengths:
        return "no batch or no length"
    setup = TrainingSetup(
        precision="fp16",
        micro_batch=int(batch),
        input_tokens=int(lengths[0]),
        output_tokens=int(lengths[1]) if len(lengths) > 1 else 0,
        gpus=point.gpu_count,
        zero_stage=2 if "ZeRO-2" in point.method else 0,
        attention="eager",
        framework="transformers-2023",
        optimizer_kernel="foreach",
    )
    case = about_fitting(point, model, setup, note="the largest batch that fitted")
    return replace(case, fits=True) if isinstance(case, Case) else case


_AWS_HOSTS = {
    (4, "V100-16GB"): 244 * GIB,
    (8, "V100-16GB"): 488 * GIB,
    (4, "A10G-24GB"): 384 * GIB,
    (8, "A100-40GB"): 1152 * GIB,
}
"""RAM of p3.8xlarge, p3.16xlarge, g5.24xlarge and p4d.24xlarge, which the post names for these."""


def philschmid_t5(point: Point, model: ModelFacts) -> Case | str:
    """`run_seq2seq_deepspeed.py` with `configs/ds_flan_t5_z3_*.json`: ZeRO-3, "auto" buckets, checkpointing,
    transformers 4.26 (eager attention, scores in fp32)."""
    lengths = re.findall(r"\d+", point.seq_len)
    if len(lengths) < 2:
        return "the row does not say the lengths"
    # "any": no batch ran; the script's own default is 8.
    batch = 8 if point.batch == "any" else batch_of(point)
    if not batch:
        return "the row does not say the batch size"
    offloaded = bool(re.search(r"offload=yes|CPU offload", point.method))
    setup = TrainingSetup(
        precision="fp32" if point.precision == "fp32" else "bf16",
        micro_batch=batch,
        input_tokens=int(lengths[0]),
        output_tokens=int(lengths[1]),
        gpus=point.gpu_count,
        zero_stage=3,
        offload="all" if offloaded else "none",
        checkpointing=True,
        attention="eager",
        framework="transformers-2023",
        # The script loads the model before it makes the training arguments, so zero.Init does not apply.
        loading="sharded",
        zero_init=False,
    )
    if point.unit == "fit":
        case = about_fitting(point, model, setup)
        return (
            replace(case, host_bytes=_AWS_HOSTS.get((point.gpu_count, point.gpu_type), 0.0))
            if isinstance(case, Case)
            else case
        )
    return Case(model, setup, "driver", GB)


def philschmid_llama(point: Point, model: ModelFacts) -> Case | str:
    """`run_fsdp_qlora.py`: NF4 with double quantization, rank 16 on all linear layers, sdpa, FSDP with everything on
    the CPU."""
    base = sized(point)
    if isinstance(base, str):
        return base
    setup = TrainingSetup(
        method="qlora",
        precision="bf16",
        sharding="fsdp",
        zero_stage=3,
        offload="all" if offloads(point) else "none",
        checkpointing=True,
        attention="sdpa",
        lora_rank=16,
        lora_targets=("all-linear",),
        lora_dropout=0.05,
        gradient_accumulation_steps=2,
        optimizer_kernel="foreach",
        **base,
    )
    return Case(model, setup, "host" if "CPU" in point.unit else "driver", GB)


def philschmid_qlora(point: Point, model: ModelFacts) -> Case | str:
    """`instruction-tune-llama-2-int4.ipynb` (rank 64 on every linear layer, paged AdamW in 32 bit) and the Falcon 180B
    notebook (LoRA on all of its linear layers under ZeRO-3, flash attention); both checkpoint and pack."""
    base = sized(point)
    if isinstance(base, str):
        return base
    quantized = "QLoRA" in point.method
    setup = TrainingSetup(
        method="qlora" if quantized else "lora",
        precision="bf16",
        checkpointing=True,
        attention="eager" if "no flash" in point.method else "flash",
        lora_rank=64,
        lora_targets=("all-linear",),
        lora_dropout=0.1,
        paged_optimizer="paged" in point.method,
        zero_stage=0 if quantized else 3,
        framework="transformers-2023",
        optimizer_kernel="foreach",
        **base,
    )
    return about_fitting(point, model, setup)
