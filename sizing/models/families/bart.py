"""BART and its relatives: mBART, Pegasus, Blenderbot, Marian (OPUS-MT), M2M-100 (NLLB); arXiv:1910.13461."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.models.facts import AttentionLayers, Part, Stack
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


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model type differs from the others.

    `offset`: rows in front of the first learned position. `positions`: a table that is learned, a sinusoidal one that
    transformers holds as a parameter, or one that it computes. `embedding_norm`: a norm on the embeddings.
    `final_norm`: one after each stack (pre-norm layers).
    """

    positions: Literal["learned", "sinusoidal-table", "sinusoidal"]
    offset: int = 0
    embedding_norm: bool = False
    final_norm: bool = False
    activation: str = "gelu"


VARIANTS: dict[str, Variant] = {
    "bart": Variant("learned", offset=2, embedding_norm=True),
    "mbart": Variant("learned", offset=2, embedding_norm=True, final_norm=True),
    "blenderbot": Variant("learned", final_norm=True),
    "pegasus": Variant("sinusoidal-table", final_norm=True),
    "marian": Variant("sinusoidal-table"),
    "m2m_100": Variant("sinusoidal", final_norm=True, activation="relu"),
}


def layout(config: Config) -> Layout:
    """`bart`, `mbart`, `blenderbot`, `pegasus`, `marian`, `m2m_100`; biases everywhere, a tied output layer."""
    variant = VARIANTS[str(config["model_type"])]
    hidden, vocab = positive_int(config, "d_model"), positive_int(config, "vocab_size")
    positions = positive_int(config, "max_position_embeddings", default=1024)
    tied = flag(config, "tie_word_embeddings", True)
    dropout, attention_dropout = probability(config, "dropout", default=0.1), probability(config, "attention_dropout")
    activation = text(config, "activation_function", variant.activation)

    # Some Marian models read and write different vocabularies.
    shared = flag(config, "share_encoder_decoder_embeddings", True)
    written = vocab if shared else positive_int(config, "decoder_vocab_size", default=vocab)
    embedding = "model.shared.weight" if shared else "model.decoder.embed_tokens.weight"

    t = Tensors()
    if not shared:
        t.add(
            "model.encoder.embed_tokens.weight",
            (vocab, hidden),
            part="encoder",
            kind="embedding",
            shard="vocab",
            layered=False,
        )
    t.add(
        embedding,
        (written, hidden),
        kind="embedding",
        part="shared" if shared else "decoder",
        shard="vocab",
        layered=False,
    )

    def stack(part: Part) -> Stack:
        layers = layer_count(config, f"{part}_layers")
        heads = positive_int(config, f"{part}_attention_heads")
        ff = positive_int(config, f"{part}_ffn_dim")
        head_dim = head_dim_of({}, hidden, heads)
        cross = part == "decoder"
        block = f"model.{part}.layers"
        if variant.positions != "sinusoidal":
            rows = positions + variant.offset
            t.add(f"model.{part}.embed_positions.weight", (rows, hidden), kind="position", part=part, layered=False)
        for attention in ("self_attn", "encoder_attn") if cross else ("self_attn",):
            for name in ("k_proj", "v_proj", "q_proj"):
                t.linear(f"{block}.{attention}.{name}", hidden, hidden, layers, bias=True, part=part, shard="column")
            t.linear(f"{block}.{attention}.out_proj", hidden, hidden, layers, bias=True, part=part, shard="row")
            t.norm(f"{block}.{attention}_layer_norm", hidden, layers, bias=True, part=part)
        t.linear(f"{block}.fc1", ff, hidden, layers, bias=True, part=part, shard="column")
        t.linear(f"{block}.fc2", hidden, ff, layers, bias=True, part=part, shard="row")
        t.norm(f"{block}.final_layer_norm", hidden, layers, bias=True, part=part)
        if variant.embedding_norm:
            t.norm(f"model.{part}.layernorm_embedding", hidden, bias=True, part=part, layered=False)
        if variant.final_norm:
            t.norm(f"model.{part}.layer_norm", hidden, bias=True, part=part, layered=False)
        return Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=False,
            attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
            cross_attention=cross,
            position="learned" if variant.positions == "learned" else "sinusoidal",
            activation=activation,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )

    encoder, decoder = stack("encoder"), stack("decoder")
    if class_name(config).endswith("ForSequenceClassification"):
        t.linear("classification_head.dense", hidden, hidden, bias=True, part="head", layered=False)
        t.linear("classification_head.out_proj", label_count(config), hidden, bias=True, part="head", layered=False)
    else:
        # A checkpoint of the bare model (facebook/bart-large) generates as well: the output layer is the embedding.
        t.add(
            "lm_head.weight",
            (written, hidden),
            part="head",
            shard="vocab",
            layered=False,
            tied_to=embedding if tied else "",
        )
    return Layout(
        architecture="encoder-decoder",
        tensors=t.done(),
        vocab_size=written,
        context_window=positions,
        tied_embeddings=tied,
        encoder=encoder,
        decoder=decoder,
    )
