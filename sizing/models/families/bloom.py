"""BLOOM and BLOOMZ: ALiBi instead of positions, a norm on the embeddings, a tied head (arXiv:2211.05100)."""

from __future__ import annotations

from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    flag,
    head_dim_of,
    layer_count,
    output_head,
    positive_int,
    probability,
)

TRAINED_CONTEXT = 2048
"""Tokens a sequence in training (arXiv:2211.05100, table 3); ALiBi sets no limit of its own."""


def layout(config: Config) -> Layout:
    """`bloom`. Older configs call the width `n_embed` and the heads `num_attention_heads`."""
    hidden = positive_int(config, "hidden_size", "n_embed")
    layers = layer_count(config, "n_layer", "num_hidden_layers")
    heads = positive_int(config, "n_head", "num_attention_heads")
    vocab = positive_int(config, "vocab_size")
    head_dim = head_dim_of({}, hidden, heads)
    ff = 4 * hidden
    tied = flag(config, "tie_word_embeddings", True)
    embedding = "transformer.word_embeddings.weight"

    t = Tensors()
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("transformer.word_embeddings_layernorm", hidden, bias=True, layered=False)
    t.norm("transformer.h.input_layernorm", hidden, layers, bias=True)
    t.linear("transformer.h.self_attention.query_key_value", 3 * hidden, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.self_attention.dense", hidden, hidden, layers, bias=True, shard="row")
    t.norm("transformer.h.post_attention_layernorm", hidden, layers, bias=True)
    t.linear("transformer.h.mlp.dense_h_to_4h", ff, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.mlp.dense_4h_to_h", hidden, ff, layers, bias=True, shard="row")
    t.norm("transformer.ln_f", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding=embedding, tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "seq_length", default=TRAINED_CONTEXT),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=False,
            attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
            position="alibi",
            activation="bloom_gelu",
            dropout=probability(config, "hidden_dropout"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
        notes=("ALiBi: longer inputs run, but the model was trained on the context window given",),
    )
