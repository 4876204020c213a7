"""Phi-3, Phi-3.5 and Phi-4: LLaMA's layers with query-key-value and gate-up projections fused (arXiv:2404.14219)."""

from __future__ import annotations

from sizing.models.facts import Stack
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
from sizing.models.families.llama import attention_layers


def layout(config: Config) -> Layout:
    """`phi3`."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    head_dim = head_dim_of(config, hidden, heads)
    check_groups(heads, kv_heads)
    tied = flag(config, "tie_word_embeddings")

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.linear("model.layers.self_attn.o_proj", hidden, heads * head_dim, layers, shard="row")
    fused = (heads + 2 * kv_heads) * head_dim
    t.linear("model.layers.self_attn.qkv_proj", fused, hidden, layers, shard="column")
    t.linear("model.layers.mlp.gate_up_proj", 2 * ff, hidden, layers, shard="column")
    t.linear("model.layers.mlp.down_proj", hidden, ff, layers, shard="row")
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=4096),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=True,
            attention=attention_layers(config, layers, kv_heads, head_dim),
            norm="rmsnorm",
            position="rotary",
            activation=text(config, "hidden_act", "silu"),
            dropout=probability(config, "resid_pdrop"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
