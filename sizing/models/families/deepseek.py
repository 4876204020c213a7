"""DeepSeek V2 and V3: latent attention, routed and shared experts (arXiv:2405.04434, arXiv:2412.19437)."""

from __future__ import annotations

from sizing.models.facts import AttentionLayers, Latent, Stack
from sizing.models.families.layout import (
    Config,
    Layout,
    Tensors,
    check_experts,
    flag,
    layer_count,
    output_head,
    positive_int,
    probability,
    text,
)


def layout(config: Config) -> Layout:
    """`deepseek_v2`, `deepseek_v3`.

    The cache holds one latent and one rotary key a token, whatever the number of heads, with vLLM and SGLang as with
    transformers 5, which expands them layer by layer (`DeepseekV3Attention.expand_kv`).
    """
    hidden, layers = positive_int(config, "hidden_size"), layer_count(config, "num_hidden_layers")
    heads, vocab = positive_int(config, "num_attention_heads"), positive_int(config, "vocab_size")
    ff, width = positive_int(config, "intermediate_size"), positive_int(config, "moe_intermediate_size")
    latent = positive_int(config, "kv_lora_rank")
    rope, plain = positive_int(config, "qk_rope_head_dim"), positive_int(config, "qk_nope_head_dim")
    value = positive_int(config, "v_head_dim")
    experts = positive_int(config, "n_routed_experts")
    chosen = positive_int(config, "num_experts_per_tok")
    shared = positive_int(config, "n_shared_experts", default=0, least=0) * width
    dense = min(layers, positive_int(config, "first_k_dense_replace", default=0, least=0))
    sparse = layers - dense
    check_experts(chosen, experts)
    bias = flag(config, "attention_bias")
    tied = flag(config, "tie_word_embeddings")
    attention, mlp = "model.layers.self_attn", "model.layers.mlp"

    t = Tensors()
    t.add("model.embed_tokens.weight", (vocab, hidden), kind="embedding", part="shared", shard="vocab", layered=False)
    rank = 0 if config.get("q_lora_rank") is None else positive_int(config, "q_lora_rank")
    if not rank:
        t.linear(f"{attention}.q_proj", heads * (plain + rope), hidden, layers, shard="column")
    else:
        t.linear(f"{attention}.q_a_proj", rank, hidden, layers, bias=bias)
        t.norm(f"{attention}.q_a_layernorm", rank, layers)
        t.linear(f"{attention}.q_b_proj", heads * (plain + rope), rank, layers, shard="column")
    t.linear(f"{attention}.kv_a_proj_with_mqa", latent + rope, hidden, layers, bias=bias)
    t.norm(f"{attention}.kv_a_layernorm", latent, layers)
    t.linear(f"{attention}.kv_b_proj", heads * (plain + value), latent, layers, shard="column")
    t.linear(f"{attention}.o_proj", hidden, heads * value, layers, bias=bias, shard="row")
    t.gated_mlp(mlp, ff, hidden, dense)
    t.mixture(mlp, "gate", experts, width, hidden, sparse)
    if shared:
        t.gated_mlp(f"{mlp}.shared_experts", shared, hidden, sparse)
    t.norm("model.layers.input_layernorm", hidden, layers)
    t.norm("model.layers.post_attention_layernorm", hidden, layers)
    t.norm("model.norm", hidden, layered=False)
    output_head(t, config, vocab, hidden, embedding="model.embed_tokens.weight", tied=tied)
    return Layout(
        architecture="decoder-only",
        tensors=t.done(),
        vocab_size=vocab,
        context_window=positive_int(config, "max_position_embeddings", default=4096),
        tied_embeddings=tied,
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=1,
            head_dim=plain + rope,
            intermediate_size=max(chosen * width + shared, ff if dense else 0),
            gated=True,
            attention=(AttentionLayers(layers, 1, latent + rope, 0),),
            latent=Latent(latent, rope, value, rank),
            experts=experts if sparse else 0,
            experts_per_token=chosen if sparse else 0,
            expert_size=width if sparse else 0,
            norm="rmsnorm",
            position="rotary",
            activation=text(config, "hidden_act", "silu"),
            attention_dropout=probability(config, "attention_dropout"),
        ),
        notes=(
            "the cache holds latents (multi-head latent attention); transformers before 5 keeps them expanded, "
            f"{heads * (plain + rope + value) / (latent + rope):.0f} times as large",
        ),
    )
