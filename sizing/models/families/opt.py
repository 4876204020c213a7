"""OPT: learned positions with an offset of two, ReLU, biases everywhere (arXiv:2205.01068)."""

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

POSITION_OFFSET = 2
"""fairseq keeps two rows for padding in front of the first position (`OPTLearnedPositionalEmbedding`)."""


def layout(config: Config) -> Layout:
    """`opt`. The 350M model normalizes after each block and embeds narrower than its layers (`word_embed_proj_dim`)."""
    hidden = positive_int(config, "hidden_size")
    layers = layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    ff, vocab = positive_int(config, "ffn_dim"), positive_int(config, "vocab_size")
    positions = positive_int(config, "max_position_embeddings", default=2048)
    embedded = positive_int(config, "word_embed_proj_dim", default=hidden)
    head_dim = head_dim_of({}, hidden, heads)
    bias = flag(config, "enable_bias", True)
    affine = flag(config, "layer_norm_elementwise_affine", True)
    tied = flag(config, "tie_word_embeddings", True)
    embedding, block = "model.decoder.embed_tokens.weight", "model.decoder.layers"

    t = Tensors()
    t.add(embedding, (vocab, embedded), kind="embedding", part="shared", shard="vocab", layered=False)
    t.add("model.decoder.embed_positions.weight", (positions + POSITION_OFFSET, hidden), kind="position", layered=False)
    if embedded != hidden:
        t.linear("model.decoder.project_out", embedded, hidden, layered=False)
        t.linear("model.decoder.project_in", hidden, embedded, layered=False)
    for name in ("k_proj", "v_proj", "q_proj"):
        t.linear(f"{block}.self_attn.{name}", hidden, hidden, layers, bias=bias, shard="column")
    t.linear(f"{block}.self_attn.out_proj", hidden, hidden, layers, bias=bias, shard="row")
    t.linear(f"{block}.fc1", ff, hidden, layers, bias=bias, shard="column")
    t.linear(f"{block}.fc2", hidden, ff, layers, bias=bias, shard="row")
    if affine:
        t.norm(f"{block}.self_attn_layer_norm", hidden, layers, bias=True)
        t.norm(f"{block}.final_layer_norm", hidden, layers, bias=True)
        if flag(config, "do_layer_norm_before", True) and not flag(config, "_remove_final_layer_norm"):
            t.norm("model.decoder.final_layer_norm", hidden, bias=True, layered=False)
    output_head(t, config, vocab, embedded, embedding=embedding, tied=tied)
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
            activation=text(config, "activation_function", "relu"),
            dropout=probability(config, "dropout", default=0.1),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
