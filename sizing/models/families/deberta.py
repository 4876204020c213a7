"""DeBERTa, v2 and v3: encoders whose attention looks at content and relative position apart (arXiv:2006.03654)."""

from __future__ import annotations

from dataclasses import replace

from sizing.errors import UserError
from sizing.models.families.bert import encoder_layout, encoder_stack, masked_lm_head
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    class_name,
    flag,
    label_count,
    layer_count,
    positive_int,
    probability,
    shown,
    text,
)


def position_kinds(config: Config) -> frozenset[str]:
    """`pos_att_type`, a list or words joined by `|`: `c2p` (content to position), `p2c` (position to content)."""
    value = config.get("pos_att_type") or []
    if isinstance(value, str):
        value = value.lower().split("|")
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise UserError(f"config.json: 'pos_att_type' is {shown(value)}; it must be a list of 'c2p' and 'p2c'")
    return frozenset(v.strip() for v in value)


def _span(config: Config, positions: int) -> int:
    """Distances that the relative table covers in one direction; -1 in the config means all positions."""
    value = config.get("max_relative_positions")
    if value is None or value == -1:
        return positions
    return positive_int(config, "max_relative_positions")


def layout(config: Config) -> Layout:
    """`deberta` (fused, partly biased projections) and `deberta-v2` (also v3: shared position projections, buckets)."""
    first = config["model_type"] == "deberta"
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, ff = positive_int(config, "num_attention_heads"), positive_int(config, "intermediate_size")
    vocab = positive_int(config, "vocab_size")
    positions = positive_int(config, "max_position_embeddings", default=512)
    embedded = positive_int(config, "embedding_size", default=hidden)
    types = positive_int(config, "type_vocab_size", default=0, least=0)
    relative, kinds = flag(config, "relative_attention"), position_kinds(config)
    norm_positions = "layer_norm" in text(config, "norm_rel_ebd", "none")
    head = class_name(config)
    embedding, block = "deberta.embeddings.word_embeddings.weight", "deberta.encoder.layer"
    attention = f"{block}.attention.self"

    t = Tensors()
    t.add(embedding, (vocab, embedded), kind="embedding", part="shared", shard="vocab", layered=False)
    tables = [("position", positions)] if flag(config, "position_biased_input", True) else []
    for name, rows in [*tables, *([("token_type", types)] if types else [])]:
        t.add(
            f"deberta.embeddings.{name}_embeddings.weight",
            (rows, embedded),
            part="encoder",
            kind="position",
            layered=False,
        )
    if embedded != hidden:
        t.linear("deberta.embeddings.embed_proj", hidden, embedded, part="encoder", layered=False)
    t.norm("deberta.embeddings.LayerNorm", hidden, bias=True, part="encoder", layered=False)
    if first:
        t.linear(f"{attention}.in_proj", 3 * hidden, hidden, layers, part="encoder", shard="column")
        for name in ("q_bias", "v_bias"):
            t.add(f"{attention}.{name}", (hidden,), layers, part="encoder", kind="bias", shard="column")
        if relative and "c2p" in kinds:
            t.linear(f"{attention}.pos_proj", hidden, hidden, layers, part="encoder", shard="column")
        if relative and "p2c" in kinds:
            t.linear(f"{attention}.pos_q_proj", hidden, hidden, layers, bias=True, part="encoder", shard="column")
    else:
        names = ["query_proj", "key_proj", "value_proj"]
        if relative and not flag(config, "share_att_key"):
            names += ["pos_key_proj"] if "c2p" in kinds else []
            names += ["pos_query_proj"] if "p2c" in kinds else []
        for name in names:
            t.linear(f"{attention}.{name}", hidden, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.attention.output.dense", hidden, hidden, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.attention.output.LayerNorm", hidden, layers, bias=True, part="encoder")
    t.linear(f"{block}.intermediate.dense", ff, hidden, layers, bias=True, part="encoder", shard="column")
    t.linear(f"{block}.output.dense", hidden, ff, layers, bias=True, part="encoder", shard="row")
    t.norm(f"{block}.output.LayerNorm", hidden, layers, bias=True, part="encoder")
    if relative:
        span = _span(config, positions)
        buckets = config.get("position_buckets")
        if not first and buckets not in (None, -1):
            span = positive_int(config, "position_buckets")
        t.add(
            "deberta.encoder.rel_embeddings.weight", (2 * span, hidden), part="encoder", kind="position", layered=False
        )
    if not first and norm_positions:
        t.norm("deberta.encoder.LayerNorm", hidden, bias=True, part="encoder", layered=False)
    width = positive_int(config, "conv_kernel_size", default=0, least=0) if not first else 0
    if width:
        t.add("deberta.encoder.conv.conv.weight", (hidden, hidden, width), part="encoder", kind="other", layered=False)
        t.add("deberta.encoder.conv.conv.bias", (hidden,), part="encoder", kind="bias", layered=False)
        t.norm("deberta.encoder.conv.LayerNorm", hidden, bias=True, part="encoder", layered=False)

    if head.endswith("ForSequenceClassification"):
        t.linear("pooler.dense", hidden, hidden, bias=True, part="head", layered=False)
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForTokenClassification"):
        t.linear("classifier", label_count(config), hidden, bias=True, part="head", layered=False)
    elif head.endswith("ForQuestionAnswering"):
        t.linear("qa_outputs", label_count(config), hidden, bias=True, part="head", layered=False)
    elif not head.endswith("Model"):
        masked_lm_head(
            t, config, "cls.predictions", "transform.dense", "transform.LayerNorm", vocab, hidden, embedding, embedded
        )
    stack = encoder_stack(
        layers,
        hidden,
        heads,
        ff,
        activation=text(config, "hidden_act", "gelu"),
        dropout=probability(config, "hidden_dropout_prob", default=0.1),
        attention=probability(config, "attention_probs_dropout_prob", default=0.1),
    )
    return encoder_layout(
        t,
        config,
        vocab=vocab,
        context=positions,
        stack=replace(stack, position="relative" if relative else "learned"),
    )
