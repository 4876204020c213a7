"""From a row about fine-tuning to the run it was measured in, or the reason why Berth makes no estimate for it.

The mapping reads the row's own text. What a source's script fixes for all its rows (framework, LoRA targets, DeepSpeed
configuration, unit) is said once per source, with the file it was read from. Nothing is tuned per row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sizing.accuracy.inference_cases import model_of as model_by_letters
from sizing.accuracy.points import UNIT_BYTES, Point, number
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.trained import lora_targets
from sizing.models.catalogue import load_catalogue
from sizing.models.facts import ModelFacts
from sizing.units import GB, GIB, MIB

MODELS: dict[str, str] = {
    "phi-1.5": "microsoft/phi-1_5",
    "Falcon": "tiiuae/falcon-40b",
    "Falcon-180B": "tiiuae/falcon-180B",
    "Qwen-1.8B": "Qwen/Qwen-1_8B",
    "Qwen-7B": "Qwen/Qwen-7B",
    "Qwen-14B": "Qwen/Qwen-14B",
    "Qwen-72B": "Qwen/Qwen-72B",
    "Llama-3.2-3B": "meta-llama/Llama-3.2-3B",
    "Llama-70B": "meta-llama/Llama-2-70b-hf",
    "Llama-2-70B": "meta-llama/Llama-2-70b-hf",
    "Llama-2-70b-chat": "meta-llama/Llama-2-70b-hf",
    "Llama-2-7B": "meta-llama/Llama-2-7b-hf",
    "Llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-7b": "meta-llama/Llama-2-7b-hf",
    "Llama-3-70B": "meta-llama/Meta-Llama-3-70B",
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    "Llama-3.1-70B": "meta-llama/Llama-3.1-70B",
    "Llama-3-8B": "meta-llama/Meta-Llama-3-8B",
    "Qwen3-8B": "Qwen/Qwen3-8B",
    "Qwen3-4B": "Qwen/Qwen3-4B",
    "DeepSeek-R1-0528-Qwen3-8B": "Qwen/Qwen3-8B",
    "SmolLM2-360M": "HuggingFaceTB/SmolLM2-360M",
    "Mistral-7B-v0.3": "mistralai/Mistral-7B-v0.3",
    "gemma-1.1-2b-it": "google/gemma-1.1-2b-it",
    "FLAN-T5-XL": "google/flan-t5-xl",
    "FLAN-T5-XXL": "google/flan-t5-xxl",
    "facebook/bart-large (doc log)": "facebook/bart-large",
    "deberta-v2-xlarge-mnli": "microsoft/deberta-v2-xlarge",
    "blenderbot-400M-distill": "facebook/blenderbot-400M-distill",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
"""The name in a row -> the catalogue's."""

CARDS: tuple[tuple[str, float], ...] = (
    # nvidia-smi's total.
    (r"A100.*80GB", 81_920 * MIB),
    (r"A100.*40GB", 40_960 * MIB),
    (r"H100-80GB", 81_559 * MIB),
    (r"A10G", 23_028 * MIB),
    (r"T4", 15_360 * MIB),
    (r"V100-16GB", 16_160 * MIB),
    (r"A40-48GB", 46_068 * MIB),
    (r"A6000", 49_140 * MIB),
    (r"RTX (3090|4090)|A5000-24GB|Titan RTX 24GB", 24_564 * MIB),
)
"""GPU of a row (pattern) -> bytes that its driver leaves."""

Metric = Literal["allocated", "reserved", "driver", "host", "process", "layer", "fits"]
"""process: resident memory of the training processes alone, as psutil sees it; host: the machine's."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to estimate for a point: the model, the run, which figure, and in which unit (bytes)."""

    model: ModelFacts
    setup: TrainingSetup
    metric: Metric
    unit_bytes: float = 1.0
    devices: int = 1
    """The measured value is the sum over this many GPUs."""
    capacity_bytes: float = 0.0
    fits: bool | None = None
    host_bytes: float = 0.0
    """RAM of the machine, where the row's instance is known: the run has to fit there, too."""
    note: str = ""


Reader = Callable[[Point, ModelFacts], "Case | str"]
RAN = ("s/iter", "tokens/s", "hours", "minutes", "s", "tokens/s/GPU")
"""Units of rows about time: on a known card they still say that the run fitted."""
COSTS = ("USD", "GPU-hours", "% MFU", "minutes (est. by author)")


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


def model_of(point: Point) -> ModelFacts | None:
    """The catalogue's model that the row names; else by the first letters of its name and its parameters."""
    found = load_catalogue().find(MODELS.get(point.model, point.model))
    return found if found is not None else model_by_letters(point)


def capacity_of(point: Point) -> float:
    """Bytes of the row's GPU, 0 where they are not known."""
    return next((size for pattern, size in CARDS if re.search(pattern, point.gpu_type)), 0.0)


def _batch(point: Point) -> int | None:
    match = re.fullmatch(r"(\d+)(?: \(.*\))?", point.batch)
    return int(match.group(1)) if match else None


def _tokens(point: Point) -> int | None:
    match = re.match(r"(?:src)?(?:<= ?)?(\d+)", point.seq_len)
    return int(match.group(1)) if match else None


def _sized(point: Point) -> dict[str, Any] | str:
    """Batch, length and GPUs as the row gives them."""
    batch, tokens = _batch(point), _tokens(point)
    if not batch:
        return "the row does not say the batch size"
    if not tokens:
        return "the row does not say the sequence length"
    return {"micro_batch": batch, "input_tokens": tokens, "gpus": point.gpu_count}


def _offloads(point: Point) -> bool:
    """Whether the row's method says that something is offloaded (not `offload=no`, `no offload`, `offload=none`)."""
    return "offload" in point.method and not re.search(r"offload=no|no offload", point.method)


def _trainable(point: Point) -> int | None:
    match = re.search(r"trainable=([\d,]+)", point.setting)
    return int(match.group(1).replace(",", "")) if match else None


def _rank_for(model: ModelFacts, setup: TrainingSetup, trained: int) -> int:
    """The LoRA rank that gives `trained` elements over the targets of `setup`."""
    from sizing.memory.training.trained import adapters

    each = sum(a.numel for a in adapters(model, replace(setup, lora_rank=1)))
    return max(1, round(trained / each))


def _about_fitting(point: Point, model: ModelFacts, setup: TrainingSetup, note: str = "") -> Case | str:
    capacity = capacity_of(point)
    if not capacity:
        return "the row does not say which GPU"
    return Case(model, setup, "fits", capacity_bytes=capacity, fits=point.measured_value != "OOM", note=note)


# Sources


def _litgpt(point: Point, model: ModelFacts) -> Case | str:
    """litgpt's `finetune/lora.py`: bf16-true, LoRA on the fused query and value of every layer, rank 8, torch's AdamW.
    One GPU: no checkpointing. Several: FSDP with a checkpoint per block, whose frozen parameters stay gathered."""
    base = _sized(point)
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
    setup = replace(setup, lora_rank=_rank_for(model, setup, _trainable(point) or 0))
    if point.unit == "fit":
        return _about_fitting(point, model, setup)
    return Case(model, setup, "allocated", UNIT_BYTES.get(point.unit, 1.0))


QWEN_TARGETS = ("c_attn", "c_proj", "w1", "w2")


def _qwen(point: Point, model: ModelFacts) -> Case | str:
    """`finetune.py` and its shell scripts: gradient checkpointing, LoRA of rank 64 on all linear layers with dropout
    0.05, PEFT 0.5 (fp32 adapters), GPTQ under DeepSpeed ZeRO-2 in fp16, full under ZeRO-3 in bf16. The table says "G";
    10^9 bytes as the driver sees them agree with all four sizes."""
    base = _sized(point)
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


_METAMATH: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"full FT", {"method": "full"}),
    (r"LoRA-FA", {"method": "lora", "lora_a_frozen": True}),
    (r"LoRA r|AdaLoRA", {"method": "lora"}),
    (r"prompt tuning", {"method": "prompt", "prompt_tokens": 200}),
    (r"p-tuning", {"method": "prompt", "prompt_tokens": 20}),
    (r"LN tuning", {"method": "prompt", "prompt_tokens": 0, "train_norms": True}),
    (r"trainable tokens", {"method": "prompt", "prompt_tokens": 0}),
)


def _metamath(point: Point, model: ModelFacts) -> Case | str:
    """PEFT's `method_comparison/MetaMathQA/run.py`: bf16 without autocast, fp32 adapters, sdpa over padded batches, a
    loop that holds the outputs, AdamW with torch's default kernel, most memory reserved after a step."""
    if "average" in point.setting:
        return "an average over batches of unknown lengths"
    found = next((extra for pattern, extra in _METAMATH if re.search(pattern, point.method)), None)
    if found is None:
        return f"Berth makes no estimate for {point.method}"
    base = _sized(point)
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
        trained = _trainable(point) or 0
        one = replace(setup, lora_a_frozen=False)
        setup = replace(setup, lora_rank=_rank_for(model, one, trained * (2 if setup.lora_a_frozen else 1)))
    return Case(model, setup, "reserved", GIB)


TWITTER_TOKENS, TWITTER_TARGET, TWITTER_BATCH = 64, 2, 8
"""PEFT 0.2, `examples/conditional_generation`, `causal_language_modeling`: max_length 64, batch 8, class labels."""


def _peft_readme(point: Point, model: ModelFacts) -> Case | str:
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
        return _about_fitting(point, model, setup)
    if point.unit == "GB CPU":
        if not offloaded:
            return "host memory of a process whose model is on the GPU: `sizing.memory.loading` answers"
        return Case(model, setup, "process", GB)
    return Case(model, setup, "allocated", GB)


def _peft_docs(point: Point, model: ModelFacts) -> Case | str:
    """PEFT's DeepSpeed and FSDP guides: `examples/sft/run_peft_*.sh` (rank 8 on all linear layers, flash attention,
    checkpointing, packed), and for BART the seq2seq script with everything on the CPU."""
    if number(point.measured_value) is None:
        return f"a range, {point.measured_value}"
    if "bart" in point.model:
        return "the guide's log shows six times what BART's weights, gradients and states take: it is another model's"
    base = _sized(point)
    if isinstance(base, str):
        return base
    sharding: Any = "fsdp" if "FSDP" in point.method else "zero"
    quantized = "QLoRA" in point.method
    setup = TrainingSetup(
        method="qlora" if quantized else "lora",
        precision="bf16",
        sharding=sharding,
        zero_stage=3,
        offload="all" if _offloads(point) else "none",
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


def _four_bit_blog(point: Point, model: ModelFacts) -> Case | str:
    """ "Making LLMs even more accessible": SFTTrainer, LoRA of rank 64 on query and value, AdamW, one T4 of 16 GB."""
    base = _sized(point)
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
    return _about_fitting(point, model, setup)


def _most_that_fits(point: Point, model: ModelFacts) -> Case | str:
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
    case = _about_fitting(point, model, setup, note="the largest batch that fitted")
    return replace(case, fits=True) if isinstance(case, Case) else case


_AWS_HOSTS = {
    (4, "V100-16GB"): 244 * GIB,
    (8, "V100-16GB"): 488 * GIB,
    (4, "A10G-24GB"): 384 * GIB,
    (8, "A100-40GB"): 1152 * GIB,
}
"""RAM of p3.8xlarge, p3.16xlarge, g5.24xlarge and p4d.24xlarge, which the post names for these."""


def _philschmid_t5(point: Point, model: ModelFacts) -> Case | str:
    """`run_seq2seq_deepspeed.py` with `configs/ds_flan_t5_z3_*.json`: ZeRO-3, "auto" buckets, checkpointing,
    transformers 4.26 (eager attention, scores in fp32)."""
    lengths = re.findall(r"\d+", point.seq_len)
    if len(lengths) < 2:
        return "the row does not say the lengths"
    # "any": no batch ran; the script's own default is 8.
    batch = 8 if point.batch == "any" else _batch(point)
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
        case = _about_fitting(point, model, setup)
        return (
            replace(case, host_bytes=_AWS_HOSTS.get((point.gpu_count, point.gpu_type), 0.0))
            if isinstance(case, Case)
            else case
        )
    return Case(model, setup, "driver", GB)


def _philschmid_llama(point: Point, model: ModelFacts) -> Case | str:
    """`run_fsdp_qlora.py`: NF4 with double quantization, rank 16 on all linear layers, sdpa, FSDP with everything on
    the CPU."""
    base = _sized(point)
    if isinstance(base, str):
        return base
    setup = TrainingSetup(
        method="qlora",
        precision="bf16",
        sharding="fsdp",
        zero_stage=3,
        offload="all" if _offloads(point) else "none",
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


TORCHTUNE_TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _torchtune(point: Point, model: ModelFacts) -> Case | str:
    """torchtune's README: its recipes' configurations (`recipes/configs`), packed batches, torch.compile; GiB of
    `active_bytes.all.peak`. On a 24 GB card the memory flags of the single-device configurations are on (checkpointing,
    8-bit paged optimizer stepping in the backward pass); a 48 GB card runs without checkpointing."""
    if "unpacked" in point.method:
        return "batches of unknown lengths"
    base = _sized(point)
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
        offload="all" if _offloads(point) else "none",
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


def _torchtune_tutorials(_point: Point, _model: ModelFacts) -> Case | str:
    return "batches of unknown lengths (alpaca, unpacked)"


FSDP_QLORA_TARGETS = ("k_proj", "q_proj", "v_proj", "up_proj", "down_proj", "gate_proj")


def _fsdp_qlora(point: Point, model: ModelFacts) -> Case | str:
    """`train.py`: bf16, rank 64 on every linear layer but the attention's output, dropout 0.1, checkpointing, sdpa,
    AdamW, transformers 4.38."""
    if "after_model_wrap" in point.setting:
        return "memory before training"
    base = _sized(point)
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
        offload="all" if _offloads(point) else "none",
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


def _layer(point: Point, model: ModelFacts) -> Case | str:
    if not point.method.startswith("one decoder layer"):
        return "Megatron-LM's efficiency, not memory"
    return _one_layer(model)


def _one_layer(model: ModelFacts) -> Case:
    """`activation-memory-per-layer.py`: one layer's forward pass in bf16, 32,384 tokens, in units of the hidden states;
    transformers of mid-2025 expands key and value heads and copies the kernel's output."""
    setup = TrainingSetup(precision="pure-bf16", micro_batch=1, input_tokens=32_384, attention="sdpa", padded=True)
    return Case(model, setup, "layer", 1.0)


def _titan(_point: Point, _model: ModelFacts) -> Case | str:
    return "the row does not say which activations torchtitan's selective checkpointing kept"


def _philschmid_qlora(point: Point, model: ModelFacts) -> Case | str:
    """`instruction-tune-llama-2-int4.ipynb` (rank 64 on every linear layer, paged AdamW in 32 bit) and the Falcon 180B
    notebook (LoRA on all of its linear layers under ZeRO-3, flash attention); both checkpoint and pack."""
    base = _sized(point)
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
    return _about_fitting(point, model, setup)


def _by_its_words(point: Point, model: ModelFacts) -> Case | str:
    """A source without a reader of its own: the run as the row's text says it."""
    base = _sized(point)
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
        offload="all" if _offloads(point) and (fsdp or (stage and stage.group(1) == "3")) else "none",
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
        return _about_fitting(point, model, setup)
    metric: Metric = "allocated" if "allocated" in words else "reserved" if "reserved" in words else "driver"
    return Case(model, setup, metric, unit or 1.0, devices=point.gpu_count if "total" in point.unit else 1)


_READERS: tuple[tuple[str, Reader], ...] = (
    (r"Lightning-AI/litgpt", _litgpt),
    (r"QwenLM/Qwen", _qwen),
    (r"huggingface/peft@\w+:method_comparison", _metamath),
    (r"huggingface/peft@\w+:README", _peft_readme),
    (r"huggingface/peft@\w+:docs", _peft_docs),
    (r"huggingface/blog@\w+:4bit", _four_bit_blog),
    (r"huggingface/blog@\w+:(pytorch-fsdp|accelerate-deepspeed)", _most_that_fits),
    (r"philschmid/deep-learning-pytorch-huggingface(@\w+:training/deepseed-flan-t5| issue)", _philschmid_t5),
    (r"philschmid/deep-learning-pytorch-huggingface@\w+:training/fsdp-qlora", _philschmid_llama),
    (
        r"philschmid/deep-learning-pytorch-huggingface@\w+:training/(instruction-tune-llama|deepseed-falcon)",
        _philschmid_qlora,
    ),
    (r"pytorch/torchtune@\w+:README", _torchtune),
    (r"pytorch/torchtune@\w+:docs", _torchtune_tutorials),
    (r"pytorch/torchtitan", _titan),
    (r"AnswerDotAI/fsdp_qlora", _fsdp_qlora),
    (r"stas00/ml-engineering", _layer),
)
"""Source (a pattern) -> what its scripts fix."""
