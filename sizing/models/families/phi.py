"""Phi-1, 1.5 and 2: parallel attention and MLP on one norm, partial rotary positions, biases everywhere."""

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
    """`phi` (transformers' spelling: `hidden_size`, `intermediate_size`)."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    head_dim = head_dim_of(config, hidden, heads)
    check_groups(heads, kv_heads)
    tied = flag(config, "tie_word_embeddings")
    qk_norm = flag(config, "qk_layernorm")
    attention = "model.layers.self_attn"

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.linear(f"{attention}.q_proj", heads * head_dim, hidden, layers, bias=True, shard="column")
    t.linear(f"{attention}.k_proj", kv_heads * head_dim, hidden, layers, bias=True, shard="column")
    t.linear(f"{attention}.v_proj", kv_heads * head_dim, hidden, layers, bias=True, shard="column")
    t.linear(f"{attention}.dense", hidden, heads * head_dim, layers, bias=True, shard="row")
    if qk_norm:
        t.norm(f"{attention}.q_layernorm", hidden // heads, layers, bias=True)
        t.norm(f"{attention}.k_layernorm", hidden // heads, layers, bias=True)
    t.linear("model.layers.mlp.fc1", ff, hidden, layers, bias=True, shard="column")
    t.linear("model.layers.mlp.fc2", hidden, ff, layers, bias=True, shard="row")
    t.norm("model.layers.input_layernorm", hidden, layers, bias=True)
    t.norm("model.final_layernorm", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied, bias=True)
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
            position="rotary",
            activation=text(config, "hidden_act", "gelu_new"),
            qk_norm=qk_norm,
            parallel_residual=True,
            dropout=probability(config, "resid_pdrop"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
