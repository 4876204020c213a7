"""gpt-oss: a mixture of experts with biases, attention sinks, and every second layer on a window of 128 tokens."""

from __future__ import annotations

from sizing.models.facts import Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_experts,
    check_groups,
    flag,
    layer_count,
    output_head,
    positive_int,
    probability,
)
from sizing.models.families.llama import attention_layers


def layout(config: Config) -> Layout:
    """`gpt_oss`. The published checkpoints hold the experts in MXFP4 (4.25 bits a weight), all else in bf16."""
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, kv_heads = positive_int(config, "num_attention_heads"), positive_int(config, "num_key_value_heads")
    head_dim = positive_int(config, "head_dim", default=64)
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    experts = positive_int(config, "num_local_experts")
    chosen = positive_int(config, "num_experts_per_tok", "experts_per_token", default=4)
    check_groups(heads, kv_heads)
    check_experts(chosen, experts)
    bias = flag(config, "attention_bias", True)
    tied = flag(config, "tie_word_embeddings")
    attention, mlp, number = "model.layers.self_attn", "model.layers.mlp", layers * experts

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    t.add(f"{attention}.sinks", (heads,), layers, kind="other")
    t.linear(f"{attention}.q_proj", heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.k_proj", kv_heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.v_proj", kv_heads * head_dim, hidden, layers, bias=bias, shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * head_dim, layers, bias=bias, shard="row")
    t.add(f"{mlp}.router.weight", (experts, hidden), layers, kind="other")
    t.add(f"{mlp}.router.bias", (experts,), layers, kind="bias")
    t.add(f"{mlp}.experts.gate_up_proj", (2 * ff, hidden), number, shard="column", expert=True)
    t.add(f"{mlp}.experts.gate_up_proj_bias", (2 * ff,), number, kind="bias", shard="column", expert=True)
    t.add(f"{mlp}.experts.down_proj", (hidden, ff), number, shard="row", expert=True)
    t.add(f"{mlp}.experts.down_proj_bias", (hidden,), number, kind="bias", expert=True)
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=131_072),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=chosen * ff,
            gated=True,
            attention=attention_layers({"sliding_window": 128, **config}, layers, kv_heads, head_dim, pattern=2),
            experts=experts,
            experts_per_token=chosen,
            expert_size=ff,
            norm="rmsnorm",
            position="rotary",
            activation="silu",
            attention_dropout=probability(config, "attention_dropout"),
        ),
        notes=(
            "published with its experts in MXFP4 (--dtype mxfp4), which vLLM runs as they are; transformers does so"
            " where the package 'kernels' is installed, and makes bf16 of them elsewhere",
        ),
    )
