"""Gemma 1, 2 and 3: wide heads, tied 256K vocabularies; from 2 on, four norms a layer and sliding layers."""

from __future__ import annotations

from dataclasses import dataclass

from sizing.models.facts import Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_groups,
    flag,
    layer_count,
    output_head,
    positive_int,
    probability,
    section,
    text,
)
from sizing.models.families.llama import attention_layers


@dataclass(frozen=True, slots=True)
class Generation:
    """What a Gemma config leaves to its class: Gemma 3's multimodal checkpoints name only what differs."""

    heads: int
    kv_heads: int
    context: int
    vocab: int
    pattern: int | None
    """Every `pattern`-th layer sees the whole context, the others a window."""
    window: int | None
    sandwich: bool
    """Norms before and after each block, not only before."""
    qk_norm: bool


GENERATIONS: dict[str, Generation] = {
    # Defaults of GemmaConfig, Gemma2Config and Gemma3TextConfig.
    "gemma": Generation(16, 16, 8192, 256_000, None, None, False, False),
    "gemma2": Generation(8, 4, 8192, 256_000, 2, 4096, True, False),
    "gemma3_text": Generation(8, 4, 131_072, 262_208, 6, 4096, True, True),
}
HEAD_DIM = 256


def _decoder(t: Tensors, config: Config, model_type: str, root: str) -> tuple[Stack, int, int]:
    """Adds the decoder's tensors under `root`; returns its stack, vocabulary and context window."""
    generation = GENERATIONS[model_type]
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads", default=generation.heads)
    kv_heads = positive_int(config, "num_key_value_heads", default=generation.kv_heads)
    head_dim = positive_int(config, "head_dim", default=HEAD_DIM)
    ff = positive_int(config, "intermediate_size")
    vocab = positive_int(config, "vocab_size", default=generation.vocab)
    check_groups(heads, kv_heads)
    bias = flag(config, "attention_bias")
    attention = f"{root}.layers.self_attn"

    t.add(f"{root}.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.linear(f"{attention}.q_proj", heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.k_proj", kv_heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.v_proj", kv_heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * head_dim, layers, bias=bias, shard="row")
    if generation.qk_norm:
        t.norm(f"{attention}.q_norm", head_dim, layers)
        t.norm(f"{attention}.k_norm", head_dim, layers)
    t.gated_mlp(f"{root}.layers.mlp", ff, hidden, layers)
    t.norm(f"{root}.layers.input_layernorm", hidden, layers)
    t.norm(f"{root}.layers.post_attention_layernorm", hidden, layers)
    if generation.sandwich:
        t.norm(f"{root}.layers.pre_feedforward_layernorm", hidden, layers)
        t.norm(f"{root}.layers.post_feedforward_layernorm", hidden, layers)
    t.norm(f"{root}.norm", hidden, layered=False)
    windowed: Config = {"sliding_window": generation.window, **config}
    stack = Stack(
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=ff,
        gated=True,
        attention=attention_layers(
            windowed if generation.pattern else {}, layers, kv_heads, head_dim, generation.pattern
        ),
        norm="rmsnorm",
        position="rotary",
        activation=text(config, "hidden_activation", text(config, "hidden_act", "gelu_pytorch_tanh")),
        qk_norm=generation.qk_norm,
        attention_dropout=probability(config, "attention_dropout"),
    )
    return stack, vocab, positive_int(config, "max_position_embeddings", default=generation.context)


def _image_tower(t: Tensors, config: Config, text_hidden: int) -> None:
    """SigLIP's vision encoder and the projection into the decoder (`Gemma3ForConditionalGeneration`)."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    ff, patch = positive_int(config, "intermediate_size"), positive_int(config, "patch_size")
    image, channels = positive_int(config, "image_size"), positive_int(config, "num_channels", default=3)
    root = "model.vision_tower"
    block = f"{root}.encoder.layers"
    t.add(
        f"{root}.embeddings.patch_embedding.weight",
        (hidden, channels, patch, patch),
        part="encoder",
        kind="other",
        layered=False,
    )
    t.add(f"{root}.embeddings.patch_embedding.bias", (hidden,), part="encoder", kind="bias", layered=False)
    t.add(
        f"{root}.embeddings.position_embedding.weight",
        ((image // patch) ** 2, hidden),
        part="encoder",
        kind="position",
        layered=False,
    )
    t.norm(f"{block}.layer_norm1", hidden, layers, bias=True, part="encoder")
    for name in ("k_proj", "v_proj", "q_proj"):
        t.linear(f"{block}.self_attn.{name}", hidden, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.self_attn.out_proj", hidden, hidden, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.layer_norm2", hidden, layers, bias=True, part="encoder")
    t.linear(f"{block}.mlp.fc1", ff, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.mlp.fc2", hidden, ff, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{root}.post_layernorm", hidden, bias=True, part="encoder", layered=False)
    t.add(
        "model.multi_modal_projector.mm_input_projection_weight",
        (hidden, text_hidden),
        part="encoder",
        kind="other",
        layered=False,
    )
    t.norm("model.multi_modal_projector.mm_soft_emb_norm", hidden, part="encoder", layered=False)


def layout(config: Config) -> Layout:
    """`gemma`, `gemma2`, `gemma3_text`, and `gemma3` (text and image; its text shape is in `text_config`)."""
    model_type = str(config["model_type"])
    multimodal = model_type == "gemma3"
    tied = flag(config, "tie_word_embeddings", True)
    root = "model.language_model" if multimodal else "model"
    t = Tensors()
    if multimodal:
        stack, vocab, context = _decoder(t, section(config, "text_config"), "gemma3_text", root)
        _image_tower(t, section(config, "vision_config"), stack.hidden_size)
    else:
        stack, vocab, context = _decoder(t, config, model_type, root)
    output_head(t, config, vocab, stack.hidden_size, embedding=f"{root}.embed_tokens.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=context,
        tied_embeddings=tied,
        decoder=stack,
        notes=("reads images as well; its image tower is loaded with it",) if multimodal else (),
    )
