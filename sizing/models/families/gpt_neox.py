"""GPT-NeoX and Pythia: parallel attention and MLP, fused query-key-value, rotary positions, an untied head."""

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
    text,
)


def layout(config: Config) -> Layout:
    """`gpt_neox`. Checkpoints call the head `embed_out`, transformers 5 `lm_head`."""
    hidden = positive_int(config, "hidden_size")
    layers = layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    vocab = positive_int(config, "vocab_size")
    ff = positive_int(config, "intermediate_size", default=4 * hidden)
    head_dim = head_dim_of({}, hidden, heads)
    bias = flag(config, "attention_bias", True)
    tied = flag(config, "tie_word_embeddings", False)

    t = Tensors()
    t.add("gpt_neox.embed_in.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("gpt_neox.layers.input_layernorm", hidden, layers, bias=True)
    t.norm("gpt_neox.layers.post_attention_layernorm", hidden, layers, bias=True)
    t.linear("gpt_neox.layers.attention.query_key_value", 3 * hidden, hidden, layers, bias=bias, shard="column")
    t.linear("gpt_neox.layers.attention.dense", hidden, hidden, layers, bias=bias, shard="row")
    t.linear("gpt_neox.layers.mlp.dense_h_to_4h", ff, hidden, layers, bias=True, shard="column")
    t.linear("gpt_neox.layers.mlp.dense_4h_to_h", hidden, ff, layers, bias=True, shard="row")
    t.norm("gpt_neox.final_layer_norm", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding="gpt_neox.embed_in.weight", tied=tied)
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
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=False,
            attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
            position="rotary",
            activation=text(config, "hidden_act", "gelu"),
            parallel_residual=flag(config, "use_parallel_residual", True),
            dropout=probability(config, "hidden_dropout"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
