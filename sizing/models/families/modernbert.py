"""ModernBERT: rotary positions, a gated MLP, and two layers of three on a window (arXiv:2412.13663)."""

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


def layout(config: Config) -> Layout:
    """`modernbert`. Every `global_attn_every_n_layers`-th layer sees all tokens, the others `local_attention` of them;
    an encoder caches nothing, and its norms have no biases unless `norm_bias` says so."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, ff = positive_int(config, "num_attention_heads"), positive_int(config, "intermediate_size")
    vocab = positive_int(config, "vocab_size")
    every = positive_int(config, "global_attn_every_n_layers", default=3)
    window = positive_int(config, "local_attention", default=128)
    head_dim = head_dim_of({}, hidden, heads)
    attention_bias, mlp_bias = flag(config, "attention_bias"), flag(config, "mlp_bias")
    norm_bias = flag(config, "norm_bias")
    tied = flag(config, "tie_word_embeddings", True)
    head = class_name(config)
    embedding = "model.embeddings.tok_embeddings.weight"

    t = Tensors()
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.norm("model.embeddings.norm", hidden, bias=norm_bias, part="encoder", layered=False)
    # The embeddings' norm serves the first layer.
    t.norm("model.layers.attn_norm", hidden, layers - 1, bias=norm_bias, part="encoder")
    t.linear("model.layers.attn.Wqkv", 3 * hidden, hidden, layers, bias=attention_bias, part="encoder", shard="column")
    t.linear("model.layers.attn.Wo", hidden, hidden, layers, bias=attention_bias, part="encoder", shard="row")
    t.norm("model.layers.mlp_norm", hidden, layers, bias=norm_bias, part="encoder")
    t.linear("model.layers.mlp.Wi", 2 * ff, hidden, layers, bias=mlp_bias, part="encoder", shard="column")
    t.linear("model.layers.mlp.Wo", hidden, ff, layers, bias=mlp_bias, part="encoder", shard="row")
    t.norm("model.final_norm", hidden, bias=norm_bias, part="encoder", layered=False)
    if not head.endswith("Model"):
        t.linear("head.dense", hidden, hidden, bias=flag(config, "classifier_bias"), part="head", layered=False)
        t.norm("head.norm", hidden, bias=norm_bias, part="head", layered=False)
        if head.endswith(("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")):
            t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
        else:
            t.add(
                "decoder.weight",
                (vocab, hidden),
                part="head",
                shard="vocab",
                layered=False,
                tied_to=embedding if tied else "",
            )
            if flag(config, "decoder_bias", True):
                t.add("decoder.bias", (vocab,), part="head", kind="bias", shard="vocab", layered=False)
    whole = -(-layers // every)
    kinds = (
        AttentionLayers(whole, heads, head_dim, head_dim),
        AttentionLayers(layers - whole, heads, head_dim, head_dim, window),
    )
    return Layout(
        architecture="encoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=8192),
        tied_embeddings=tied,
        encoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=True,
            attention=tuple(k for k in kinds if k.layers),
            position="rotary",
            activation=text(config, "hidden_activation", "gelu"),
            dropout=probability(config, "mlp_dropout"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
