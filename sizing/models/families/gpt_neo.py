"""GPT-Neo: GPT-2's shape with separate projections and every second layer attending to 256 tokens."""

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
    """`gpt_neo`. Local layers only mask: transformers caches keys and values of the whole context for them too."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_layers", "num_hidden_layers")
    heads, vocab = positive_int(config, "num_heads", "num_attention_heads"), positive_int(config, "vocab_size")
    ff = positive_int(config, "intermediate_size", default=4 * hidden)
    positions = positive_int(config, "max_position_embeddings", default=2048)
    head_dim = head_dim_of({}, hidden, heads)
    tied = flag(config, "tie_word_embeddings", True)
    attention = "transformer.h.attn.attention"

    t = Tensors()
    t.add("transformer.wte.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.add("transformer.wpe.weight", (positions, hidden), kind="position", layered=False)
    t.norm("transformer.h.ln_1", hidden, layers, bias=True)
    for name in ("k_proj", "v_proj", "q_proj"):
        t.linear(f"{attention}.{name}", hidden, hidden, layers, shard="column")
    t.linear(f"{attention}.out_proj", hidden, hidden, layers, bias=True, shard="row")
    t.norm("transformer.h.ln_2", hidden, layers, bias=True)
    t.linear("transformer.h.mlp.c_fc", ff, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.mlp.c_proj", hidden, ff, layers, bias=True, shard="row")
    t.norm("transformer.ln_f", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding="transformer.wte.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positions,
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
            position="learned",
            activation=text(config, "activation_function", "gelu_new"),
            dropout=probability(config, "resid_dropout"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
