"""Memory of a fine-tuning run, per GPU and for the host: named terms at the moment of the step that needs the most.

The step is played through: forward pass, backward pass layer by layer, the optimizer's step. `estimate_training` lists
what is alive at the worst of these moments, so that the terms add up to the peak that a run shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sizing.dtypes import dtype as dtype_called
from sizing.errors import UserError
from sizing.memory.runtime import context_terms, workspace_term
from sizing.memory.terms import Breakdown, MemoryEstimate, RuleOfThumb, Term, term
from sizing.memory.training.activations import autocast, dialect_for, recipe_for
from sizing.memory.training.host import host_breakdown
from sizing.memory.training.passes import Moment, Step, moments, step_of
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.sharding import deepspeed, fsdp
from sizing.memory.training.states import States, states_of
from sizing.memory.training.trained import trained_numel
from sizing.memory.training.weights import base_dtype, base_parts, is_turned
from sizing.models.facts import ModelFacts
from sizing.units import MIB, count, gib

BYTES_PER_PARAM_RULE = 16.0
"""Mixed-precision Adam: 2 + 2 + 4 + 4 + 4 bytes a parameter (ZeRO, arXiv:1910.02054, section 3.1)."""
CHUNK_TOKENS = 128
"""litgpt's `chunked_cross_entropy(chunk_size=128)`; torchtune's `CEWithChunkedOutputLoss` cuts into 8 pieces."""
TORCHTUNE_CHUNKS = 8
STEP = "the optimizer's step"
START = "DeepSpeed's initialization"


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment of the step with everything that is alive in it, as terms beside the permanent ones."""

    name: str
    terms: tuple[Term, ...]
    total: int = field(default=0)


def estimate_training(model: ModelFacts, setup: TrainingSetup) -> MemoryEstimate:
    """Device terms for each GPU and host terms for each node, in bytes. Raises `UserError` for what cannot be run."""
    check(model, setup)
    states = states_of(model, setup)
    instants = _instants(model, setup, states)
    worst = max(instants, key=lambda i: i.total)
    permanent = sum(t.bytes for t in states.terms)
    # Nothing has come and gone before the first step.
    moving = 0 if worst.name == START else worst.total
    terms = [
        *states.terms,
        *worst.terms,
        *_elsewhere(worst, instants, permanent),
        workspace_term(),
        slack_term(setup, permanent, moving),
        *context_terms(setup.gpus),
    ]
    device = Breakdown(tuple(terms), _notes(model, setup, instants, permanent))
    return MemoryEstimate(
        device, host_breakdown(model, setup), _rule(model, setup), assumptions(model, setup, worst.name)
    )


WORTH_NAMING = 0.005
"""Of the peak: a smaller term that is gone by then goes unnamed."""


def _elsewhere(worst: Instant, instants: list[Instant], permanent: int) -> list[Term]:
    """Terms that are not there at the peak, as 0 bytes, with what they come to and when."""
    there = {t.name for t in worst.terms}
    least = WORTH_NAMING * (permanent + worst.total)
    largest: dict[str, tuple[int, str]] = {}
    for instant in instants:
        for t in instant.terms:
            if t.bytes and t.name not in there and t.bytes > largest.get(t.name, (0, ""))[0]:
                largest[t.name] = (t.bytes, instant.name)
    return [
        term(name, 0, f"none at the peak; {gib(size)} in the {when}")
        for name, (size, when) in largest.items()
        if size >= least
    ]


def check(model: ModelFacts, setup: TrainingSetup) -> None:
    """Raise `UserError` for a model or a combination that no run can have."""
    if not model.tensors:
        raise UserError(f"{model.name} has no published weights, so it cannot be fine-tuned")
    if setup.output_tokens and model.architecture != "encoder-decoder":
        raise UserError(
            f"output-tokens is {setup.output_tokens}, but {model.name} is {model.architecture}: in training prompt and "
            "answer are one sequence; give their sum as --input-tokens"
        )
    for stack in model.stacks:
        if stack.heads % setup.tensor_parallel:
            raise UserError(
                f"{model.name} has {stack.heads} attention heads, which {setup.tensor_parallel} GPUs cannot share "
                f"(--tensor-parallel); use a divisor of {stack.heads}"
            )
    if setup.method == "qlora" and setup.offload == "all" and setup.sharding == "zero":
        raise UserError("qlora with offload all: DeepSpeed does not offload quantized weights; use --offload optimizer")
    if setup.base_dtype:
        dtype_called(setup.base_dtype)


def lengths(model: ModelFacts, setup: TrainingSetup) -> tuple[int, int]:
    """(tokens of the first stack, tokens of the decoder behind an encoder). A soft prompt's tokens are added; a target
    whose length is not given is taken as a quarter of the input."""
    tokens = setup.input_tokens + (setup.prompt_tokens if setup.method == "prompt" else 0)
    if model.architecture != "encoder-decoder":
        return tokens, 0
    return tokens, setup.output_tokens or max(1, setup.input_tokens // 4)


SLACK = 0.15
SLACK_SHARDED = 0.35
SLACK_EMPTIED = 0.03
"""Shares of what comes and goes that the caching allocator holds in pieces too small to be used. Sharded runs gather
parameters in a stream of their own, whose blocks the computation cannot have. Calibrated on runs whose allocated peak
is known or follows from their length sweep: Qwen's LoRA tables (0.1 to 0.2), fsdp_qlora (0.3 to 0.7), PEFT's
MetaMathQA comparison, which empties the cache every ten steps (0 to 0.05)."""


def slack_term(setup: TrainingSetup, permanent: float, moving: float) -> Term:
    """Memory that the caching allocator holds beside live tensors, in bytes: `reserved` less `allocated`."""
    sharded = setup.zero_stage == 3 or fsdp(setup)
    share = SLACK_SHARDED if sharded else SLACK
    if setup.empty_cache_steps:
        share = SLACK_EMPTIED
    return term(
        "allocator slack",
        256 * MIB + share * moving,
        f"256 MiB of partly used blocks + {share:.0%} of what comes and goes",
        low=0.01 * moving,
        high=512 * MIB + 2.5 * share * moving + 0.01 * permanent,
        metric="reserved",
    )


def needed_bytes(estimate: MemoryEstimate) -> int:
    """What a GPU must have for the run to go through, in bytes: the driver's figure with a third of the slack.

    Short of memory, the allocator gives its free segments back and tries again; what stays is in segments partly used.
    Paged optimizer states move to the host.
    """
    device = estimate.device
    slack = device["allocator slack"]
    paged = sum(t.bytes - t.low for t in device.terms if t.name == "optimizer states" and t.metric == "driver")
    return device.total("driver") - slack.bytes + slack.bytes // 3 - paged


def step_for(model: ModelFacts, setup: TrainingSetup) -> Step:
    """The segments of a step of `setup`, with what each keeps for the backward pass."""
    tokens, target = lengths(model, setup)
    return step_of(
        model,
        recipe_for(model, setup),
        setup.micro_batch,
        tokens,
        target,
        checkpointing=setup.checkpointing,
        head_trained=setup.method == "full" or setup.train_embeddings,
        dialect=dialect_for(model, setup),
        frozen_input=setup.method in ("lora", "qlora") and not setup.train_embeddings,
        loss_chunks=_chunks(setup, (target or tokens) * setup.micro_batch),
        fused_loss=setup.loss == "fused",
        shifted_loss=model.architecture == "decoder-only"
        and (setup.framework == "transformers-2023" or model.model_type == "qwen"),
        converted_outputs=autocast(setup) and setup.framework.startswith("transformers") and setup.backend == "cuda",
        keeps_logits=setup.keeps_logits,
        inputs_elsewhere=setup.offload_activations,
    )


def kept_bytes(model: ModelFacts, setup: TrainingSetup) -> int:
    """Bytes that the forward pass of one micro-batch leaves for the backward pass."""
    return sum(s.kept_bytes * s.count for s in step_for(model, setup).segments)


def _instants(model: ModelFacts, setup: TrainingSetup, states: States) -> list[Instant]:
    step = step_for(model, setup)
    accumulating = setup.gradient_accumulation_steps > 1
    found = [_instant(m, setup, states, step.grads, accumulating) for m in moments(step)]
    at_step = [term("gradients", states.gradients, _gradient_formula(setup, states.gradients))]
    if states.at_step:
        at_step.append(term("optimizer's working memory", states.at_step, states.at_step_formula))
    found.append(Instant(STEP, tuple(at_step), sum(t.bytes for t in at_step)))
    if deepspeed(setup) and setup.zero_stage == 3 and not setup.zero_init:
        # The engine calls module.to(device) on a model that zero.Init has not partitioned (runtime/engine.py).
        whole = sum(p.size for p in base_parts(model, setup))
        there = sum(t.bytes for t in states.terms)
        beside = term("model before it is partitioned", max(0.0, whole - there), f"{gib(whole)} whole on every GPU")
        found.append(Instant(START, (beside,), beside.bytes))
    return found


def _instant(moment: Moment, setup: TrainingSetup, states: States, all_grads: int, accumulating: bool) -> Instant:
    """The terms of a moment of forward or backward pass."""
    backward = moment.name.startswith("backward")
    terms = list(states.gathered)
    if backward:
        terms.extend(states.in_backward)
    staying = (all_grads if accumulating else moment.grads) * states.gradient_share
    if states.resident:
        staying = states.gradients
    fresh = 0.0
    if states.gradient_share < 1 and backward:
        # Gradients of the running segment are whole until they are reduced.
        fresh = min(moment.fresh, states.fresh_limit) if states.fresh_limit else 0.0
    gradients = staying + fresh
    terms.append(term("gradients", gradients, f"alive in the {moment.name}"))
    tokens = f"micro-batch {setup.micro_batch}"
    kept: dict[str, int] = {}
    for label, size in moment.kept.items():
        kept[_shown(label)] = kept.get(_shown(label), 0) + size
    terms.extend(term(name, size, f"kept for the backward pass, {tokens}") for name, size in kept.items())
    if moment.casts:
        terms.append(term("weight copies", moment.casts, "16-bit copies of fp32 weights that autocast caches"))
    terms.append(term("working memory", moment.working, f"tensors that come and go in the {moment.name}"))
    terms = [t for t in terms if t.bytes]
    return Instant(moment.name, tuple(terms), sum(t.bytes for t in terms))


def _shown(label: str) -> str:
    part, _, what = label.partition(": ")
    if not what:
        return {"logits": "logits and loss", "weight copies": "weights (16-bit copies)"}.get(label, label)
    if "scores" in what:
        return f"{what}, {part.removesuffix(' output')}"
    return f"activations, {part}" if part.endswith(("embeddings", "output", "head")) else f"activations, {part} layers"


def _gradient_formula(setup: TrainingSetup, size: float) -> str:
    if setup.offload != "none":
        return "on the host"
    shared = f", this GPU's share of {setup.data_parallel}" if setup.zero_stage >= 2 else ""
    return f"of all trained parameters{shared}: {gib(size)}"


def _chunks(setup: TrainingSetup, rows: int) -> int:
    if setup.loss != "chunked":
        return 1
    return TORCHTUNE_CHUNKS if setup.framework == "torchtune" else max(1, rows // CHUNK_TOKENS)


def _rule(model: ModelFacts, setup: TrainingSetup) -> RuleOfThumb:
    """16 bytes a parameter for a full fine-tune; for adapters the base as stored + 16 bytes a trained parameter."""
    if setup.method == "full":
        return RuleOfThumb(model.params, BYTES_PER_PARAM_RULE, 1.0)
    trained = trained_numel(model, setup)
    stored = base_dtype(setup).weight_bytes
    each = (model.params * stored + trained * BYTES_PER_PARAM_RULE) / max(1, model.params)
    return RuleOfThumb(model.params, each, 1.0)


def _notes(model: ModelFacts, setup: TrainingSetup, instants: list[Instant], permanent: int) -> tuple[str, ...]:
    notes = []
    best: dict[str, int] = {}
    for i in instants:
        phase = i.name if i.name == STEP else i.name.split(",")[0]
        best[phase] = max(best.get(phase, 0), i.total)
    notes.append(
        "peak of each phase, allocated: " + ", ".join(f"{name} {gib(permanent + size)}" for name, size in best.items())
    )
    left = sum(t.numel for t in model.tensors if t.bare and t.kind == "linear" and not is_turned(t, setup))
    if left and setup.method in ("lora", "qlora") and base_dtype(setup).bitsandbytes:
        notes.append(
            f"bitsandbytes turns nn.Linear layers alone: {count(left)} of {model.name}'s parameters stay as they are, "
            "because transformers 5 holds them in a class of its own (experts are stacked)"
        )
    dialect = dialect_for(model, setup)
    if setup.attention not in dialect.attentions:
        notes.append(
            f"{model.model_type} has no {setup.attention} attention in transformers; "
            f"{dialect.attentions[-1]} is assumed"
        )
    return tuple(notes)


def assumptions(model: ModelFacts, setup: TrainingSetup, peak: str) -> dict[str, Any]:
    """What the figures hold for, in words."""
    tokens, target = lengths(model, setup)
    if deepspeed(setup):
        how = f"DeepSpeed ZeRO-{setup.zero_stage} over {setup.data_parallel} GPUs"
        how += ", 16-bit weights with fp32 master weights" if setup.precision in ("bf16", "fp16") else ""
    elif fsdp(setup):
        how = f"PyTorch FSDP over {setup.data_parallel} GPUs"
    elif setup.data_parallel > 1:
        how = f"DistributedDataParallel over {setup.data_parallel} GPUs"
    else:
        how = "one GPU"
    precision = {
        "bf16": "torch.autocast(bfloat16) over fp32 weights",
        "fp16": "torch.autocast(float16) over fp32 weights, with loss scaling",
        "fp32": "fp32 throughout",
        "pure-bf16": "bf16 throughout, optimizer states too",
    }[setup.precision]
    if deepspeed(setup) or fsdp(setup):
        precision = setup.precision
    elif setup.method != "full" and setup.precision in ("bf16", "fp16"):
        precision = f"torch.autocast over a {base_dtype(setup).name} base with fp32 adapters"
    found: dict[str, Any] = {
        "strategy": how,
        "precision": precision,
        "peak": peak,
        "framework": setup.framework,
        "attention": setup.attention,
        "input_tokens": tokens,
        "optimizer": setup.optimizer,
        "trained_params": trained_numel(model, setup),
        "checkpointing": setup.checkpointing,
        "gradient_accumulation_steps": setup.gradient_accumulation_steps,
    }
    if target:
        found["output_tokens"] = target
    if deepspeed(setup):
        found["buckets"] = setup.buckets
    if setup.method in ("lora", "qlora"):
        from sizing.memory.training.trained import lora_targets

        found["lora_targets"] = list(lora_targets(model, setup))
        found["base_dtype"] = base_dtype(setup).name
    found["params"] = count(model.params)
    return found
