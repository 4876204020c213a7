"""Memory at inference, per device: weights, KV cache, activations, logits, runtime; and the host's while loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sizing.dtypes import DType
from sizing.dtypes import dtype as dtype_called
from sizing.errors import UserError
from sizing.memory.activations import Pass, logits_bytes, stack_peak
from sizing.memory.engines import Engine, engine
from sizing.memory.kv_cache import CacheSize, cache_size
from sizing.memory.quirks import quirks_of
from sizing.memory.runtime import context_terms, slack_term, weight_rounding, workspace_term
from sizing.memory.setup import Attention, InferenceSetup
from sizing.memory.terms import Breakdown, MemoryEstimate, RuleOfThumb, Term, term
from sizing.memory.weights import bare_bytes, element_bytes, largest_quantized_matrix, weight_terms
from sizing.models.facts import ModelFacts, Stack
from sizing.units import GIB, gib

# Before transformers 4.45 every attention layer of these had cosine and sine tables of its own.
_TABLES_PER_LAYER = {"llama", "mistral", "mixtral", "qwen2", "phi", "gemma", "falcon", "gpt_neox"}
EXLLAMA_ROWS = 2048
"""Rows of exllama's state buffer (`max_input_length`, AutoGPTQ's default)."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One moment of a request: its temporary tensors and the cache that stands by then, in bytes."""

    name: str
    layers: float
    """Peak of the temporary tensors while the layers run."""
    hidden: float
    """What stands beside the logits when they are computed: last hidden states, the encoder's output."""
    logits: float
    """Logits in the compute dtype and in fp32."""
    cache: float
    cache_copy: float
    cache_formula: str = ""

    @property
    def temporary(self) -> float:
        return max(self.layers, self.hidden + self.logits)

    @property
    def peak(self) -> float:
        return self.temporary + self.cache + self.cache_copy

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "activations_bytes": round(self.layers),
            "logits_bytes": round(self.logits),
            "kv_cache_bytes": round(self.cache + self.cache_copy),
            "peak_beside_weights_bytes": round(self.peak),
        }


def check_sharding(model: ModelFacts, tensor_parallel: int) -> None:
    """Raise `UserError` when the model's heads cannot be split over `tensor_parallel` devices."""
    for stack in model.stacks:
        if stack.heads % tensor_parallel:
            raise UserError(
                f"{model.name} has {stack.heads} attention heads, which cannot be split over {tensor_parallel} "
                f"devices; use a divisor of {stack.heads} (--tensor-parallel)"
            )


def estimate_inference(model: ModelFacts, setup: InferenceSetup) -> MemoryEstimate:
    """Device terms for each of `setup.tensor_parallel` devices, host terms for the whole machine; all in bytes.

    Allocated memory is predicted by replaying the allocations of the forward pass (`sizing.memory.activations`);
    reserved adds the caching allocator's slack, driver the CUDA context. Raises `UserError` for a closed model, an
    unknown dtype or a split that cannot be made.
    """
    from sizing.memory.loading import host_terms

    dtype = dtype_called(setup.dtype)
    habits = engine(setup.engine)
    _check(model, setup)
    weights = weight_terms(model, dtype, habits, setup.tensor_parallel)
    permanent = float(sum(t.bytes for t in weights))
    phases, cache, grown = _phases(model, setup, dtype, habits)
    peak = max(phases, key=lambda phase: phase.peak)
    held = [(phase.peak, phase.temporary) for phase in phases]
    terms = [*weights, *_cache_terms(cache, peak)]
    terms.extend(_temporary_terms(model, setup, dtype, peak))
    terms.append(workspace_term())
    if dtype.name.startswith("gptq"):
        terms.append(_exllama_buffers(model, dtype, habits, setup.tensor_parallel))
    tables = _rotary_tables(model, dtype, habits)
    if tables:
        terms.append(term("rotary tables", tables, "cosine and sine of the context window in every layer"))
    if habits.fuses_qkv:
        loading = _fused_copies(model, dtype, setup.tensor_parallel)
        terms.append(_load_peak(loading, peak.peak))
        held.append((loading, 0.0))
    rounding = weight_rounding(model, partial(element_bytes, dtype=dtype, engine=habits), setup.tensor_parallel)
    terms.append(slack_term(rounding, grown, held, permanent))
    terms.extend(context_terms(setup.tensor_parallel))
    return MemoryEstimate(
        device=Breakdown(tuple(terms), _notes(model, setup, dtype, weights)),
        host=Breakdown(host_terms(model, setup.dtype, setup.loading, ranks=setup.tensor_parallel)),
        rule_of_thumb=RuleOfThumb(model.params, _rule_bytes(dtype)),
        assumptions={
            "engine": habits.label,
            "attention": setup.attention,
            "loading": setup.loading,
            "per_device": setup.tensor_parallel > 1,
            "phases": [p.to_json() for p in phases],
            "metric": "driver: as nvidia-smi shows it; by_metric has allocated and reserved as well",
        },
    )


def largest_batch(model: ModelFacts, setup: InferenceSetup, capacity_bytes: int, limit: int = 4096) -> int:
    """The largest batch, up to `limit`, whose likely driver-level total fits `capacity_bytes`; 0 if none does."""

    def fits(batch: int) -> bool:
        return estimate_inference(model, setup.with_batch(batch)).device.total_bytes <= capacity_bytes

    return _largest(fits, limit)


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _check(model: ModelFacts, setup: InferenceSetup) -> None:
    if not model.deployable or not model.stacks:
        raise UserError(f"{model.name} is closed: its weights are not published, so no memory can be estimated for it")
    if dtype_called(setup.dtype).experts_only and not model.main.experts:
        raise UserError(f"{setup.dtype} stores a mixture's experts, and {model.name} has none; use another --dtype")
    if setup.tensor_parallel > 1:
        check_sharding(model, setup.tensor_parallel)


def _rule_bytes(dtype: DType) -> float:
    """Bytes a parameter that the rule of thumb takes: whole bytes, half a byte for 4 bit."""
    if not dtype.quantized:
        return dtype.weight_bytes
    return 0.5 if dtype.weight_bytes < 1 else 1.0


def attention_run(model: ModelFacts, stack: Stack, setup: InferenceSetup) -> Attention:
    """The attention that runs where `setup` asks for one: transformers has no sdpa for some model types."""
    quirks = quirks_of(model.model_type)
    lacking = quirks.eager_only and not (setup.attention == "flash" and quirks.has_flash)
    if setup.attention != "eager" and lacking and not engine(setup.engine).has_every_attention:
        return "eager"
    if setup.attention == "flash" and stack.position in ("relative", "alibi"):
        return "sdpa"  # no flash kernel takes an additive bias
    return setup.attention


def _pass(
    model: ModelFacts, stack: Stack, setup: InferenceSetup, dtype: DType, habits: Engine, length: int, context: int
) -> Pass:
    largest = largest_quantized_matrix(model, dtype, habits, setup.tensor_parallel)
    quirks = quirks_of(model.model_type)
    if not habits.holds_attention_weights:
        quirks = replace(quirks, holds_weights="")
    return Pass(
        batch=setup.batch,
        length=length,
        context=context,
        element_bytes=dtype.compute_bytes,
        attention=attention_run(model, stack, setup),
        tensor_parallel=setup.tensor_parallel,
        masked=setup.batch > 1,
        quirks=quirks,
        # CUDA tensors in fp16 only; GPTQ, AWQ and LLM.int8 compute in fp16.
        softmax_in_kernel=dtype.name in ("fp16", "int8") or dtype.name.startswith(("gptq", "awq")),
        fp32_rows=any(t.keep_fp32 for t in model.tensors) and dtype.name in ("fp16", "int8", "nf4", "nf4-dq"),
        dequantized=(
            largest * dtype.compute_bytes * habits.dequantize_copies
            if dtype.dequantizes and setup.batch * length > 1
            else 0.0
        ),
    )


def _phases(
    model: ModelFacts, setup: InferenceSetup, dtype: DType, habits: Engine
) -> tuple[list[Phase], CacheSize, float]:
    """The moments of a request that can be its peak (prefill, decode), the cache at its end, and how many bytes of that
    grew by concatenation."""
    e = dtype.compute_bytes
    b, tp = setup.batch, setup.tensor_parallel
    cache_bytes = dtype_called(setup.kv_dtype).weight_bytes if setup.kv_dtype else e
    encoder, decoder = model.encoder, model.decoder
    vocab = model.vocab_size / tp
    phases = []

    def cache_at(tokens: int, *, whole_prompt: bool = False) -> CacheSize:
        return cache_size(
            model,
            habits,
            batch=b,
            tokens=tokens,
            encoder_tokens=setup.input_tokens if encoder is not None else 0,
            element_bytes=cache_bytes,
            tensor_parallel=tp,
            whole_prompt=whole_prompt,
        )

    encoded = 0.0
    if encoder is not None:
        p = _pass(model, encoder, setup, dtype, habits, setup.input_tokens, setup.input_tokens)
        phases.append(Phase("the encoder's pass", stack_peak(encoder, p, causal=False), 0.0, 0.0, 0.0, 0.0))
        encoded = b * setup.input_tokens * encoder.hidden_size * e
    if decoder is None:
        return phases, cache_at(0), 0.0

    prompt = 1 if encoder is not None else setup.input_tokens
    whole = prompt + setup.output_tokens
    cache = cache_at(whole)
    static = cache if habits.cache == "static" else None
    prompt_rows = b * prompt if habits.all_logits else b
    # (name, tokens of this pass, tokens it sees, rows whose fp32 logits are still held from the pass before)
    moments = [("the prompt's pass", prompt, prompt, 0)]
    if setup.output_tokens > 1:
        # `outputs` of a pass lives until the next one returns, unless generate() deletes it (transformers >= 4.45).
        moments.append(("the second token's pass", 1, prompt + 1, prompt_rows if habits.all_logits else 0))
        moments.append(("the last token's pass", 1, whole, 0))
    for name, length, context, held_rows in moments:
        p = _pass(model, decoder, setup, dtype, habits, length, context)
        held = held_rows * vocab * 4.0 + encoded
        layers = stack_peak(decoder, p, causal=True, encoder_tokens=setup.input_tokens) + held
        rows = b * length if habits.all_logits else b
        # The last hidden states, before and after the final norm.
        hidden = 2 * b * length * decoder.hidden_size * e + held
        standing = static or cache_at(context, whole_prompt=length > 1)
        if habits.cache == "static" or length > 1:
            copy = 0.0
        elif habits.cache == "grow":
            copy = standing.largest_layer / 2
        else:
            copy = standing.self_attention
        phases.append(Phase(name, layers, hidden, logits_bytes(rows, vocab, e), standing.total, copy, standing.formula))
    if habits.cache == "static" or setup.output_tokens <= 1:
        return phases, cache, 0.0
    return phases, cache, cache_at(whole if encoder is not None else setup.output_tokens).self_attention


def _temporary_terms(model: ModelFacts, setup: InferenceSetup, dtype: DType, peak: Phase) -> list[Term]:
    """Activations, and the logits where they are what makes the peak."""
    if peak.layers >= peak.hidden + peak.logits:
        run = attention_run(model, model.main, setup)
        formula = f"peak of the temporary tensors of a layer in {peak.name} ({run} attention)"
        return [
            term("activations", peak.layers, formula),
            term("logits", 0, "smaller than the layers' temporary tensors, which are gone by then"),
        ]
    return [
        term("activations", peak.hidden, f"hidden states beside the logits of {peak.name}"),
        term("logits", peak.logits, f"vocabulary of {model.vocab_size:,} in {dtype.compute_bytes:g} bytes and in fp32"),
    ]


def _cache_terms(cache: CacheSize, peak: Phase) -> list[Term]:
    terms = []
    if peak.cache:
        own = peak.cache - cache.cross_attention
        terms.append(term("KV cache", own, peak.cache_formula or cache.formula))
        if cache.cross_attention:
            terms.append(term("KV cache, cross-attention", cache.cross_attention, cache.cross_formula))
    if peak.cache_copy:
        terms.append(
            term("KV cache, copy while it grows", peak.cache_copy, "old and new stand side by side for a moment")
        )
    return terms


def _rotary_tables(model: ModelFacts, dtype: DType, habits: Engine) -> float:
    stack = model.decoder
    if (
        not habits.rotary_tables
        or model.model_type not in _TABLES_PER_LAYER
        or stack is None
        or not model.context_window
    ):
        return 0.0
    return stack.layers * 2 * model.context_window * stack.head_dim * dtype.compute_bytes


def _exllama_buffers(model: ModelFacts, dtype: DType, habits: Engine, tensor_parallel: int) -> Term:
    """exllama's buffers for GPTQ: one matrix dequantized in fp16, and the widest layer's input for 2,048 rows."""
    matrix = largest_quantized_matrix(model, dtype, habits, tensor_parallel)
    widest = max((s.intermediate_size for s in model.stacks), default=0) / tensor_parallel
    return term(
        "GPTQ kernel buffers",
        2 * matrix + 2 * EXLLAMA_ROWS * widest,
        f"largest matrix × 2 bytes + {EXLLAMA_ROWS:,} rows × {widest:,.0f} × 2 bytes (exllama, AutoGPTQ)",
    )


def _fused_copies(model: ModelFacts, dtype: DType, tensor_parallel: int) -> float:
    """Bytes of the concatenated query, key and value matrices that stand beside the originals when loading ends."""
    names = (".q_proj.", ".k_proj.", ".v_proj.")
    return sum(t.numel for t in model.tensors if any(n in t.name for n in names)) * dtype.weight_bytes / tensor_parallel


def _load_peak(loading: float, running: float) -> Term:
    """What those copies add over the peak of running."""
    return term(
        "fused query-key-value copies",
        max(0.0, loading - running),
        "concatenated matrices beside the originals when loading ends, over the peak of running",
    )


def _notes(model: ModelFacts, setup: InferenceSetup, dtype: DType, weights: tuple[Term, ...]) -> tuple[str, ...]:
    notes = []
    asked = setup.input_tokens + (0 if model.encoder is not None else setup.output_tokens)
    if model.context_window and asked > model.context_window:
        notes.append(
            f"{asked:,} tokens exceed the context window of {model.context_window:,} that {model.name} was trained on"
        )
    if dtype.name == "int8":
        notes.append(_int8_note(model, weights))
    if setup.attention != "eager" and attention_run(model, model.main, setup) == "eager":
        notes.append(
            f"transformers has no {setup.attention} attention for {model.model_type}: eager attention is taken, whose"
            " scores grow with the square of the prompt"
        )
    left = bare_bytes(model, dtype, engine(setup.engine))
    if left:
        notes.append(
            f"bitsandbytes turns nn.Linear layers alone: {gib(left)} of {model.name} stay in 16 bit, because "
            f"transformers 5 holds {'its experts stacked' if model.main.experts else 'them'} in a class of its own; "
            "a checkpoint published in 4 or 8 bit (gptq-int4, awq-int4, fp8) does not have this"
        )
    return tuple(notes)


def _int8_note(model: ModelFacts, weights: tuple[Term, ...]) -> str:
    """The claim made for LLM.int8 (arXiv:2208.07339), this model's figure, and what the claim leaves out."""
    whole = {t.name: t.bytes for t in weights}
    total = sum(whole.values())
    left_out = [f"{name} {gib(size)}" for name, size in whole.items() if name != "weights" and size >= 0.005 * GIB]
    against_fp32, against_fp16 = (100 * (total / (size * model.params) - 1) for size in (4, 2))
    return (
        "LLM.int8 is quoted as -75 % against fp32 and -50 % against fp16. The linear layers alone do that; this "
        f"model's weights come to {against_fp32:+.0f} % and {against_fp16:+.0f} %, for it leaves out: "
        f"{', '.join(left_out) or 'nothing of note'}; cache, activations and context do not shrink"
    )
