"""MPT: ALiBi, no biases at all, a tied head."""

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
    section,
)


def layout(config: Config) -> Layout:
    """`mpt`."""
    hidden = positive_int(config, "d_model", "hidden_size")
    layers = layer_count(config, "n_layers", "num_hidden_layers")
    heads = positive_int(config, "n_heads", "num_attention_heads")
    vocab = positive_int(config, "vocab_size")
    ff = hidden * positive_int(config, "expansion_ratio", default=4)
    head_dim = head_dim_of({}, hidden, heads)
    tied = flag(config, "tie_word_embeddings", True)
    attention = section(config, "attn_config") if config.get("attn_config") is not None else {}

    t = Tensors()
    t.add("transformer.wte.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("transformer.blocks.norm_1", hidden, layers)
    t.linear("transformer.blocks.attn.Wqkv", 3 * hidden, hidden, layers, shard="column")
    t.linear("transformer.blocks.attn.out_proj", hidden, hidden, layers, shard="row")
    t.norm("transformer.blocks.norm_2", hidden, layers)
    t.linear("transformer.blocks.ffn.up_proj", ff, hidden, layers, shard="column")
    t.linear("transformer.blocks.ffn.down_proj", hidden, ff, layers, shard="row")
    t.norm("transformer.norm_f", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="transformer.wte.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_seq_len", default=2048),
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
            activation="gelu",
            dropout=probability(config, "resid_pdrop"),
            attention_dropout=probability(attention, "attn_pdrop"),
        ),
        notes=("ALiBi: longer inputs run, but the model was trained on the context window given",),
    )
