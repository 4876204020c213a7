"""LLaMA and its relatives: pre-norm decoders with rotary positions, gated MLP and grouped-query attention."""

from __future__ import annotations

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Stack
from sizing.models.families.layout import Config, Layout, Tensors, positive_int


def attention_layers(config: Config, layers: int, kv_heads: int, head_dim: int) -> tuple[AttentionLayers, ...]:
    """Which layers see the whole context and which a window (`layer_types`, `sliding_window` and their relatives)."""
    window = config.get("sliding_window")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise UserError(f"config.json: 'sliding_window' is {window!r}; it must be a whole number of at least 1 or null")
    if config.get("use_sliding_window") is False:
        window = None
    types = config.get("layer_types")
    if window is None:
        sliding = 0
    elif isinstance(types, list):
        sliding = sum(1 for kind in types[:layers] if kind == "sliding_attention")
    elif config.get("sliding_window_pattern"):
        pattern = positive_int(config, "sliding_window_pattern")
        sliding = layers - layers // pattern
    else:
        sliding = layers
    kinds = []
    if layers - sliding:
        kinds.append(AttentionLayers(layers - sliding, kv_heads, head_dim, head_dim))
    if sliding:
        kinds.append(AttentionLayers(sliding, kv_heads, head_dim, head_dim, window))
    return tuple(kinds)


def layout(config: Config) -> Layout:
    """`llama`, `mistral`, `qwen2`, `qwen3`, `granite`: they differ in biases, head size and query/key norms."""
    model_type = config.get("model_type", "llama")
    hidden, layers = positive_int(config, "hidden_size"), positive_int(config, "num_hidden_layers")
    heads = positive_int(config, "num_attention_heads")
    kv_heads = positive_int(config, "num_key_value_heads", default=heads)
    head_dim = positive_int(config, "head_dim", default=max(1, hidden // heads))
    ff, vocab = positive_int(config, "intermediate_size"), positive_int(config, "vocab_size")
    if heads % kv_heads:
        raise UserError(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads")
    if config.get("head_dim") is None and hidden % heads:
        raise UserError(f"config.json: hidden_size {hidden} is not a multiple of its {heads} attention heads")
    qkv_bias = bool(config.get("attention_bias", False)) or model_type == "qwen2"
    out_bias = bool(config.get("attention_bias", False)) and model_type != "qwen2"
    mlp_bias = bool(config.get("mlp_bias", False))
    qk_norm = model_type == "qwen3"
    tied = bool(config.get("tie_word_embeddings", False))

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    attention, mlp = "model.layers.self_attn", "model.layers.mlp"
    t.linear(f"{attention}.q_proj", heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.k_proj", kv_heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.v_proj", kv_heads * head_dim, hidden, layers, bias=qkv_bias, shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * head_dim, layers, bias=out_bias, shard="row")
    if qk_norm:
        t.norm(f"{attention}.q_norm", head_dim, layers)
        t.norm(f"{attention}.k_norm", head_dim, layers)
    t.linear(f"{mlp}.gate_proj", ff, hidden, layers, bias=mlp_bias, shard="column")
    t.linear(f"{mlp}.up_proj", ff, hidden, layers, bias=mlp_bias, shard="column")
    t.linear(f"{mlp}.down_proj", hidden, ff, layers, bias=mlp_bias, shard="row")
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    t.add(
        "lm_head.weight",
        (vocab, hidden),
        part="head",
        shard="vocab",
        layered=False,
        tied_to="model.embed_tokens.weight" if tied else "",
    )
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=2048),
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
            activation="silu",
            qk_norm=qk_norm,
            attention_dropout=float(config.get("attention_dropout", 0.0)),
        ),
    )
