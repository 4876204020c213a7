"""BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT: encoders with learned positions, normalized after each block."""

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

PAD_ROWS = 2
"""RoBERTa counts positions from padding_idx + 1 = 2, so two rows of its table are never a position of a token."""


def encoder_layout(t: Tensors, config: Config, *, vocab: int, context: int, stack: Stack) -> Layout:
    """The `Layout` of an encoder whose tensors are in `t`."""
    return Layout(
        architecture="encoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=context,
        tied_embeddings=flag(config, "tie_word_embeddings", True),
        encoder=stack,
    )


def encoder_stack(
    layers: int, hidden: int, heads: int, ff: int, *, activation: str, dropout: float, attention: float
) -> Stack:
    """The `Stack` of an encoder; every layer sees the whole input."""
    head_dim = head_dim_of({}, hidden, heads)
    return Stack(
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate_size=ff,
        gated=False,
        attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
        position="learned",
        activation=activation,
        dropout=dropout,
        attention_dropout=attention,
    )


def masked_lm_head(
    t: Tensors,
    config: Config,
    prefix: str,
    transform: str,
    norm: str,
    vocab: int,
    hidden: int,
    embedding: str,
    width: int,
) -> None:
    """A masked-language-model head: transform, norm, and the embeddings as output layer with a bias of its own."""
    tied = flag(config, "tie_word_embeddings", True)
    t.linear(f"{prefix}.{transform}", width, hidden, bias=True, part="head", layered=False)
    t.norm(f"{prefix}.{norm}", width, bias=True, part="head", layered=False)
    t.add(
        f"{prefix}.decoder.weight",
        (vocab, width),
        part="head",
        shard="vocab",
        layered=False,
        tied_to=embedding if tied else "",
    )
    t.add(f"{prefix}.bias", (vocab,), part="head", kind="bias", shard="vocab", layered=False)


def _bert(config: Config) -> Layout:
    """`bert`, `roberta`, `xlm-roberta`, `camembert`: they differ in the head and in where positions start."""
    roberta = config["model_type"] != "bert"
    model = "roberta" if roberta else "bert"
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, ff = positive_int(config, "num_attention_heads"), positive_int(config, "intermediate_size")
    vocab = positive_int(config, "vocab_size")
    positions = positive_int(config, "max_position_embeddings", default=512)
    types = positive_int(config, "type_vocab_size", default=2)
    head = class_name(config)
    embedding, block = f"{model}.embeddings.word_embeddings.weight", f"{model}.encoder.layer"

    t = Tensors()
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    for name, rows in (("position", positions), ("token_type", types)):
        t.add(
            f"{model}.embeddings.{name}_embeddings.weight",
            (rows, hidden),
            part="encoder",
            kind="position",
            layered=False,
        )
    t.norm(f"{model}.embeddings.LayerNorm", hidden, bias=True, part="encoder", layered=False)
    for name in ("query", "key", "value"):
        t.linear(f"{block}.attention.self.{name}", hidden, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.attention.output.dense", hidden, hidden, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.attention.output.LayerNorm", hidden, layers, bias=True, part="encoder")
    t.linear(f"{block}.intermediate.dense", ff, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.output.dense", hidden, ff, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.output.LayerNorm", hidden, layers, bias=True, part="encoder")

    if head.endswith(("Model", "ForPreTraining")) or (not roberta and head.endswith("ForSequenceClassification")):
        t.linear(f"{model}.pooler.dense", hidden, hidden, bias=True, part="head", layered=False)
    if head.endswith("ForSequenceClassification"):
        labels = label_count(config)
        if roberta:
            t.linear("classifier.dense", hidden, hidden, bias=True, part="head", layered=False)
            t.linear("classifier.out_proj", labels, hidden, bias=True, part="head", layered=False)
        else:
            t.linear("classifier", labels, hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForTokenClassification"):
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForQuestionAnswering"):
        t.linear("qa_outputs", label_count(config), hidden, bias=True, part="head", layered=False)
    elif not head.endswith("Model"):
        if roberta:
            masked_lm_head(t, config, "lm_head", "dense", "layer_norm", vocab, hidden, embedding, hidden)
        else:
            masked_lm_head(
                t, config, "cls.predictions", "transform.dense", "transform.LayerNorm", vocab, hidden, embedding, hidden
            )
        if head.endswith("ForPreTraining"):
            t.linear("cls.seq_relationship", 2, hidden, bias=True, part="head", layered=False)
    stack = encoder_stack(
        layers,
        hidden,
        heads,
        ff,
        activation=text(config, "hidden_act", "gelu"),
        dropout=probability(config, "hidden_dropout_prob", default=0.1),
        attention=probability(config, "attention_probs_dropout_prob", default=0.1),
    )
    context = max(1, positions - PAD_ROWS) if roberta else positions
    return encoder_layout(t, config, vocab=vocab, context=context, stack=stack)


def _distilbert(config: Config) -> Layout:
    """`distilbert`: half of BERT's layers, no token types, no pooler (arXiv:1910.01108)."""
    hidden, layers = positive_int(config, "dim", "hidden_size"), layer_count(config, "n_layers", "num_hidden_layers")
    heads = positive_int(config, "n_heads", "num_attention_heads")
    ff, vocab = positive_int(config, "hidden_dim"), positive_int(config, "vocab_size")
    positions = positive_int(config, "max_position_embeddings", default=512)
    head = class_name(config)
    embedding, block = "distilbert.embeddings.word_embeddings.weight", "distilbert.transformer.layer"

    t = Tensors()
    t.add(embedding, (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.add(
        "distilbert.embeddings.position_embeddings.weight",
        (positions, hidden),
        part="encoder",
        kind="position",
        layered=False,
    )
    t.norm("distilbert.embeddings.LayerNorm", hidden, bias=True, part="encoder", layered=False)
    for name in ("q_lin", "k_lin", "v_lin"):
        t.linear(f"{block}.attention.{name}", hidden, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.attention.out_lin", hidden, hidden, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.sa_layer_norm", hidden, layers, bias=True, part="encoder")
    t.linear(f"{block}.ffn.lin1", ff, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.ffn.lin2", hidden, ff, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.output_layer_norm", hidden, layers, bias=True, part="encoder")
    if head.endswith("ForSequenceClassification"):
        t.linear("pre_classifier", hidden, hidden, bias=True, part="head", layered=False)
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForTokenClassification"):
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForQuestionAnswering"):
        t.linear("qa_outputs", label_count(config), hidden, bias=True, part="head", layered=False)
    elif not head.endswith("Model"):
        t.linear("vocab_transform", hidden, hidden, bias=True, part="head", layered=False)
        t.norm("vocab_layer_norm", hidden, bias=True, part="head", layered=False)
        tied = flag(config, "tie_word_embeddings", True)
        t.add(
            "vocab_projector.weight",
            (vocab, hidden),
            part="head",
            shard="vocab",
            layered=False,
            tied_to=embedding if tied else "",
        )
        t.add("vocab_projector.bias", (vocab,), part="head", kind="bias", shard="vocab", layered=False)
    stack = encoder_stack(
        layers,
        hidden,
        heads,
        ff,
        activation=text(config, "activation", "gelu"),
        dropout=probability(config, "dropout", default=0.1),
        attention=probability(config, "attention_dropout", default=0.1),
    )
    return encoder_layout(t, config, vocab=vocab, context=positions, stack=stack)


def _albert(config: Config) -> Layout:
    """`albert`: one group of layers run again and again, embeddings narrower than the layers (arXiv:1909.11942)."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, ff = positive_int(config, "num_attention_heads"), positive_int(config, "intermediate_size")
    vocab, embedded = positive_int(config, "vocab_size"), positive_int(config, "embedding_size", default=128)
    positions = positive_int(config, "max_position_embeddings", default=512)
    groups = positive_int(config, "num_hidden_groups", default=1) * positive_int(config, "inner_group_num", default=1)
    head = class_name(config)
    embedding = "albert.embeddings.word_embeddings.weight"
    block = "albert.encoder.albert_layer_groups.albert_layers"

    t = Tensors()
    t.add(embedding, (vocab, embedded), kind="embedding", part="shared", shard="vocab", layered=False)
    for name, rows in (("position", positions), ("token_type", positive_int(config, "type_vocab_size", default=2))):
        t.add(
            f"albert.embeddings.{name}_embeddings.weight",
            (rows, embedded),
            part="encoder",
            kind="position",
            layered=False,
        )
    t.norm("albert.embeddings.LayerNorm", embedded, bias=True, part="encoder", layered=False)
    t.linear("albert.encoder.embedding_hidden_mapping_in", hidden, embedded, bias=True, part="encoder", layered=False)
    t.norm(f"{block}.full_layer_layer_norm", hidden, groups, bias=True, part="encoder")
    for name in ("query", "key", "value"):
        t.linear(f"{block}.attention.{name}", hidden, hidden, groups, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.attention.dense", hidden, hidden, groups, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.attention.LayerNorm", hidden, groups, bias=True, part="encoder")
    t.linear(f"{block}.ffn", ff, hidden, groups, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.ffn_output", hidden, ff, groups, bias=True, part="encoder", shard="row")
    if head.endswith(("Model", "ForPreTraining", "ForSequenceClassification")):
        t.linear("albert.pooler", hidden, hidden, bias=True, part="head", layered=False)
    if head.endswith("ForSequenceClassification"):
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif not head.endswith("Model"):
        masked_lm_head(t, config, "predictions", "dense", "LayerNorm", vocab, hidden, embedding, embedded)
        if head.endswith("ForPreTraining"):
            t.linear("sop_classifier.classifier", 2, hidden, bias=True, part="head", layered=False)
    stack = encoder_stack(
        layers,
        hidden,
        heads,
        ff,
        activation=text(config, "hidden_act", "gelu_new"),
        dropout=probability(config, "hidden_dropout_prob"),
        attention=probability(config, "attention_probs_dropout_prob"),
    )
    return encoder_layout(t, config, vocab=vocab, context=positions, stack=stack)


def layout(config: Config) -> Layout:
    """`bert`, `roberta`, `xlm-roberta`, `camembert`, `distilbert`, `albert`; the head is that of `architectures`."""
    model_type = config["model_type"]
    if model_type == "distilbert":
        return _distilbert(config)
    return _albert(config) if model_type == "albert" else _bert(config)
