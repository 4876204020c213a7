"""XLNet: permutation language model with relative attention over a memory of hidden states (arXiv:1906.08237)."""

from __future__ import annotations

from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    class_name,
    flag,
    head_dim_of,
    label_count,
    layer_count,
    positive_int,
    probability,
    text,
)

TRAINED_CONTEXT = 512
"""Tokens a sequence in training (arXiv:1906.08237, section 3.1); relative positions set no limit of their own."""


def layout(config: Config) -> Layout:
    """`xlnet`. Attention weights are bare tensors [hidden, heads, head size], which no quantizer turns."""
    hidden, layers = positive_int(config, "d_model", "hidden_size"), layer_count(config, "n_layer", "num_hidden_layers")
    heads = positive_int(config, "n_head", "num_attention_heads")
    ff, vocab = positive_int(config, "d_inner"), positive_int(config, "vocab_size")
    head_dim = positive_int(config, "d_head", default=head_dim_of({}, hidden, heads))
    tied = flag(config, "tie_word_embeddings", True)
    head = class_name(config)
    embedding, attention = "transformer.word_embedding.weight", "transformer.layer.rel_attn"

    t = Tensors()
    t.add("transformer.mask_emb", (1, 1, hidden), kind="other", layered=False)
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    for name in ("q", "k", "v", "o", "r"):
        t.add(f"{attention}.{name}", (hidden, heads, head_dim), layers, kind="other")
    for name in ("r_r_bias", "r_s_bias", "r_w_bias"):
        t.add(f"{attention}.{name}", (heads, head_dim), layers, kind="bias")
    t.add(f"{attention}.seg_embed", (2, heads, head_dim), layers, kind="other")
    t.norm(f"{attention}.layer_norm", hidden, layers, bias=True)
    t.norm("transformer.layer.ff.layer_norm", hidden, layers, bias=True)
    t.linear("transformer.layer.ff.layer_1", ff, hidden, layers, bias=True, shard="column")
    t.linear("transformer.layer.ff.layer_2", hidden, ff, layers, bias=True, shard="row")
    if head.endswith("ForSequenceClassification"):
        t.linear("sequence_summary.summary", hidden, hidden, bias=True, part="head", layered=False)
        t.linear("logits_proj", label_count(config), hidden, bias=True, part="head", layered=False)
    elif not head.endswith("Model") or head.endswith("LMHeadModel"):
        t.add(
            "lm_loss.weight",
            (vocab, hidden),
            part="head",
            shard="vocab",
            layered=False,
            tied_to=embedding if tied else "",
        )
        t.add("lm_loss.bias", (vocab,), part="head", kind="bias", shard="vocab", layered=False)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=TRAINED_CONTEXT,
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=False,
            # Its memory ("mems") keeps one hidden state a token and layer, not keys and values.
            attention=(AttentionLayers(layers, heads, head_dim, 0),),
            position="relative",
            activation=text(config, "ff_activation", "gelu"),
            dropout=probability(config, "dropout", default=0.1),
            attention_dropout=probability(config, "dropout", default=0.1),
        ),
        notes=("relative positions: longer inputs run, but the model was trained on the context window given",),
    )
