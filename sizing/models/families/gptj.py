"""GPT-J: attention and MLP side by side on one norm, rotary positions, a head of its own with a bias."""

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
    """`gptj`."""
    hidden = positive_int(config, "n_embd", "hidden_size")
    layers = layer_count(config, "n_layer", "num_hidden_layers")
    heads = positive_int(config, "n_head", "num_attention_heads")
    vocab = positive_int(config, "vocab_size")
    ff = positive_int(config, "n_inner", default=4 * hidden)
    head_dim = head_dim_of({}, hidden, heads)
    tied = flag(config, "tie_word_embeddings", False)

    t = Tensors()
    t.add("transformer.wte.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("transformer.h.ln_1", hidden, layers, bias=True)
    for name in ("q_proj", "k_proj", "v_proj"):
        t.linear(f"transformer.h.attn.{name}", hidden, hidden, layers, shard="column")
    t.linear("transformer.h.attn.out_proj", hidden, hidden, layers, shard="row")
    t.linear("transformer.h.mlp.fc_in", ff, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.mlp.fc_out", hidden, ff, layers, bias=True, shard="row")
    t.norm("transformer.ln_f", hidden, bias=True, layered=False)
    output_head(t, config, vocab, hidden, embedding="transformer.wte.weight", tied=tied, bias=True)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "n_positions", "max_position_embeddings", default=2048),
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
            activation=text(config, "activation_function", "gelu_new"),
            parallel_residual=True,
            dropout=probability(config, "resid_pdrop", default=0.0),
            attention_dropout=probability(config, "attn_pdrop", default=0.0),
        ),
    )
