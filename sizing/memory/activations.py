"""Peak of live activations in a forward pass without gradients, followed operation by operation.

Each function replays what one operation of transformers' eager PyTorch code allocates and frees, in order, on a
`Tape`: norms that go through fp32, rotary temporaries, attention scores and their fp32 softmax, the gated MLP, the
logits and their fp32 copy. Checked against the live bytes of real runs (`scripts/oracle_inference.py`) and published
peaks (`make accuracy`).

Notation in the code: n tokens of this pass (batch × length), e bytes per element of the compute dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizing.memory.liveness import Tape
from sizing.memory.quirks import PLAIN, Quirks
from sizing.memory.setup import Attention
from sizing.models.facts import Latent, Stack

FP32 = 4.0
INDEX = 8.0
# Temporaries of an activation function beside its input and output, in tensors of the input's size: `gelu_new` and its
# relatives are written out in Python (transformers activations.NewGELUActivation), the others are one kernel.
_WRITTEN_OUT = {"gelu_new", "gelu_fast", "quick_gelu", "gelu_python"}


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: `batch` sequences of `length` tokens that attend to `context` tokens each.

    `masked`: a padding mask is there (sequences of unequal length), which rules out grouped-query kernels.
    """

    batch: int
    length: int
    context: int
    element_bytes: float
    attention: Attention
    tensor_parallel: int = 1
    masked: bool = False
    quirks: Quirks = PLAIN
    softmax_in_kernel: bool = False
    """`at::softmax` takes fp16 to fp32 inside its CUDA kernel; other 16-bit input is copied to fp32 first."""
    fp32_rows: bool = False
    """The MLP's last matrix is kept in fp32: its input is cast."""
    dequantized: float = 0.0
    """Bytes of a matrix expanded from 4 bit while it is multiplied."""

    @property
    def tokens(self) -> int:
        return self.batch * self.length


def norm(tape: Tape, stack: Stack, p: Pass, width: float | None = None) -> float:
    """A normalization; returns the output's bytes. RMSNorm is written out, through fp32; LayerNorm is one kernel."""
    elements = p.tokens * (width or stack.hidden_size)
    if stack.norm == "layernorm":
        return tape.new(elements * p.element_bytes)
    upcast = tape.new(elements * FP32) if p.element_bytes < FP32 else 0.0
    squares = tape.new(elements * FP32)
    tape.free(squares)
    scaled = tape.new(elements * FP32)
    tape.free(upcast)
    cast = tape.new(elements * p.element_bytes) if p.element_bytes < FP32 else 0.0
    out = tape.new(elements * p.element_bytes)
    tape.free(scaled, cast)
    return out


def rotate(tape: Tape, elements: float, e: float) -> float:
    """`x·cos + rotate_half(x)·sin` (RoFormer, arXiv:2104.09864, as transformers writes it)."""
    first = tape.new(elements * e)
    half = tape.new(elements * e / 2)
    turned = tape.new(elements * e)
    tape.free(half)
    second = tape.new(elements * e)
    tape.free(turned)
    out = tape.new(elements * e)
    tape.free(first, second)
    return out


def scores(
    tape: Tape, p: Pass, *, heads: float, kv_heads: float, head_dim: float, context: int, biased: bool, causal: bool
) -> tuple[float, float]:
    """softmax(q·kᵀ)·v; returns the bytes of the output and of the weights. eager keeps b·heads·s·context scores several
    times, kernels keep none."""
    e = p.element_bytes
    query = p.tokens * heads * head_dim * e
    keys = p.batch * context * heads * head_dim * e
    grouped = heads > kv_heads
    if p.attention == "flash":
        return tape.new(query), 0.0
    if p.attention == "sdpa":
        # A position bias becomes a full additive mask; grouped heads are repeated where a mask rules out `enable_gqa`.
        repeated = 2 * keys if grouped and p.length > 1 and (p.masked or biased) else 0.0
        mask = p.batch * heads * p.length * context * e if biased else 0.0
        held = [tape.new(repeated / 2), tape.new(repeated / 2), tape.new(mask), tape.new(mask if p.masked else 0.0)]
        out = tape.new(query)
        tape.free(*held)
        return out, 0.0
    q = p.quirks
    elements = p.batch * heads * p.length * context
    width = FP32 if q.fp32_scores else e
    repeated_keys = tape.new(keys) if grouped else 0.0
    repeated_values = tape.new(keys) if grouped else 0.0
    contiguous_query = tape.new(query / e * width)
    contiguous_keys = tape.new(keys / e * width)
    raw = tape.new(elements * width)
    kept = raw if q.keeps_raw_scores else 0.0
    if not q.fp32_scores:
        tape.free(contiguous_query, contiguous_keys)
        contiguous_query = contiguous_keys = 0.0
    scaled = tape.new(elements * width) if not q.keeps_raw_scores else raw
    if not q.keeps_raw_scores:
        tape.free(raw)
    if causal or p.masked or biased:
        masked = tape.new(elements * width)
        if not q.keeps_raw_scores:
            tape.free(scaled)
        scaled = masked
    shifted = 0.0
    if q.sinks:
        # Joined with the sinks, then less their maximum, which stays until the function returns.
        joined = tape.new(elements * width)
        shifted = tape.new(elements * width)
        tape.free(joined)
    weights = _softmax(tape, p, elements, scaled)
    tape.free(contiguous_query, contiguous_keys)
    if kept and scaled is not kept:
        tape.free(kept)
    contiguous_values = tape.new(keys)
    out = tape.new(query)
    tape.free(contiguous_values)
    transposed = tape.new(query)
    tape.free(out, repeated_keys, repeated_values, shifted)
    return transposed, weights


def _softmax(tape: Tape, p: Pass, elements: float, scaled: float) -> float:
    """The attention weights' bytes; `scaled` scores are let go."""
    e = p.element_bytes
    if e >= FP32 or not (p.quirks.fp32_softmax or p.quirks.fp32_scores):
        weights = tape.new(elements * e)
        tape.free(scaled)
        return weights
    copied = tape.new(elements * FP32) if p.quirks.fp32_softmax and not p.softmax_in_kernel else 0.0
    soft = tape.new(elements * FP32)
    tape.free(copied)
    weights = tape.new(elements * e)
    tape.free(soft, scaled)
    return weights


def self_attention(
    tape: Tape, stack: Stack, p: Pass, *, kv_heads: int, head_dim: int, causal: bool
) -> tuple[float, float]:
    """Projections, positions, scores, output projection; the cache itself is counted apart.

    Returns the bytes of the output [n, h] and of the attention weights that live on.
    """
    if stack.latent is not None:
        return latent_attention(tape, stack, stack.latent, p, causal=causal)
    e, n = p.element_bytes, p.tokens
    heads = stack.heads / p.tensor_parallel
    kv = max(1.0, kv_heads / p.tensor_parallel)
    sizes = (n * heads * head_dim * e, n * kv * head_dim * e, n * kv * head_dim * e)
    fused = tape.new(sum(sizes)) if p.quirks.fused_qkv else 0.0
    query, key = 0.0, 0.0
    if not fused:
        query = tape.new(sizes[0])
        if stack.qk_norm:
            query = _renew(tape, query, norm(tape, stack, p, heads * head_dim))
        key = tape.new(sizes[1])
        if stack.qk_norm:
            key = _renew(tape, key, norm(tape, stack, p, kv * head_dim))
    value = 0.0 if fused else tape.new(sizes[2])
    if stack.position == "rotary":
        turned_query = rotate(tape, n * heads * head_dim, e)
        turned_key = rotate(tape, n * kv * head_dim, e)
        tape.free(query, key)
        query, key = turned_query, turned_key
    if causal:
        # The cache keeps its own copy of the keys and values by concatenation; these are let go.
        tape.free(key, value)
        key = value = 0.0
    out, weights = scores(
        tape,
        p,
        heads=heads,
        kv_heads=kv,
        head_dim=head_dim,
        context=p.context,
        biased=stack.position in ("relative", "alibi"),
        causal=causal and p.length > 1,
    )
    projected = tape.new(n * stack.hidden_size * e)
    tape.free(out, query, key, value, fused)
    if not p.quirks.holds_weights:
        tape.free(weights)
        weights = 0.0
    return projected, weights


def latent_attention(tape: Tape, stack: Stack, latent: Latent, p: Pass, *, causal: bool) -> tuple[float, float]:
    """Multi-head latent attention (`DeepseekV3Attention`): the latents of the whole context are expanded to keys and
    values of every head, in each layer and pass anew. Returns as `self_attention`."""
    e, n = p.element_bytes, p.tokens
    heads = stack.heads / p.tensor_parallel
    seen = p.batch * p.context
    if latent.query_rank:
        low = tape.new(n * latent.query_rank * e)
        low = _renew(tape, low, norm(tape, stack, p, latent.query_rank))
        query = tape.new(n * heads * stack.head_dim * e)
        tape.free(low)
    else:
        query = tape.new(n * heads * stack.head_dim * e)
    compressed = tape.new(n * (latent.rank + latent.rope) * e)
    normed = norm(tape, stack, p, latent.rank)
    turned = rotate(tape, n * heads * latent.rope, e)
    key_turned = rotate(tape, n * latent.rope, e)
    # The cache has its own copy of both.
    tape.free(normed, key_turned)
    whole_query = tape.new(n * heads * stack.head_dim * e)
    expanded = tape.new(seen * heads * (stack.head_dim - latent.rope + latent.value) * e)
    keys = tape.new(seen * heads * stack.head_dim * e)
    out, weights = scores(
        tape,
        p,
        heads=heads,
        kv_heads=heads,
        head_dim=latent.value,
        context=p.context,
        biased=False,
        causal=causal and p.length > 1,
    )
    projected = tape.new(n * stack.hidden_size * e)
    tape.free(out, keys, expanded, whole_query, turned, compressed, query)
    if not p.quirks.holds_weights:
        tape.free(weights)
        weights = 0.0
    return projected, weights


def _renew(tape: Tape, old: float, fresh: float) -> float:
    tape.free(old)
    return fresh


def cross_attention(tape: Tape, stack: Stack, p: Pass, encoder_tokens: int) -> tuple[float, float]:
    """Attention over the encoder's output; its keys and values stand in the cache. Returns as `self_attention`."""
    e, n = p.element_bytes, p.tokens
    heads = stack.heads / p.tensor_parallel
    query = tape.new(n * heads * stack.head_dim * e)
    out, weights = scores(
        tape,
        p,
        heads=heads,
        kv_heads=heads,
        head_dim=stack.head_dim,
        context=encoder_tokens,
        biased=stack.position == "relative",
        causal=False,
    )
    projected = tape.new(n * stack.hidden_size * e)
    tape.free(out, query)
    if not p.quirks.holds_weights:
        tape.free(weights)
        weights = 0.0
    return projected, weights


def activate(tape: Tape, held: float, size: float, name: str) -> float:
    """An activation function over `size` bytes; `held` is its input, let go after."""
    if name == "bloom_gelu":
        # `bloom_gelu_forward`: half of x, three factors of the tanh's argument, beside x itself.
        parts = [tape.new(size) for _ in range(4)]
        tape.free(*parts)
        out = tape.new(size)
    elif name == "relu2":
        # `ReLUSquaredActivation`: the relu stands beside its square.
        relu = tape.new(size)
        out = tape.new(size)
        tape.free(relu)
    elif name in _WRITTEN_OUT:
        first = tape.new(size)
        second = tape.new(size)
        third = tape.new(size)
        tape.free(second, third)
        out = tape.new(size)
        tape.free(first)
    else:
        out = tape.new(size)
    tape.free(held)
    return out


def mlp(tape: Tape, stack: Stack, p: Pass) -> float:
    """The feed-forward layer. Returns [n, h] bytes."""
    if stack.experts:
        return experts(tape, stack, p)
    return dense_mlp(tape, stack, p, stack.intermediate_size)


def dense_mlp(tape: Tape, stack: Stack, p: Pass, width: float) -> float:
    """An MLP of `width` that every token passes. Returns [n, h] bytes."""
    e, n = p.element_bytes, p.tokens
    inner = n * width / p.tensor_parallel * e
    expanded = tape.new(p.dequantized)
    if stack.gated and p.quirks.fused_gate:
        both = tape.new(2 * inner)
        active = tape.new(inner)
        product = tape.new(inner)
        tape.free(both, active)
    elif stack.gated:
        gate = tape.new(inner)
        active = activate(tape, gate, inner, stack.activation)
        up = tape.new(inner)
        product = tape.new(inner)
        tape.free(active, up)
    else:
        up = tape.new(inner)
        product = activate(tape, up, inner, stack.activation)
    if p.fp32_rows and e < FP32:
        cast = tape.new(inner / e * FP32)
        tape.free(product)
        product = cast
    out = tape.new(n * stack.hidden_size * (FP32 if p.fp32_rows else e))
    tape.free(product, expanded)
    return out


def experts(tape: Tape, stack: Stack, p: Pass) -> float:
    """A mixture of experts, as `grouped_mm_experts_forward` runs it (transformers 5, integrations/moe.py).

    A token's row is there once for each of its experts, in the experts' order; one product for all experts; the rows
    are weighted, put back in their order, and summed. What all tokens pass beside the experts is an MLP of its own.
    """
    e, n = p.element_bytes, p.tokens
    rows = n * stack.experts_per_token
    width = (stack.expert_size or stack.intermediate_size / max(1, stack.experts_per_token)) / p.tensor_parallel
    shared = stack.intermediate_size - stack.experts_per_token * stack.expert_size if stack.expert_size else 0
    beside = dense_mlp(tape, stack, p, shared) if shared > 0 and p.quirks.shared_first else 0.0
    router = tape.new(n * stack.experts * e)
    odds = tape.new(n * stack.experts * FP32)
    tape.free(odds)
    places = tape.new(rows * 2 * INDEX)
    wide = rows * stack.hidden_size * e
    gathered = tape.new(wide)
    inner = rows * width * e
    biases = tape.new(2 * inner) if p.quirks.clamped_experts else 0.0
    both = tape.new(2 * inner)
    active = tape.new(inner)
    # gpt-oss clamps gate and up, and adds 1 to up, before they meet.
    steps = [tape.new(inner) for _ in range(3 if p.quirks.clamped_experts else 0)]
    product = tape.new(inner)
    tape.free(both, active, biases, *steps)
    biases = tape.new(wide) if p.quirks.clamped_experts else 0.0
    down = tape.new(wide)
    tape.free(product)
    weighted = tape.new(wide)
    back = tape.new(rows * INDEX)
    ordered = tape.new(wide)
    tape.free(weighted)
    out = tape.new(n * stack.hidden_size * e)
    tape.free(ordered, back, down, gathered, places, biases)
    if shared > 0:
        beside = beside or dense_mlp(tape, stack, p, shared)
        total = tape.new(n * stack.hidden_size * e)
        tape.free(beside, out)
        out = total
    tape.free(router)
    return out


@dataclass(slots=True)
class Carried:
    """What one layer leaves to the next: hidden states, and the attention weights that some model types hold."""

    hidden: float
    weights: float = 0.0


def layer(
    tape: Tape,
    stack: Stack,
    p: Pass,
    came: Carried,
    *,
    kv_heads: int,
    head_dim: int,
    causal: bool,
    encoder_tokens: int = 0,
) -> Carried:
    """One layer. Its input [n, h] is let go at the end, since the caller holds it."""
    n, e = p.tokens, p.element_bytes
    size = n * stack.hidden_size * e
    normed = 0.0 if p.quirks.post_norm else norm(tape, stack, p)
    attended, weights = self_attention(tape, stack, p, kv_heads=kv_heads, head_dim=head_dim, causal=causal)
    tape.free(came.weights)
    if stack.parallel_residual:
        fed = mlp(tape, stack, p)
        total = tape.new(size)
        tape.free(normed, attended, fed, came.hidden)
        return Carried(total, weights)
    tape.free(normed)
    residual = tape.new(size)
    kept_output = attended if p.quirks.holds_attention_output else 0.0
    if not kept_output:
        tape.free(attended)
    if p.quirks.post_norm:
        residual = _renew(tape, residual, norm(tape, stack, p))
    if stack.cross_attention:
        normed = 0.0 if p.quirks.post_norm else norm(tape, stack, p)
        attended, cross_weights = cross_attention(tape, stack, p, encoder_tokens)
        weights += cross_weights
        tape.free(normed)
        summed = tape.new(size)
        tape.free(attended, residual)
        residual = summed
        if p.quirks.post_norm:
            residual = _renew(tape, residual, norm(tape, stack, p))
    normed = 0.0 if p.quirks.post_norm else norm(tape, stack, p)
    fed = mlp(tape, stack, p)
    tape.free(normed)
    summed = tape.new(size)
    tape.free(fed, residual, came.hidden, kept_output)
    if p.quirks.holds_weights == "layer":
        tape.free(weights)
        weights = 0.0
    if p.quirks.post_norm:
        summed = _renew(tape, summed, norm(tape, stack, p))
    return Carried(summed, weights)


def stack_peak(stack: Stack, p: Pass, *, causal: bool, encoder_tokens: int = 0) -> float:
    """Peak bytes of one layer's pass and the final norm, with what stands beside it (masks, position bias)."""
    e = p.element_bytes
    peak = 0.0
    for kind in stack.attention:
        tape = Tape()
        if stack.position == "relative":
            heads = stack.heads / p.tensor_parallel
            tape.new(heads * p.length * p.context * e)
        if causal and p.length > 1 and p.attention == "eager":
            tape.new(p.batch * p.length * p.context * e)
        elif p.masked or stack.position == "alibi":
            tape.new(p.batch * p.length * p.context)
        # The token embeddings stay with the caller while the layers run.
        tape.new(p.quirks.held_inputs * p.tokens * stack.hidden_size * e)
        carried = Carried(tape.new(p.tokens * stack.hidden_size * e))
        # Two layers in a row: the second starts from what the first leaves.
        for _ in range(2):
            carried = layer(
                tape,
                stack,
                p,
                carried,
                kv_heads=max(1, kind.kv_heads),
                head_dim=kind.key_dim if kind.key_dim and kind.value_dim else stack.head_dim,
                causal=causal,
                encoder_tokens=encoder_tokens,
            )
        norm(tape, stack, p)
        peak = max(peak, tape.peak)
    return peak


def logits_bytes(rows: int, vocab_size: float, e: float) -> float:
    """Logits of `rows` tokens and their fp32 copy: `.float()` in the model (before transformers 4.45) or
    `.to(copy=True, dtype=float32)` in generate() (since)."""
    tape = Tape()
    tape.new(rows * vocab_size * e)
    tape.new(rows * vocab_size * FP32)
    return tape.peak
