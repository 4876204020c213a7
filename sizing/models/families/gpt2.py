"""GPT-2 and GPT-BigCode (StarCoder): learned positions, one fused query-key-value projection, LayerNorm with bias."""

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
    """`gpt2` and `gpt_bigcode`; the latter shares one key-value head among all (multi-query, arXiv:1911.02150).

    GPT-2 stores its projections as `Conv1D`, [in, out]; here they stand as [out, in], as quantizers treat them.
    """
    hidden = positive_int(config, "n_embd", "hidden_size")
    layers = layer_count(config, "n_layer", "num_hidden_layers")
    heads = positive_int(config, "n_head", "num_attention_heads")
    positions = positive_int(config, "n_positions", "n_ctx", "max_position_embeddings", default=1024)
    vocab = positive_int(config, "vocab_size")
    ff = positive_int(config, "n_inner", default=4 * hidden)
    head_dim = head_dim_of({}, hidden, heads)
    bigcode = config.get("model_type") == "gpt_bigcode"
    multi_query = bigcode and flag(config, "multi_query", True)
    kv_heads = 1 if multi_query else heads
    tied = flag(config, "tie_word_embeddings", True)

    t = Tensors()
    t.add("transformer.wte.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.add("transformer.wpe.weight", (positions, hidden), kind="position", layered=False)
    t.norm("transformer.h.ln_1", hidden, layers, bias=True)
    fused = hidden + 2 * kv_heads * head_dim
    t.linear("transformer.h.attn.c_attn", fused, hidden, layers, bias=True, shard="column")
    t.linear("transformer.h.attn.c_proj", hidden, hidden, layers, bias=True, shard="row")
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
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=False,
            attention=(AttentionLayers(layers, kv_heads, head_dim, head_dim),),
            position="learned",
            activation=text(config, "activation_function", "gelu_pytorch_tanh" if bigcode else "gelu_new"),
            dropout=probability(config, "resid_pdrop", default=0.1),
            attention_dropout=probability(config, "attn_pdrop", default=0.1),
        ),
    )
