"""What a model at one dtype makes a GPU do: bytes to read and operations to compute, per token and per step.

Counting rules: a matrix product is two operations an element and token; attention is `4 · tokens · context · heads ·
head_dim` (Kaplan et al. 2020, arXiv:2001.08361; Korthikanti et al. 2022, arXiv:2205.05198). A decoding step reads each
weight once, whatever the batch, and each sequence's KV cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sizing.dtypes import DType, dtype
from sizing.memory.weights import kept_bytes
from sizing.models.facts import ModelFacts, Stack, Tensor

_CROSS_MARKS = ("encdecattention", "encoder_attn", "crossattention", "cross_attn")
_CROSS_KV_ENDS = ("k", "v", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class Pass:
    """One run through a tower. Bytes are of weights as stored; FLOPs are per token, attention apart."""

    bytes: float
    expert_bytes: float
    """Of all experts together; a step reads those that its tokens chose."""
    expand_bytes: float
    """Written and read again when every quantized matrix is expanded to the compute dtype."""
    flops: float
    layers: float
    """Launch units: 1 a plain layer."""
    linears: float
    """Quantizable matrix products."""


@dataclass(frozen=True, slots=True)
class Work:
    """The passes of a model: `prefill` over the input tokens, `step` for each output token."""

    prefill: Pass
    step: Pass | None
    head_flops: float
    attention_flops: float
    """Per token of input and token of context: `4 · layers · heads · head_dim` of the tower that reads the input."""
    causal: bool
    experts: int
    experts_per_token: int
    kv: tuple[tuple[float, int | None], ...]
    """Bytes a token of decoder self-attention cache, and the window that bounds the tokens kept."""
    cross_kv_bytes: float
    """Bytes an input token of cross-attention cache."""
    step_attention_flops: float
    hidden_size: int
    compute_bytes: float
    kv_heads: int
    blocks: int
    """Sub-layers that end in an all-reduce when matrices are split over GPUs, in a decoding step."""
    prefill_blocks: int

    def kv_bytes(self, context: float, input_tokens: int) -> float:
        """Bytes of KV cache of one sequence: `context` tokens of self-attention, `input_tokens` of cross-attention."""
        own = sum(size * (context if window is None else min(context, window)) for size, window in self.kv)
        return own + self.cross_kv_bytes * input_tokens

    def expert_share(self, tokens: float) -> float:
        """Share of the experts that `tokens` independent tokens touch: `1 − (1 − k/E)^tokens`."""
        if not self.experts:
            return 0.0
        return 1.0 - math.pow(1.0 - self.experts_per_token / self.experts, max(1.0, tokens))


def _quantized(tensor: Tensor, kind: DType) -> bool:
    """Whether `kind` quantizes `tensor`: linear layers, but not the output projection and what stays in fp32."""
    return kind.quantized and tensor.kind == "linear" and tensor.part != "head" and not tensor.keep_fp32


def _read_bytes(tensor: Tensor, kind: DType) -> float:
    """Bytes of `tensor`'s group as `kind` stores it; a tied tensor counts in full, for it is read in full."""
    elements = tensor.count * math.prod(tensor.shape)
    if _quantized(tensor, kind):
        return elements * kind.weight_bytes + tensor.count * tensor.shape[0] * kind.row_scale_bytes
    return elements * kept_bytes(tensor, kind)


def _is_cross_kv(tensor: Tensor) -> bool:
    words = tensor.name.lower().removesuffix(".weight").removesuffix(".bias").split(".")
    return words[-1] in _CROSS_KV_ENDS and any(mark in word for word in words for mark in _CROSS_MARKS)


def _times(model: ModelFacts, tensor: Tensor) -> float:
    """How often a token passes `tensor`'s group: ALBERT runs its few layers again and again (arXiv:1909.11942)."""
    if model.model_type != "albert" or not tensor.layered:
        return 1.0
    return model.main.layers / tensor.count


def _pass(model: ModelFacts, kind: DType, takes: Callable[[Tensor], bool], layers: float) -> Pass:
    dense = experts = expand = flops = linears = 0.0
    share = model.main.experts_per_token / model.main.experts if model.main.experts else 1.0
    for tensor in model.tensors:
        if not takes(tensor) or tensor.kind in ("embedding", "position"):
            continue
        times = _times(model, tensor)
        size = _read_bytes(tensor, kind) * times
        if tensor.expert:
            experts += size
        else:
            dense += size
        if tensor.kind == "linear":
            elements = tensor.count * math.prod(tensor.shape) * times
            flops += 2.0 * elements * (share if tensor.expert else 1.0)
            if _quantized(tensor, kind):
                expand += 2.0 * elements * kind.compute_bytes * (share if tensor.expert else 1.0)
                linears += tensor.count * (share if tensor.expert else 1.0)
    return Pass(dense, experts, expand, flops, layers, linears)


def _attention_flops(stack: Stack) -> float:
    return 4.0 * stack.layers * stack.heads * stack.head_dim


def work_of(model: ModelFacts, dtype_name: str) -> Work:
    """The `Work` of `model` with its weights held as `dtype_name`."""
    kind = dtype(dtype_name)
    encoder, decoder = model.encoder, model.decoder
    reader = encoder or decoder
    if reader is None:
        raise ValueError(f"{model.name} has no layers")
    head = [t for t in model.tensors if t.part == "head" and t.kind == "linear"]
    head_flops = sum(2.0 * t.count * math.prod(t.shape) for t in head)
    if encoder is not None:
        prefill = _pass(
            model,
            kind,
            # An encoder's published head predicts masked words; serving puts a small classifier in its place.
            lambda t: t.part == "encoder" or _is_cross_kv(t),
            encoder.layers + (0.25 * decoder.layers if decoder else 0.0),
        )
    else:
        prefill = _pass(model, kind, lambda t: t.part == "decoder", reader.layers)
    step = None
    if decoder is not None:
        # T5's three blocks a layer, without rotary positions, launch in the time of LLaMA's two with them
        # (T5-3B on two T4, T0pp on two Titan RTX: `measured.csv`).
        step = _pass(model, kind, lambda t: t.part in ("decoder", "head") and not _is_cross_kv(t), decoder.layers)
        if not head:
            # The output projection is the embedding itself; it is read in full at every step.
            tied = model.vocab_size * decoder.hidden_size
            step = Pass(
                step.bytes + tied * kind.kept_bytes,
                step.expert_bytes,
                step.expand_bytes,
                step.flops + 2.0 * tied,
                step.layers,
                step.linears,
            )
            head_flops = 2.0 * tied
    main = model.main
    return Work(
        prefill=prefill,
        step=step,
        head_flops=head_flops,
        attention_flops=_attention_flops(reader),
        causal=encoder is None,
        experts=main.experts,
        experts_per_token=main.experts_per_token,
        kv=tuple(
            (a.layers * a.kv_heads * (a.key_dim + a.value_dim) * kind.compute_bytes, a.window)
            for a in (decoder.attention if decoder else ())
        ),
        cross_kv_bytes=(
            2.0 * decoder.layers * decoder.kv_heads * decoder.head_dim * kind.compute_bytes
            if decoder and decoder.cross_attention
            else 0.0
        ),
        step_attention_flops=_attention_flops(decoder) if decoder else 0.0,
        hidden_size=main.hidden_size,
        compute_bytes=kind.compute_bytes,
        kv_heads=main.kv_heads,
        blocks=decoder.layers * (3 if decoder.cross_attention else 2) if decoder else 0,
        prefill_blocks=2 * reader.layers,
    )
