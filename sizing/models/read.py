"""From a `config.json` to `ModelFacts`: the one way in, for the catalogue, a folder and the hub alike."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sizing.errors import UserError
from sizing.models.facts import ModelFacts
from sizing.models.families.layout import Config, Layout

FAMILIES: dict[str, str] = {
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "granite": "llama",
}
"""transformers' `model_type` -> the module of `sizing.models.families` that lays it out."""


def layout_of(config: Config) -> Layout:
    """The tensors and shape that `config` describes. Raises `UserError` for a type no family knows or a bad field."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError("config.json lacks 'model_type'; a model's family cannot be told without it")
    if model_type not in FAMILIES:
        raise UserError(
            f"model type '{model_type}' has no layout in Berth yet; known: {', '.join(sorted(FAMILIES))}"
        )
    module = import_module(f"sizing.models.families.{FAMILIES[model_type]}")
    layout: Layout = module.layout(config)
    return layout


def facts_from_config(config: Config, *, name: str, family: str = "", **rest: Any) -> ModelFacts:
    """`ModelFacts` of the model that `config` (a `config.json`) describes; `rest` are further `ModelFacts` fields."""
    layout = layout_of(config)
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
        published_dtype=rest.pop(
            "published_dtype", str(config.get("torch_dtype") or config.get("dtype") or "unknown").removeprefix("torch.")
        ),
        tied_embeddings=layout.tied_embeddings,
        encoder=layout.encoder,
        decoder=layout.decoder,
        notes=notes,
        **rest,
    )
