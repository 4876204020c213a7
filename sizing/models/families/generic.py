"""A model type that no family knows, sized from its safetensors header as a plain decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Kind, Latent, Stack, Tensor
from sizing.models.families.layout import (
    Config,
    Layout,
    class_name,
    flag,
    head_dim_of,
    layer_count,
    positive_int,
    probability,
    shown,
    text,
)
from sizing.models.reconcile import is_buffer, unnumbered
from sizing.models.stored import Stored


def text_config(config: Config) -> Config:
    """The part that describes the language model: `text_config` of a multimodal config, else the config itself."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _kind(name: str, shape: tuple[int, ...], vocab: int) -> tuple[Kind, bool]:
    """What a tensor is and whether it is the output layer, from its name and shape."""
    head = "lm_head" in name or "output_layer" in name or "embed_out" in name
    if len(shape) < 2:
        return ("norm" if "norm" in name or "ln_" in name else "bias"), head
    if not head and ("embed" in name or "wte" in name):
        return ("embedding" if shape[0] == vocab else "position"), False
    return ("linear" if len(shape) == 2 else "other"), head


WHOLE = ("full_attention", "attention", "hybrid", "*")
"""How configs call a layer that attends to all of the context."""
WINDOWED = ("sliding_attention", "chunked_attention", "local_attention")


def _kinds(known: Config, layers: int) -> list[str] | None:
    """What each layer is, in the config's words; None where it does not say that layers differ."""
    for key in ("layer_types", "layers_block_type"):
        if isinstance(found := known.get(key), list):
            return [str(kind) for kind in found]
    if isinstance(pattern := known.get("hybrid_override_pattern"), str):
        return list(pattern)  # Nemotron-H: M for Mamba, * for attention, - for an MLP
    for key in ("attn_layer_indices", "full_attn_idxs"):
        if isinstance(attending := known.get(key), list):
            return ["attention" if i in attending else "other" for i in range(layers)]
    if known.get("attn_layer_period") is not None:  # Jamba
        period = positive_int(known, "attn_layer_period")
        offset = positive_int(known, "attn_layer_offset", default=0, least=0)
        return ["attention" if i % period == offset else "other" for i in range(layers)]
    return None


def _attention(known: Config, layers: int, kv_heads: int, head_dim: int) -> tuple[tuple[AttentionLayers, ...], str]:
    """Which layers cache what, and the same in words. Raises `UserError` for a list of another length."""
    kinds = _kinds(known, layers)
    each = f"{kv_heads} key-value heads of {head_dim}"
    if kinds is None:
        return (AttentionLayers(layers, kv_heads, head_dim, head_dim),), f"{each} in every layer"
    if len(kinds) != layers:
        raise UserError(f"config.json: kinds of {len(kinds)} layers are named, 'num_hidden_layers' is {layers}")
    whole, windowed = sum(k in WHOLE for k in kinds), sum(k in WINDOWED for k in kinds)
    window = positive_int(known, "sliding_window", "attention_chunk_size", "local_window_size") if windowed else None
    found = [AttentionLayers(whole, kv_heads, head_dim, head_dim)] if whole else []
    words = [f"{each} in {whole} layers"]
    if windowed:
        found.append(AttentionLayers(windowed, kv_heads, head_dim, head_dim, window))
        words.append(f"in {windowed} a window of {window:,} tokens")
    if rest := layers - whole - windowed:
        found.append(AttentionLayers(rest, 0, 0, 0))
        words.append(f"{rest} layers cache nothing (their states are not counted)")
    return tuple(found), ", ".join(words)


def _latent(known: Config) -> tuple[Latent, int]:
    """The sizes of multi-head latent attention, and a head's of query and key."""
    rope, plain = positive_int(known, "qk_rope_head_dim"), positive_int(known, "qk_nope_head_dim")
    rank = 0 if known.get("q_lora_rank") is None else positive_int(known, "q_lora_rank")
    value = positive_int(known, "v_head_dim", default=plain)
    return Latent(positive_int(known, "kv_lora_rank"), rope, value, rank), plain + rope


def layout(config: Config, stored: Sequence[Stored]) -> Layout:
    """A decoder of the standard keys with the tensors of the header. Raises `UserError` for any other model."""
    model_type = shown(config.get("model_type"))
    stranger = f"config.json: model type {model_type} is none of Berth's families, and"
    known, name = text_config(config), class_name(config)
    decodes = name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    if flag(config, "is_encoder_decoder") or not decodes:
        raise UserError(
            f"{stranger} {shown(name or 'no architecture')} is no decoder; from their headers alone only decoders"
            " (…ForCausalLM) can be sized"
        )
    lacking = [k for k in ("hidden_size", "num_hidden_layers", "num_attention_heads") if known.get(k) is None]
    if lacking:
        raise UserError(f"{stranger} it lacks {', '.join(lacking)}, without which its cache cannot be sized")
    hidden, layers = positive_int(known, "hidden_size"), layer_count(known, "num_hidden_layers")
    heads = positive_int(known, "num_attention_heads")
    kv_heads = positive_int(known, "num_key_value_heads", default=heads)
    head_dim = head_dim_of(known, hidden, heads) if known.get("head_dim") else max(1, hidden // heads)
    vocab = positive_int(known, "vocab_size", default=1)
    experts = positive_int(known, "num_local_experts", "num_experts", "n_routed_experts", default=0, least=0)
    chosen = positive_int(known, "num_experts_per_tok", default=0, least=0)
    ff = positive_int(
        known, "moe_intermediate_size" if experts else "intermediate_size", "intermediate_size", default=4 * hidden
    )

    attention, cached = _attention(known, layers, kv_heads, head_dim)
    latent, latent_head = None, 0
    if known.get("kv_lora_rank") is not None:
        latent, latent_head = _latent(known)
        attention = (AttentionLayers(layers, 1, latent.rank + latent.rope, 0),)
        cached = f"a latent of {latent.rank} and a rotary key of {latent.rope} in every layer"
    several = known is not config and name.endswith("ForConditionalGeneration")

    groups: Counter[tuple[str, tuple[int, ...]]] = Counter()
    numbered: set[str] = set()
    for tensor in stored:
        if not is_buffer(tensor):
            plain = unnumbered(tensor.name)
            groups[plain, tensor.shape] += 1
            if plain != tensor.name:
                numbered.add(plain)
    tensors = []
    for (plain, shape), count in groups.items():
        kind, head = _kind(plain, shape, vocab)
        expert = bool(experts and chosen) and ".experts" in plain
        tensors.append(
            Tensor(
                plain,
                shape,
                count,
                part="head" if head else "shared" if kind == "embedding" else "decoder",
                kind=kind,
                layered=plain in numbered,
                expert=expert,
                # Of Llama 4's experts bitsandbytes makes layers of their own (`SequentialLlama4TextExperts`).
                bare=expert and not str(config["model_type"]).startswith("llama4"),
            )
        )
    if not tensors:
        raise UserError(f"{stranger} its safetensors headers hold no floating tensors")
    return Layout(
        architecture="decoder-only",
        tensors=tuple(tensors),
        vocab_size=vocab,
        context_window=positive_int(known, "max_position_embeddings", default=2048),
        tied_embeddings=not any(t.part == "head" for t in tensors),
        decoder=Stack(
            layers=layers,
            hidden_size=hidden,
            heads=heads,
            kv_heads=1 if latent else kv_heads,
            head_dim=latent_head or head_dim,
            intermediate_size=ff * chosen if experts and chosen else ff,
            gated=True,
            attention=attention,
            latent=latent,
            experts=experts if chosen else 0,
            experts_per_token=chosen if experts else 0,
            norm="rmsnorm",
            position="rotary",
            activation=text(known, "hidden_act", "silu"),
            attention_dropout=probability(known, "attention_dropout"),
        ),
        notes=(
            f"model type {model_type} is none of Berth's families: its weights are exact (safetensors header), its"
            f" cache and activations those of a plain decoder, {cached}: an assumption",
            *(("it reads more than text; what pictures or sound need beside its weights is not counted",) * several),
        ),
    )
