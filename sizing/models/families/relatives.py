"""Decoders of LLaMA's plan that differ in norms, biases or MLP: OLMo 2 and 3, StarCoder2, Command R, GLM-4, Nemotron,
StableLM, Seed-OSS, ERNIE 4.5, the mixtures of Granite, OLMo and GLM-4.5 (read from transformers 5.23,
`models/*/modeling_*.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.models.facts import Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_experts,
    check_groups,
    flag,
    head_dim_of,
    layer_count,
    output_head,
    positive_int,
    probability,
    text,
)
from sizing.models.families.llama import attention_layers

BEFORE = ("input_layernorm", "post_attention_layernorm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model type departs from LLaMA. Biases are named by the config's key; empty: none."""

    norms: tuple[str, ...] = BEFORE
    layernorm: bool = False
    """`nn.LayerNorm`, with a bias. Command R's own norm goes through fp32 like an RMSNorm and has none."""
    qk_norm: Literal["", "head", "whole"] = ""
    """A norm on queries and keys: over each head (Command R's `use_qk_norm`), or over all heads together."""
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """Three names: gated; two with `fused`: gate and up in one matrix; else no gate."""
    fused: bool = False
    qkv_bias: str = "attention_bias"
    out_bias: str = "attention_bias"
    mlp_bias: str = ""
    bias: bool = False
    """What an unsaid bias key means."""
    tied: bool = False
    parallel: bool = False
    pattern: int | None = None
    """Every `pattern`-th layer sees the whole context, the others a window."""
    window: int | None = None
    context: int = 4096
    activation: str = "silu"
    router: str = ""
    """A mixture of experts in place of the MLP: the router's name."""
    experts_key: str = "num_experts"
    dense_first: bool = False
    """Routed experts of `moe_intermediate_size`, shared ones, and a plain MLP in the first layers (GLM-4.5)."""


VARIANTS: dict[str, Variant] = {
    "olmo2": Variant(norms=AFTER, qk_norm="whole"),
    "olmo3": Variant(norms=AFTER, qk_norm="whole", pattern=4, window=4096, context=65_536),
    "starcoder2": Variant(
        layernorm=True,
        mlp=("c_fc", "c_proj"),
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        bias=True,
        tied=True,
        activation="gelu_pytorch_tanh",
    ),
    "cohere": Variant(norms=BEFORE[:1], tied=True, parallel=True, context=8192),
    "cohere2": Variant(norms=BEFORE[:1], tied=True, parallel=True, pattern=4, window=4096, context=8192),
    "glm": Variant(mlp=("gate_up_proj", "down_proj"), fused=True, out_bias="", context=131_072),
    "glm4": Variant(
        norms=(*BEFORE, "post_self_attn_layernorm", "post_mlp_layernorm"),
        mlp=("gate_up_proj", "down_proj"),
        fused=True,
        out_bias="",
        context=131_072,
    ),
    "nemotron": Variant(layernorm=True, mlp=("up_proj", "down_proj"), mlp_bias="mlp_bias", activation="relu2"),
    "stablelm": Variant(layernorm=True, qkv_bias="use_qkv_bias", out_bias=""),
    "seed_oss": Variant(out_bias="attention_out_bias", mlp_bias="mlp_bias", context=524_288),
    "ernie4_5": Variant(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", tied=True, context=131_072),
    "granitemoe": Variant(router="block_sparse_moe.router", experts_key="num_local_experts", context=2048),
    "olmoe": Variant(qk_norm="whole", router="mlp.gate"),
    "glm4_moe": Variant(
        out_bias="", router="mlp.gate", experts_key="n_routed_experts", dense_first=True, context=131_072
    ),
}


def layout(config: Config) -> Layout:
    """The model types of `VARIANTS`. Raises `UserError` for shapes that cannot be."""
    model_type = str(config["model_type"])
    v = VARIANTS[model_type]
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    head_dim = head_dim_of(config, hidden, heads)
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    check_groups(heads, kv_heads)
    tied = flag(config, "tie_word_embeddings", v.tied)

    def biased(key: str) -> bool:
        return bool(key) and flag(config, key, v.bias)

    qk_norm = v.qk_norm or ("head" if flag(config, "use_qk_norm") else "")
    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    attention = "model.layers.self_attn"
    for name, size in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        t.linear(f"{attention}.{name}_proj", size * head_dim, hidden, layers, bias=biased(v.qkv_bias), shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * head_dim, layers, bias=biased(v.out_bias), shard="row")
    if qk_norm:
        for name, size in (("q", heads), ("k", kv_heads)):
            # Command R normalizes each head with weights of its own.
            own = (size, head_dim) if model_type == "cohere" else (head_dim,)
            shape = own if qk_norm == "head" else (size * head_dim,)
            t.add(f"{attention}.{name}_norm.weight", shape, layers, kind="norm")
    dense = 0 if v.router else layers
    if v.dense_first:
        dense = min(layers, positive_int(config, "first_k_dense_replace", default=1, least=0))
    *wide, narrow = v.mlp
    for name in wide:
        size = 2 * ff if v.fused else ff
        t.linear(f"model.layers.mlp.{name}", size, hidden, dense, bias=biased(v.mlp_bias), shard="column")
    t.linear(f"model.layers.mlp.{narrow}", hidden, ff, dense, bias=biased(v.mlp_bias), shard="row")
    chosen = experts = shared = 0
    width = positive_int(config, "moe_intermediate_size") if v.dense_first else ff
    if dense < layers:
        chosen, experts = _experts(t, config, v, hidden, width, layers - dense)
        shared = width * positive_int(config, "n_shared_experts", default=0, least=0) if v.dense_first else 0
    if shared:
        t.gated_mlp("model.layers.mlp.shared_experts", shared, hidden, layers - dense)
    for name in v.norms:
        t.norm(f"model.layers.{name}", hidden, layers, bias=v.layernorm)
    t.norm("model.norm", hidden, bias=v.layernorm, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    windowed: Config = {"sliding_window": v.window, **config} if v.window else config
    slides = v.pattern is not None or model_type == "starcoder2"
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=v.context),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=max(width * chosen + shared, ff if dense else 0) if experts else ff,
            gated=v.fused or len(v.mlp) > 2,
            attention=attention_layers(windowed if slides else {}, layers, kv_heads, head_dim, v.pattern),
            experts=experts,
            experts_per_token=chosen,
            expert_size=width if experts else 0,
            norm="layernorm" if v.layernorm else "rmsnorm",
            position="rotary",
            activation=text(config, "hidden_act", v.activation),
            qk_norm=bool(qk_norm),
            parallel_residual=v.parallel,
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )


def _experts(t: Tensors, config: Config, v: Variant, hidden: int, width: int, layers: int) -> tuple[int, int]:
    """Adds the router and the experts of every layer; returns (experts a token, experts)."""
    experts = positive_int(config, v.experts_key)
    chosen = positive_int(config, "num_experts_per_tok", default=2)
    check_experts(chosen, experts)
    block, router = v.router.split(".")
    t.mixture(f"model.layers.{block}", router, experts, width, hidden, layers)
    return chosen, experts
