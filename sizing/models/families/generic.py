"""A model type that no family knows, sized from its safetensors header as a plain decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sizing.errors import UserError
from sizing.models.facts import AttentionLayers, Kind, Stack, Tensor
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
                bare=expert,
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
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=ff * chosen if experts and chosen else ff,
            gated=True,
            attention=(AttentionLayers(layers, kv_heads, head_dim, head_dim),),
            experts=experts if chosen else 0,
            experts_per_token=chosen if experts else 0,
            norm="rmsnorm",
            position="rotary",
            activation=text(known, "hidden_act", "silu"),
            attention_dropout=probability(known, "attention_dropout"),
        ),
        notes=(
            f"model type {model_type} is none of Berth's families: its weights are exact (safetensors header), its"
            f" cache and activations those of a plain decoder, {kv_heads} key-value heads of {head_dim} in every layer:"
            " an assumption",
        ),
    )
