"""LLaMA and its relatives: pre-norm decoders with rotary positions, gated MLP and grouped-query attention."""

from __future__ import annotations

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_groups,
    flag,
    head_dim_of,
    layer_count,
    output_head,
    positive_int,
    probability,
    shown,
    text,
)

MISTRAL_WINDOW = 4096
"""`MistralConfig`'s own default: a config that does not mention `sliding_window` has one; `null` has none."""
WINDOW_IS_OPT_IN = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
"""Their configs carry a `sliding_window` that only `use_sliding_window: true` switches on."""


def window_of(config: Config) -> int | None:
    """Tokens that a sliding layer sees; None where no layer slides."""
    model_type = config.get("model_type")
    window = config.get("sliding_window", MISTRAL_WINDOW if model_type == "mistral" else None)
    if window is None or not flag(config, "use_sliding_window", model_type not in WINDOW_IS_OPT_IN):
        return None
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise UserError(
            f"config.json: 'sliding_window' is {shown(window)}; it must be a whole number of at least 1 or null"
        )
    return window


def sliding_layers(config: Config, layers: int, pattern: int | None = None) -> int:
    """How many of `layers` slide: as `layer_types` says, else all but every `pattern`-th, else all of them.

    Qwen starts to slide at layer `max_window_layers`.
    """
    types = config.get("layer_types")
    if isinstance(types, list):
        if len(types) != layers:
            raise UserError(f"config.json: 'layer_types' names {len(types)} layers, 'num_hidden_layers' is {layers}")
        return types.count("sliding_attention")
    if config.get("sliding_window_pattern") is not None:
        pattern = positive_int(config, "sliding_window_pattern")
    if pattern is not None:
        return layers - layers // pattern
    if config.get("model_type") in WINDOW_IS_OPT_IN:
        return max(0, layers - positive_int(config, "max_window_layers", default=28, least=0))
    return layers


def attention_layers(
    config: Config, layers: int, kv_heads: int, head_dim: int, pattern: int | None = None
) -> tuple[AttentionLayers, ...]:
    """Which layers see the whole context and which a window."""
    window = window_of(config)
    sliding = sliding_layers(config, layers, pattern) if window is not None else 0
    kinds = []
    if layers - sliding:
        kinds.append(AttentionLayers(layers - sliding, kv_heads, head_dim, head_dim))
    if sliding:
        kinds.append(AttentionLayers(sliding, kv_heads, head_dim, head_dim, window))
    return tuple(kinds)


def layout(config: Config) -> Layout:
    """`llama`, `mistral`, `qwen2`, `qwen3`, `granite`, `smollm3`: they differ in biases, head size and norms."""
    model_type = config.get("model_type", "llama")
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    # Qwen 3 states its head size; a config without it means 128, not hidden_size / heads (`Qwen3Config`).
    if model_type in ("qwen3", "qwen3_moe") and config.get("head_dim") is None:
        head_dim = 128 if model_type == "qwen3" else head_dim_of(config, hidden, heads)
    else:
        head_dim = head_dim_of(config, hidden, heads)
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    check_groups(heads, kv_heads)
    qwen2 = model_type in ("qwen2", "qwen2_moe")
    bias = flag(config, "attention_bias")
    qkv_bias = flag(config, "qkv_bias", True) if qwen2 else bias
    out_bias = bias and not qwen2
    mlp_bias = flag(config, "mlp_bias")
    qk_norm = model_type in ("qwen3", "qwen3_moe")
    tied = flag(config, "tie_word_embeddings", model_type == "smollm3")

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    attention = "model.layers.self_attn"
    t.linear(f"{attention}.q_proj", heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.k_proj", kv_heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.v_proj", kv_heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * head_dim, layers, bias=out_bias, shard="row")
    if qk_norm:
        t.norm(f"{attention}.q_norm", head_dim, layers)
        t.norm(f"{attention}.k_norm", head_dim, layers)
    t.gated_mlp("model.layers.mlp", ff, hidden, layers, bias=mlp_bias)
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", "max_sequence_length", default=2048),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=ff,
            gated=True,
            attention=attention_layers(config, layers, kv_heads, head_dim),
            norm="rmsnorm",
            position="rotary",
            activation=text(config, "hidden_act", "silu"),
            qk_norm=qk_norm,
            attention_dropout=probability(config, "attention_dropout"),
        ),
    )
