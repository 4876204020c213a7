"""From a setup to how its layers run: `Recipe` (widths, adapters, kernels) and `Dialect` (how they are written)."""

from __future__ import annotations

from dataclasses import replace

from sizing.memory.training.dialects import Dialect, dialect_of
from sizing.memory.training.recipe import Recipe
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.sharding import deepspeed, fsdp
from sizing.memory.training.states import adapter_width
from sizing.memory.training.trained import lora_targets
from sizing.memory.training.weights import base_dtype, kept_width, mixed, weight_width
from sizing.models.facts import ModelFacts

LITGPT_FUSED = "attn"
"""litgpt's one projection for query, key and value."""


def autocast(setup: TrainingSetup) -> bool:
    """Whether the forward pass runs under torch.autocast."""
    return mixed(setup) and not deepspeed(setup) and not fsdp(setup)


def recipe_for(model: ModelFacts, setup: TrainingSetup) -> Recipe:
    """Widths and switches of a run.

    bf16 or fp16 under DeepSpeed, FSDP or a 16-bit frozen model: the modules are 16-bit. Otherwise torch.autocast over
    fp32 weights (what the Trainer does with `bf16=True`). A model quantized by bitsandbytes runs under autocast over
    fp32 norms and embeddings after `prepare_model_for_kbit_training`.
    """
    full = setup.method == "full"
    shared = {
        "kernel": setup.attention,
        "cuda": setup.backend == "cuda",
        "shard": setup.tensor_parallel,
        "compiled": setup.compiled,
        "padded": setup.padded,
        "norms_trained": full or setup.train_norms,
        "full": full,
        "autocast": 2 if autocast(setup) else 0,
    }
    if full:
        width = weight_width(setup)
        return Recipe(weights=width, kept=width, stream=width, compute=2 if width == 2 else 4, **shared)  # type: ignore[arg-type]
    dtype = base_dtype(setup)
    kind = ""
    kept = int(dtype.kept_bytes)
    weights: float = dtype.weight_bytes
    if dtype.quantized:
        kind = "int8" if dtype.name == "int8" else "4bit" if dtype.name.startswith("nf4") else "gptq"
        kept = kept_width(setup)
    if setup.method == "prompt":
        return Recipe(weights=weights, kept=kept, stream=kept, quantized=kind, **shared)  # type: ignore[arg-type]
    targets, rank, scattered = lora_targets(model, setup), setup.lora_rank, 0.0
    if setup.framework == "litgpt":
        stack = model.main
        fused = stack.heads + 2 * stack.kv_heads
        # Query and value of the fused projection share one input; each has matrices of its own.
        targets, rank, scattered = (LITGPT_FUSED,), 2 * rank, (stack.heads + stack.kv_heads) / fused
    return Recipe(
        weights=weights,
        kept=kept,
        stream=kept,
        quantized=kind,  # type: ignore[arg-type]
        targets=targets,
        rank=rank,
        scattered_adapter=scattered,
        keeps_4bit_input=setup.framework in ("litgpt", "transformers-2023"),
        adapter=adapter_width(setup),
        adapter_dropout=setup.lora_dropout,
        adapter_a_trained=not setup.lora_a_frozen,
        **shared,  # type: ignore[arg-type]
    )


def dialect_for(model: ModelFacts, setup: TrainingSetup) -> Dialect:
    """The model type's dialect, as the framework of the run writes it."""
    found = dialect_of(model)
    if setup.framework == "transformers-2023":
        if model.model_type in ("t5", "mt5", "umt5"):
            # softmax(scores.float()).type_as(scores)
            found = replace(found, softmax="float")
        found = replace(found, loss_fp32=model.model_type in ("llama", "mistral", "mixtral", "gptj", "phi", "gemma"))
        found = replace(found, repeats_kv=True)
    elif setup.framework == "litgpt":
        # litgpt/model.py: torch's own GELU, keys and values expanded to all heads, the loss on 16-bit logits.
        gelu = "gelu" if (found.activation or model.main.activation).startswith("gelu") else found.activation
        found = replace(found, loss_fp32=False, repeats_kv=True, activation=gelu, qkv=(LITGPT_FUSED,))
    return found
