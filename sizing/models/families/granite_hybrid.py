"""Granite 4: Mamba 2 layers (arXiv:2405.21060) with attention in a few, over experts and an MLP for all tokens."""

from __future__ import annotations

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_experts,
    check_groups,
    flag,
    head_dim_of,
    layer_count,
    output_head,
    positive_int,
    probability,
    shown,
    text,
)

MAMBA, ATTENTION = ("mamba", "linear_attention"), ("attention", "full_attention")
"""How `layer_types` names the two (as published, and as transformers 5 spells them)."""


def layout(config: Config) -> Layout:
    """`granitemoehybrid`. A Mamba layer keeps a state of fixed size for each sequence, whatever its length."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    head_dim = head_dim_of({}, hidden, heads)
    vocab, width = positive_int(config, "vocab_size"), positive_int(config, "intermediate_size")
    shared = positive_int(config, "shared_intermediate_size", default=1024)
    experts = positive_int(config, "num_local_experts", default=0, least=0)
    chosen = positive_int(config, "num_experts_per_tok", default=0, least=0)
    check_groups(heads, kv_heads)
    check_experts(chosen, experts)
    types = config.get("layer_types")
    if not isinstance(types, list) or len(types) != layers or not set(types) <= {*MAMBA, *ATTENTION}:
        raise UserError(
            f"config.json: 'layer_types' is {shown(types)}; it must name mamba or attention for each of {layers} layers"
        )
    attending = sum(kind in ATTENTION for kind in types)
    mamba = layers - attending
    inner = positive_int(config, "mamba_expand", default=2) * hidden
    states = positive_int(config, "mamba_n_heads", default=128)
    groups = positive_int(config, "mamba_n_groups", default=1) * positive_int(config, "mamba_d_state", default=256)
    taps, mixed = positive_int(config, "mamba_d_conv", default=4), inner + 2 * groups
    bias = flag(config, "attention_bias")
    tied = flag(config, "tie_word_embeddings")

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    for name, size in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        t.linear(f"model.layers.self_attn.{name}_proj", size * head_dim, hidden, attending, bias=bias, shard="column")
    t.linear("model.layers.self_attn.o_proj", hidden, heads * head_dim, attending, bias=bias, shard="row")
    block = "model.layers.mamba"
    for name in ("dt_bias", "A_log", "D"):
        t.add(f"{block}.{name}", (states,), mamba, kind="other")
    t.add(f"{block}.conv1d.weight", (mixed, 1, taps), mamba, kind="other")
    if flag(config, "mamba_conv_bias", True):
        t.add(f"{block}.conv1d.bias", (mixed,), mamba, kind="bias")
    projected = flag(config, "mamba_proj_bias")
    t.linear(f"{block}.in_proj", inner + mixed + states, hidden, mamba, bias=projected)
    t.norm(f"{block}.norm", inner, mamba)
    t.linear(f"{block}.out_proj", hidden, inner, mamba, bias=projected)
    if experts:
        t.mixture("model.layers.block_sparse_moe", "router", experts, width, hidden, layers)
    t.linear("model.layers.shared_mlp.input_linear", 2 * shared, hidden, layers, shard="column")
    t.linear("model.layers.shared_mlp.output_linear", hidden, shared, layers, shard="row")
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    # The last inputs of the convolution, and a head's state of size by state.
    state = mixed * taps + inner * positive_int(config, "mamba_d_state", default=256)
    kinds = [AttentionLayers(attending, kv_heads, head_dim, head_dim)] if attending else []
    if mamba:
        kinds.append(AttentionLayers(mamba, 0, 0, 0, state=state))
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=2048),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=chosen * width + shared,
            gated=True,
            attention=tuple(kinds),
            experts=experts,
            experts_per_token=chosen,
            expert_size=width if experts else 0,
            norm="rmsnorm",
            position="rotary" if text(config, "position_embedding_type", "nope") == "rope" else "none",
            activation=text(config, "hidden_act", "silu"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
        notes=(
            f"{mamba} of {layers} layers are Mamba: a state of fixed size a sequence in place of a cache; what their"
            " pass needs is taken as an attention layer's",
        )
        if mamba
        else (),
    )
