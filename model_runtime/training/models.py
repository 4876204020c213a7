"""The model that is trained: loaded at the precision that the method asks, its head, window and adapters set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError, first_line
from model_runtime.load import Architecture, architecture_of, windows
from model_runtime.precision import Device, choose_dtype, find_device, torch_dtype
from model_runtime.training.plan import RunPlan
from model_runtime.training.settings import FinetuneSettings

_NO_WINDOW = 1024
"""Tokens of an input where neither the model nor the settings limit it."""


@dataclass(slots=True)
class Prepared:
    """A model ready to train. `precision`: bf16, fp16 or fp32 of the arithmetic; `labels`: classes, in their order."""

    model: Any
    tokenizer: Any
    architecture: Architecture
    device: Device
    precision: str
    max_input: int
    max_target: int
    notes: tuple[str, ...]


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be read: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{folder}: the tokenizer has neither a pad nor an end token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def architecture_for(folder: Path, form: str) -> tuple[Any, Architecture]:
    """The model's configuration, and how it is trained on data of `form`. Raises `ModelError` where it cannot be."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json, so it is no model of transformers; give the model's folder")
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the configuration cannot be read: {first_line(error)}") from error
    if form == "classification":
        if config.is_encoder_decoder:
            raise ModelError(
                f"{config.model_type} has no classifier here; give input and target (the label as text) instead"
            )
        return config, "encoder-only"
    architecture = architecture_of(config)
    if architecture == "encoder-only":
        raise ModelError(f"a classifier ({config.model_type}) learns text and label, not {form}")
    return config, architecture


def prepare(
    folder: Path, form: str, labels: Sequence[str], settings: FinetuneSettings, plan: RunPlan, *, local_rank: int = 0
) -> Prepared:
    """Load and set up. `TrainingArguments` must have been made before where DeepSpeed shards the weights (ZeRO-3).

    Full fine-tuning keeps fp32 weights under mixed precision; frozen weights are held in the arithmetic's 16 bits.
    """
    config, architecture = architecture_for(folder, form)
    device = find_device(settings.device)
    precision = precision_of(settings, device)
    tokenizer = tokenizer_of(folder)
    notes = list(_window(config, settings))
    max_input, max_target = _limits(config, tokenizer, architecture, settings)
    kept = "fp32" if precision == "fp32" else precision
    planned = plan.details.get("load_dtype")
    stored = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(str(planned), "")
    if not stored:
        stored = "fp32" if settings.method == "full" else kept
    model = _load(folder, config, architecture, settings, plan, device, stored, labels, local_rank)
    model.config.use_cache = False
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if architecture == "encoder-decoder" and model.config.decoder_start_token_id is None:
        model.config.decoder_start_token_id = model.config.pad_token_id
        notes.append(f"no decoder_start_token_id in the configuration: the pad token's ({model.config.pad_token_id})")
    if settings.method != "full":
        model = _adapted(model, architecture, settings, plan)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not trained and not plan.zero_stage:
        raise ModelError("nothing of the model is trained; check lora_targets")
    return Prepared(model, tokenizer, architecture, device, precision, max_input, max_target, tuple(notes))


def precision_of(settings: FinetuneSettings, device: Device) -> str:
    """bf16, fp16 or fp32. auto: bf16 where the GPU has it, else fp32, because fp16 overflows in models made in bf16."""
    if settings.precision == "auto":
        return "bf16" if choose_dtype("auto", device) == "bf16" else "fp32"
    return choose_dtype(settings.precision, device)


def _limits(config: Any, tokenizer: Any, architecture: Architecture, settings: FinetuneSettings) -> tuple[int, int]:
    window, _ = windows(config, tokenizer, architecture)
    window = settings.context_window or window
    asked = settings.max_input_tokens
    if asked and window and asked > window and not settings.context_window and _fixed(config):
        raise ModelError(f"max_input_tokens is {asked}; the model's positions end at {window}")
    if architecture == "decoder-only":
        # Prompt and answer share the window; a plan's lengths are of both together already.
        return min(n for n in (asked, window, _NO_WINDOW if not window else None) if n), settings.max_target_tokens
    limit = asked or window or _NO_WINDOW
    return limit, settings.max_target_tokens or window or _NO_WINDOW


def _fixed(config: Any) -> bool:
    """Whether positions are a table that ends with the window."""
    rotary = getattr(config, "rope_parameters", None)
    relative = getattr(config, "relative_attention_num_buckets", None)
    return not rotary and not relative and not getattr(config, "alibi", False)


def _window(config: Any, settings: FinetuneSettings) -> tuple[str, ...]:
    """Stretch the context window where the architecture allows it."""
    wished = settings.context_window
    own = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not wished or not own or wished <= own:
        return ()
    if getattr(config, "relative_attention_num_buckets", None):
        return (f"context window {wished:,} instead of {own:,}: relative positions reach that far",)
    rotary = getattr(config, "rope_parameters", None)
    if not rotary or "rope_type" not in rotary:
        raise ModelError(
            f"context_window is {wished:,}; the positions of {config.model_type} are a table that ends at {own:,}; "
            "take a model with relative or rotary positions"
        )
    if rotary["rope_type"] != "default":
        raise ModelError(
            f"context_window is {wished:,}; the model's positions are scaled already ({rotary['rope_type']})"
        )
    config.rope_parameters = {**rotary, "rope_type": "linear", "factor": wished / own}
    config.max_position_embeddings = wished
    return (
        f"context window {wished:,} instead of {own:,}: rotary positions interpolated by {wished / own:g} "
        "(Chen et al. 2023, arXiv:2306.15595)",
    )


def _load(
    folder: Path,
    config: Any,
    architecture: Architecture,
    settings: FinetuneSettings,
    plan: RunPlan,
    device: Device,
    stored: str,
    labels: Sequence[str],
    local_rank: int,
) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    auto = {
        "encoder-only": AutoModelForSequenceClassification,
        "decoder-only": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[architecture]
    safe = any(folder.glob("*.safetensors"))
    if not safe and not settings.allow_pickle:
        raise ModelError(f"{folder} has no safetensors; convert it, or set allow_pickle if you trust where it is from")
    arguments: dict[str, Any] = {
        "dtype": torch_dtype(stored),
        "use_safetensors": safe,
        "attn_implementation": plan.details.get("attn_implementation") or settings.attention,
    }
    if arguments["attn_implementation"] == "flash":
        arguments["attn_implementation"] = "flash_attention_2"
    if architecture == "encoder-only":
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
        arguments["ignore_mismatched_sizes"] = True  # another number of classes is another head
    if settings.method == "qlora":
        arguments["quantization_config"] = _quantization(plan, stored, architecture)
        arguments["device_map"] = {"": f"cuda:{local_rank}" if device.kind == "cuda" else "cpu"}
    try:
        return auto.from_pretrained(folder, config=config, **arguments)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from error


def _quantization(plan: RunPlan, stored: str, architecture: Architecture) -> Any:
    from transformers import BitsAndBytesConfig

    given = plan.details.get("quantization") or {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[stored],
    }
    # A classifier's head is new and trained: it stays as it is.
    kept = {"llm_int8_skip_modules": ["classifier", "score"]} if architecture == "encoder-only" else {}
    try:
        return BitsAndBytesConfig(**given, **kept)
    except ImportError as error:
        raise ModelError("qlora needs bitsandbytes: pip install bitsandbytes") from error


def _adapted(model: Any, architecture: Architecture, settings: FinetuneSettings, plan: RunPlan) -> Any:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    kind = {"encoder-decoder": "SEQ_2_SEQ_LM", "decoder-only": "CAUSAL_LM", "encoder-only": "SEQ_CLS"}[architecture]
    if settings.method == "qlora":
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    elif settings.gradient_checkpointing:
        model.enable_input_require_grads()
    arguments: dict[str, Any] = plan.details.get("adapter") or {
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha or 2 * settings.lora_rank,
        "lora_dropout": settings.lora_dropout,
        "target_modules": list(settings.lora_targets) or None,
        "task_type": kind,
    }
    try:
        return get_peft_model(model, LoraConfig(**arguments))
    except ValueError as error:
        raise ModelError(f"the adapter does not fit the model: {first_line(error)}") from error
