"""Qwen, first generation: fused, biased query-key-value projection, an MLP of three matrices (arXiv:2309.16609)."""

from __future__ import annotations

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    flag,
    layer_count,
    output_head,
    positive_int,
    probability,
)


def layout(config: Config) -> Layout:
    """`qwen`. Its `intermediate_size` counts both halves of the gated MLP; a token passes half of it."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, head_dim = positive_int(config, "num_attention_heads"), positive_int(config, "kv_channels", default=128)
    both, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    if both % 2:
        raise UserError(f"config.json: 'intermediate_size' is {both}; a Qwen MLP needs an even number")
    ff = both // 2
    inner = heads * head_dim
    bias = not flag(config, "no_bias", True)
    tied = flag(config, "tie_word_embeddings")

    t = Tensors()
    t.add("transformer.wte.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("transformer.h.ln_1", hidden, layers)
    t.linear("transformer.h.attn.c_attn", 3 * inner, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.attn.c_proj", hidden, inner, layers, bias=bias, shard="row")
    t.norm("transformer.h.ln_2", hidden, layers)
    t.linear("transformer.h.mlp.w1", ff, hidden, layers, bias=bias, shard="column")
    t.linear("transformer.h.mlp.w2", ff, hidden, layers, bias=bias, shard="column")
    t.linear("transformer.h.mlp.c_proj", hidden, ff, layers, bias=bias, shard="row")
    t.norm("transformer.ln_f", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="transformer.wte.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "seq_length", "max_position_embeddings", default=8192),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=True,
            attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
            norm="rmsnorm",
            position="rotary",
            activation="silu",
            dropout=probability(config, "emb_dropout_prob"),
            attention_dropout=probability(config, "attn_dropout_prob"),
        ),
    )
