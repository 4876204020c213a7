"""Mistral Small 3.1 and later: Mistral's decoder (`text_config`) behind a Pixtral image tower (`vision_config`)."""

from __future__ import annotations

from dataclasses import replace

from sizing.errors import UserError
from sizing.models.families import llama
from sizing.models.families.layout import Config, Layout, Tensors, flag, layer_count, positive_int, section


def layout(config: Config) -> Layout:
    """`mistral3`."""
    language = {"model_type": "mistral", **section(config, "text_config")}
    # A config that says nothing of a window has none: the multimodal checkpoints write null.
    language.setdefault("sliding_window", None)
    language.setdefault("tie_word_embeddings", flag(config, "tie_word_embeddings"))
    text_part = llama.layout(language)
    vision = section(config, "vision_config")
    hidden, layers = positive_int(vision, "hidden_size"), layer_count(vision, "num_hidden_layers")
    ff, patch = positive_int(vision, "intermediate_size"), positive_int(vision, "patch_size")
    channels, merge = (
        positive_int(vision, "num_channels", default=3),
        positive_int(config, "spatial_merge_size", default=2),
    )
    bias = flag(config, "multimodal_projector_bias")
    decoder = text_part.decoder
    if decoder is None:
        raise UserError("config.json describes no decoder")
    t = Tensors()
    root, project = "model.vision_tower", "model.multi_modal_projector"
    t.add(f"{root}.patch_conv.weight", (hidden, channels, patch, patch), part="encoder", kind="other", layered=False)
    t.norm(f"{root}.ln_pre", hidden, part="encoder", layered=False)
    block = f"{root}.transformer.layers"
    for name in ("k_proj", "v_proj", "q_proj", "o_proj"):
        t.linear(f"{block}.attention.{name}", hidden, hidden, layers, part="encoder")
    for name in ("gate_proj", "up_proj"):
        t.linear(f"{block}.feed_forward.{name}", ff, hidden, layers, part="encoder")
    t.linear(f"{block}.feed_forward.down_proj", hidden, ff, layers, part="encoder")
    t.norm(f"{block}.attention_norm", hidden, layers, part="encoder")
    t.norm(f"{block}.ffn_norm", hidden, layers, part="encoder")
    t.norm(f"{project}.norm", hidden, part="encoder", layered=False)
    merged = hidden * merge**2
    t.linear(f"{project}.patch_merger.merging_layer", hidden, merged, part="encoder", layered=False)
    t.linear(f"{project}.linear_1", decoder.hidden_size, hidden, bias=bias, part="encoder", layered=False)
    t.linear(f"{project}.linear_2", decoder.hidden_size, decoder.hidden_size, bias=bias, part="encoder", layered=False)
    named = tuple(replace(x, name=x.name.replace("model.", "model.language_model.", 1)) for x in text_part.tensors)
    tied = tuple(replace(x, tied_to="model.language_model.embed_tokens.weight") if x.tied_to else x for x in named)
    return replace(
        text_part,
        tensors=tied + t.done(),
        notes=("reads images as well; its image tower is loaded with it",),
    )
