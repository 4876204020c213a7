"""Falcon: 7B with one key-value head and one norm a layer, 40B and 180B with grouped heads and two norms."""

from __future__ import annotations

from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_groups,
    flag,
    head_dim_of,
    layer_count,
    output_head,
    positive_int,
    probability,
    text,
)


def layout(config: Config) -> Layout:
    """`falcon`; the first checkpoints say `RefinedWeb` or `RefinedWebModel`, `n_head`, `n_layer` and `n_head_kv`."""
    hidden = positive_int(config, "hidden_size")
    layers = layer_count(config, "num_hidden_layers", "n_layer")
    heads = positive_int(config, "num_attention_heads", "n_head")
    vocab = positive_int(config, "vocab_size")
    ff = positive_int(config, "ffn_hidden_size", default=4 * hidden)
    head_dim = head_dim_of({}, hidden, heads)
    grouped = flag(config, "new_decoder_architecture") or config.get("model_type") == "RefinedWeb"
    if grouped:
        kv_heads = positive_int(config, "num_kv_heads", "n_head_kv", default=heads)
    else:
        kv_heads = 1 if flag(config, "multi_query", True) else heads
    check_groups(heads, kv_heads)
    bias = flag(config, "bias")
    parallel = flag(config, "parallel_attn", True)
    norms = positive_int(config, "num_ln_in_parallel_attn", default=2 if grouped else 1)
    alibi = flag(config, "alibi")
    tied = flag(config, "tie_word_embeddings", True)
    embedding = "transformer.word_embeddings.weight"

    # transformers' FalconLinear adds its bias apart; it is a class of its own.
    t = Tensors()
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    fused = hidden + 2 * kv_heads * head_dim
    t.linear(
        "transformer.h.self_attention.query_key_value", fused, hidden, layers, bias=bias, shard="column", bare=True
    )
    t.linear("transformer.h.self_attention.dense", hidden, hidden, layers, bias=bias, shard="row", bare=True)
    t.linear("transformer.h.mlp.dense_h_to_4h", ff, hidden, layers, bias=bias, shard="column", bare=True)
    t.linear("transformer.h.mlp.dense_4h_to_h", hidden, ff, layers, bias=bias, shard="row", bare=True)
    if grouped and norms == 2:
        t.norm("transformer.h.ln_attn", hidden, layers, bias=True)
        t.norm("transformer.h.ln_mlp", hidden, layers, bias=True)
    else:
        t.norm("transformer.h.input_layernorm", hidden, layers, bias=True)
        if not parallel:
            t.norm("transformer.h.post_attention_layernorm", hidden, layers, bias=True)
    t.norm("transformer.ln_f", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding=embedding, tied=tied)
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
            intermediate_size=ff,
            gated=False,
            attention=(AttentionLayers(layers, kv_heads, head_dim, head_dim),),
            position="alibi" if alibi else "rotary",
            activation=text(config, "activation", "gelu"),
            parallel_residual=parallel,
            dropout=probability(config, "hidden_dropout"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
