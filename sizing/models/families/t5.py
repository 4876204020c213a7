"""T5, FLAN-T5, T5 v1.1, mT5/mT0, UL2: encoder-decoder with relative positions and no biases (arXiv:1910.10683)."""

from __future__ import annotations

from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import Config, Layout, Tensors, flag, layer_count, positive_int, probability, text

PUBLISHED_CONTEXT = 512
"""Tokens the published checkpoints were trained on; relative positions set no limit of their own."""


def layout(config: Config) -> Layout:
    """`t5`, `mt5`, `umt5`. `tie_word_embeddings: false` (v1.1, FLAN, mT5) keeps an output projection of its own."""
    hidden = positive_int(config, "d_model")
    inner = positive_int(config, "num_heads") * positive_int(config, "d_kv")
    heads, head_dim = positive_int(config, "num_heads"), positive_int(config, "d_kv")
    ff, vocab = positive_int(config, "d_ff"), positive_int(config, "vocab_size")
    encoder_layers = layer_count(config, "num_layers")
    decoder_layers = layer_count(config, "num_decoder_layers", default=encoder_layers)
    buckets = positive_int(config, "relative_attention_num_buckets", default=32)
    model_type = config.get("model_type")
    feed_forward = text(config, "feed_forward_proj", "relu" if model_type == "t5" else "gated-gelu")
    gated = feed_forward.startswith("gated-")
    # Configs of mT5 may leave it out: transformers 4's MT5Config meant false, as the checkpoints are.
    tied = flag(config, "tie_word_embeddings", model_type != "mt5")
    per_layer_bias = model_type == "umt5"

    t = Tensors()
    t.add("shared.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    for part, layers in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        attentions = ["SelfAttention"] if part == "encoder" else ["SelfAttention", "EncDecAttention"]
        for attention in attentions:
            prefix = f"{part}.block.layer.{attention}"
            for name in ("q", "k", "v"):
                t.linear(f"{prefix}.{name}", inner, hidden, layers, part=part, shard="column")  # type: ignore[arg-type]
            t.linear(f"{prefix}.o", hidden, inner, layers, part=part, shard="row")  # type: ignore[arg-type]
            t.norm(f"{prefix}.layer_norm", hidden, layers, part=part)  # type: ignore[arg-type]
        t.add(
            f"{part}.block.layer.SelfAttention.relative_attention_bias.weight",
            (buckets, heads),
            layers if per_layer_bias else 1,
            part=part,  # type: ignore[arg-type]
            kind="position",
            layered=per_layer_bias,
        )
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            t.linear(f"{part}.block.layer.DenseReluDense.{name}", ff, hidden, layers, part=part, shard="column")  # type: ignore[arg-type]
        # `_keep_in_fp32_modules = ["wo"]`: fp16 overflows there (transformers#20287).
        t.linear(
            f"{part}.block.layer.DenseReluDense.wo",
            hidden,
            ff,
            layers,
            part=part,  # type: ignore[arg-type]
            shard="row",
            keep_fp32=True,
        )
        t.norm(f"{part}.block.layer.DenseReluDense.layer_norm", hidden, layers, part=part)  # type: ignore[arg-type]
        t.norm(f"{part}.final_layer_norm", hidden, part=part, layered=False)  # type: ignore[arg-type]
    t.add(
        "lm_head.weight",
        (vocab, hidden),
        part="head",
        shard="vocab",
        layered=False,
        tied_to="shared.weight" if tied else "",
    )

    def stack(layers: int, cross: bool) -> Stack:
        return Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=gated,
            attention=(AttentionLayers(layers, heads, head_dim, head_dim),),
            cross_attention=cross,
            norm="rmsnorm",
            position="relative",
            activation="gelu" if gated else feed_forward,
            dropout=probability(config, "dropout_rate", default=0.1),
            attention_dropout=probability(config, "dropout_rate", default=0.1),
        )

    return Layout(
        architecture="encoder-decoder",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "n_positions", default=PUBLISHED_CONTEXT),
        tied_embeddings=tied,
        encoder=stack(encoder_layers, cross=False),
        decoder=stack(decoder_layers, cross=True),
        notes=("relative positions: longer inputs run, but the model was trained on the context window given",),
    )
