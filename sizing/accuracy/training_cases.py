"""From a row about fine-tuning to the run it was measured in, or the reason why Berth makes no estimate for it.

The mapping reads the row's own text. What a source's script fixes for all its rows (framework, LoRA targets, DeepSpeed
configuration, unit) is said once per source, with the file it was read from. Nothing is tuned per row.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from sizing.accuracy import training_huggingface as huggingface
from sizing.accuracy import training_pytorch as pytorch
from sizing.accuracy.points import UNIT_BYTES, Point
from sizing.accuracy.training_fms import fms
from sizing.accuracy.training_rows import (
    COSTS,
    RAN,
    Case,
    Metric,
    Reader,
    about_fitting,
    capacity_of,
    model_of,
    offloads,
    rank_for,
    sized,
    trainable_of,
)
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.trained import lora_targets
from sizing.models.facts import ModelFacts
from sizing.units import GB


def case_of(point: Point) -> Case | str:
    """The run of `point`, or why it is out of scope."""
    if point.task != "training":
        return "not a training row"
    if point.unit in COSTS:
        return "a cost or an efficiency, which `sizing.cost` and `sizing.throughput` answer"
    model = model_of(point)
    if model is None:
        return f"the catalogue has no model '{point.model}'"
    reader = next((found for pattern, found in _READERS if re.match(pattern, point.source)), _by_its_words)
    if point.unit not in RAN:
        return reader(point, model)
    case = reader(replace(point, unit="fit", measured_value="fits"), model)
    if isinstance(case, str) or not capacity_of(point):
        return "a speed, which `sizing.throughput` answers"
    return replace(case, metric="fits", capacity_bytes=capacity_of(point), fits=True, note="it ran, so it fitted")


def _litgpt(point: Point, model: ModelFacts) -> Case | str:
    """litgpt's `finetune/lora.py`: bf16-true, LoRA on the fused query and value of every layer, rank 8, torch's AdamW.
    One GPU: no checkpointing. Several: FSDP with a checkpoint per block, whose frozen parameters stay gathered."""
    base = sized(point)
    if isinstance(base, str):
        return base
    several = point.gpu_count > 1
    quantized = "nf4-dq" if "NF4-DQ" in point.precision else "nf4" if "NF4" in point.precision else ""
    # Query and value rows of the fused projection; the adapter reads the hidden states once for both.
    targets = tuple(t for t in lora_targets(model, TrainingSetup(method="lora")) if t not in ("fc1", "fc2"))
    setup = TrainingSetup(
        method="qlora" if quantized else "lora",
        base_dtype=quantized,
        kept_dtype="bf16" if quantized else "",
        precision="pure-bf16",
        adapter_dtype="bf16",
        lora_targets=targets,
        lora_dropout=0.05,
        framework="litgpt",
        loss="chunked",
        optimizer_kernel="foreach",
        attention="flash",
        gradient_accumulation_steps=128,
        sharding="fsdp",
        zero_stage=2 if several else 0,
        checkpointing=several,
        **base,
    )
    setup = replace(setup, lora_rank=rank_for(model, setup, trainable_of(point) or 0))
    if point.unit == "fit":
        return about_fitting(point, model, setup)
    return Case(model, setup, "allocated", UNIT_BYTES.get(point.unit, 1.0))


QWEN_TARGETS = ("c_attn", "c_proj", "w1", "w2")


def _qwen(point: Point, model: ModelFacts) -> Case | str:
    """`finetune.py` and its shell scripts: gradient checkpointing, LoRA of rank 64 on all linear layers with dropout
    0.05, PEFT 0.5 (fp32 adapters), GPTQ under DeepSpeed ZeRO-2 in fp16, full under ZeRO-3 in bf16. The table says "G";
    10^9 bytes as the driver sees them agree with all four sizes."""
    base = sized(point)
    if isinstance(base, str):
        return base
    common: dict[str, Any] = {
        "framework": "transformers-2023",
        "checkpointing": True,
        "attention": "flash",
        "gradient_accumulation_steps": 8,
        "optimizer_kernel": "foreach",
        "lora_rank": 64,
        "lora_targets": QWEN_TARGETS,
        "lora_dropout": 0.05,
        **base,
    }
    method = point.method
    if method.startswith("Full"):
        setup = TrainingSetup(**{**common, "lora_targets": ()}, precision="bf16", zero_stage=3)
    elif method.startswith("Q-LoRA"):
        # ds_config_zero2.json: buckets of 2e8 elements, double (overlap_comm).
        setup = TrainingSetup(
            **common, method="qlora", base_dtype="gptq-int4", precision="fp16", zero_stage=2, reduce_bucket=2 * 10**8
        )
    else:
        several: dict[str, Any] = {}
        if "multinode" in method:
            several = {"zero_stage": 2, "reduce_bucket": 2 * 10**8, "gpus_per_node": 2}
        elif "ero3" in method:
            several = {"zero_stage": 3}
        setup = TrainingSetup(**common, method="lora", precision="bf16", train_embeddings="emb" in method, **several)
    return Case(model, setup, "driver", GB, devices=point.gpu_count if "total" in point.unit else 1)


def _by_its_words(point: Point, model: ModelFacts) -> Case | str:
    """A source without a reader of its own: the run as the row's text says it."""
    base = sized(point)
    if isinstance(base, str):
        return base
    words = f"{point.method} {point.setting}".lower()
    unit = UNIT_BYTES.get(point.unit.removesuffix("/GPU").removesuffix(" total"))
    if unit is None and point.unit != "fit":
        return f"the unit '{point.unit}' may be GB or GiB, and no reader knows its script"
    if re.search(r"\bpp\d|pipeline", words):
        return "pipeline parallel"
    lengths = re.findall(r"\d+", point.seq_len)
    stage = re.search(r"zero[- ]?(\d)", words)
    fsdp = "fsdp" in words
    precision: Any = "fp32" if "fp32" in point.precision else "fp16" if "fp16" in point.precision else "bf16"
    if "pure" in point.precision:
        precision = "pure-bf16"
    quantized = re.search(r"nf4|4-?bit|int8", point.precision.lower())
    setup = TrainingSetup(
        method="qlora" if "qlora" in words or "q-lora" in words or quantized else "lora" if "lora" in words else "full",
        base_dtype="int8" if "int8" in point.precision.lower() else "",
        precision=precision,
        output_tokens=int(lengths[1]) if model.architecture == "encoder-decoder" and len(lengths) > 1 else 0,
        sharding="fsdp" if fsdp else "zero",
        zero_stage=3 if fsdp else int(stage.group(1)) if stage and stage.group(1) in "0123" else 0,
        offload="all" if offloads(point) and (fsdp or (stage and stage.group(1) == "3")) else "none",
        checkpointing=bool(re.search(r"checkpoint|ckpt(?!=no)", words))
        and not re.search(r"no (activation )?(checkpoint|ckpt)", words),
        attention="flash" if "flash" in words or " fa" in words else "sdpa",
        optimizer="adafactor"
        if "adafactor" in words
        else "adamw8bit"
        if "8-bit" in words or "8bit" in words
        else "adamw",
        framework="litgpt" if "litgpt" in words else "torchtune" if "torchtune" in words else "transformers",
        **base,
    )
    if point.unit == "fit":
        return about_fitting(point, model, setup)
    metric: Metric = "allocated" if "allocated" in words else "reserved" if "reserved" in words else "driver"
    return Case(model, setup, metric, unit or 1.0, devices=point.gpu_count if "total" in point.unit else 1)


_READERS: tuple[tuple[str, Reader], ...] = (
    (r"Lightning-AI/litgpt", _litgpt),
    (r"QwenLM/Qwen", _qwen),
    (r"huggingface/peft@\w+:method_comparison", huggingface.metamath),
    (r"huggingface/peft@\w+:README", huggingface.peft_readme),
    (r"huggingface/peft@\w+:docs", huggingface.peft_docs),
    (r"huggingface/blog@\w+:4bit", huggingface.four_bit_blog),
    (r"huggingface/blog@\w+:(pytorch-fsdp|accelerate-deepspeed)", huggingface.most_that_fits),
    (r"philschmid/deep-learning-pytorch-huggingface(@\w+:training/deepseed-flan-t5| issue)", huggingface.philschmid_t5),
    (r"philschmid/deep-learning-pytorch-huggingface@\w+:training/fsdp-qlora", huggingface.philschmid_llama),
    (
        r"philschmid/deep-learning-pytorch-huggingface@\w+:training/(instruction-tune-llama|deepseed-falcon)",
        huggingface.philschmid_qlora,
    ),
    (r"pytorch/torchtune@\w+:README", pytorch.torchtune),
    (r"pytorch/torchtune@\w+:docs", pytorch.torchtune_tutorials),
    (r"pytorch/torchtitan", pytorch.titan),
    (r"AnswerDotAI/fsdp_qlora", pytorch.fsdp_qlora),
    (r"foundation-model-stack/fms-acceleration", fms),
    (r"stas00/ml-engineering", pytorch.layer),
)
"""Source (a pattern) -> what its scripts fix."""
