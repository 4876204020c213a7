"""From a `config.json` to `ModelFacts`: the one way in, for the catalogue, a folder and the hub alike."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sizing.errors import UserError
from sizing.models.facts import ModelFacts
from sizing.models.families.layout import Config, Layout, shown

FAMILIES: dict[str, str] = {
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "granite": "llama",
    "smollm3": "llama",
    "olmo2": "relatives",
    "olmo3": "relatives",
    "starcoder2": "relatives",
    "cohere": "relatives",
    "cohere2": "relatives",
    "glm": "relatives",
    "glm4": "relatives",
    "nemotron": "relatives",
    "stablelm": "relatives",
    "seed_oss": "relatives",
    "ernie4_5": "relatives",
    "granitemoe": "relatives",
    "olmoe": "relatives",
    "glm4_moe": "relatives",
    "mistral3": "mistral3",
    "granitemoehybrid": "granite_hybrid",
    "modernbert": "modernbert",
    "mixtral": "mixture",
    "qwen2_moe": "mixture",
    "qwen3_moe": "mixture",
    "falcon": "falcon",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "gpt2": "gpt2",
    "gpt_bigcode": "gpt2",
    "gptj": "gptj",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "bloom": "bloom",
    "mpt": "mpt",
    "opt": "opt",
    "phi": "phi",
    "phi3": "phi3",
    "qwen": "qwen",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3_text": "gemma",
    "gpt_oss": "gpt_oss",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "xlnet": "xlnet",
    "bart": "bart",
    "mbart": "bart",
    "blenderbot": "bart",
    "pegasus": "bart",
    "marian": "bart",
    "m2m_100": "bart",
    "bert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "camembert": "bert",
    "distilbert": "bert",
    "albert": "bert",
    "deberta": "deberta",
    "deberta-v2": "deberta",
}
"""transformers' `model_type` -> the module of `sizing.models.families` that lays it out."""


PARAMETER_LIMIT = 10**14
"""A hundred times the largest published model."""


def layout_of(config: Config) -> Layout:
    """The tensors and shape that `config` describes. Raises `UserError` for a type no family knows or a bad field."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError("config.json lacks 'model_type'; a model's family cannot be told without it")
    if model_type not in FAMILIES:
        raise UserError(
            f"config.json: model type {shown(model_type)} is none of Berth's families, and without a safetensors header"
            f" its size cannot be read; known: {', '.join(sorted(FAMILIES))}"
        )
    module = import_module(f"sizing.models.families.{FAMILIES[model_type]}")
    layout: Layout = module.layout(config)
    return layout


def published_dtype(config: Config) -> str:
    """The dtype that the checkpoint was saved in, in Berth's spelling (`fp32`, `fp16`, `bf16`); `unknown` if unsaid."""
    written = str(config.get("torch_dtype") or config.get("dtype") or "unknown").removeprefix("torch.")
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(written, "unknown")


def facts_from_config(config: Config, *, name: str, family: str = "", **rest: Any) -> ModelFacts:
    """`ModelFacts` of the model that `config` (a `config.json`) describes; `rest` are further `ModelFacts` fields."""
    layout = layout_of(config)
    if layout.params > PARAMETER_LIMIT:
        raise UserError(
            f"config.json describes {layout.params:.3g} parameters; no model goes beyond {PARAMETER_LIMIT:.0e}"
        )
    notes = tuple(rest.pop("notes", ())) + layout.notes
    return ModelFacts(
        name=name,
        family=family or str(config["model_type"]),
        model_type=str(config["model_type"]),
        architecture=layout.architecture,
        params=rest.pop("params", layout.params),
        tensors=layout.tensors,
        vocab_size=layout.vocab_size,
        context_window=rest.pop("context_window", layout.context_window),
        published_dtype=rest.pop("published_dtype", published_dtype(config)),
        tied_embeddings=layout.tied_embeddings,
        encoder=layout.encoder,
        decoder=layout.decoder,
        notes=notes,
        **rest,
    )
