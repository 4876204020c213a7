"""What stays on a GPU from step to step, and what gradients take there, under each way of spreading a run.

Sizes are bytes on one GPU. A strategy returns `States`; `estimate.py` adds activations to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sizing.memory.terms import Term, term
from sizing.memory.training.optimizers import state_bytes, step_work
from sizing.memory.training.setup import Kernel, TrainingSetup
from sizing.memory.training.sharding import (
    SUB_GROUP,
    Buckets,
    deepspeed,
    fsdp,
    gathered_elements,
    largest_matrix,
    layer_elements,
    outside_elements,
)
from sizing.memory.training.trained import Group, is_head_or_embedding, trained_groups
from sizing.memory.training.weights import base_dtype, base_parts, kept_width, mixed, tensor_share, weight_width
from sizing.models.facts import ModelFacts
from sizing.units import count


@dataclass(frozen=True, slots=True)
class States:
    """`terms` stay from step to step, `gathered` stand during forward and backward pass, `in_backward` in the latter.

    `gradients`: bytes of all gradients when the backward pass is done; `gradient_share`: what part of the gradients the
    backward pass makes stays on this GPU; `fresh_limit`: bytes of new gradients that can wait to be reduced.
    `at_step`: room of the optimizer's step.
    """

    terms: tuple[Term, ...]
    gradients: float = 0.0
    gradient_share: float = 1.0
    fresh_limit: float = 0.0
    gathered: tuple[Term, ...] = ()
    in_backward: tuple[Term, ...] = ()
    at_step: float = 0.0
    at_step_formula: str = ""
    resident: bool = False
    """The gradients' memory stands all the time (ZeRO-3's flat buffer)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What is trained on one tensor-parallel rank, which holds `share` of it."""

    groups: tuple[Group, ...]
    share: float
    label: str

    @property
    def numel(self) -> float:
        return sum(g.numel for g in self.groups) * self.share

    @property
    def width(self) -> int:
        """Bytes of an element of what is trained (of adapters, where embeddings are trained beside them)."""
        return self.groups[0].width if self.groups else 2

    @property
    def size(self) -> float:
        """Bytes of the trained tensors, and of their gradients."""
        return sum(g.numel * g.width for g in self.groups) * self.share

    def states(self, setup: TrainingSetup, width: int = 0) -> float:
        """Bytes of optimizer states in `width`, or in each tensor's own."""
        return sum(state_bytes(setup.optimizer, g.shapes, width or g.width) for g in self.groups) * self.share

    def work(self, setup: TrainingSetup, kernel: Kernel, width: int = 0) -> float:
        """Bytes that the optimizer's step needs beside them."""
        sizes = [step_work(setup.optimizer, g.shapes, width or g.width, kernel) for g in self.groups]
        return (max(sizes, default=0) if kernel == "loop" else sum(sizes)) * self.share


def trained_of(model: ModelFacts, setup: TrainingSetup) -> Trained:
    full = setup.method == "full"
    width = weight_width(setup) if full else base_width(setup)
    groups = trained_groups(model, setup, base=width, adapter=adapter_width(setup))
    share = tensor_share(model, setup.tensor_parallel)
    numel = sum(g.numel for g in groups) * share
    return Trained(groups, share, f"{count(numel)} {'parameters' if full else 'trained parameters'}")


def base_width(setup: TrainingSetup) -> int:
    """Bytes of a frozen weight that is not quantized."""
    dtype = base_dtype(setup)
    return kept_width(setup) if dtype.quantized else int(dtype.weight_bytes)


def adapter_width(setup: TrainingSetup) -> int:
    """PEFT keeps adapters in fp32 over a 16-bit base (`autocast_adapter_dtype`); DeepSpeed and FSDP make the whole
    module 16-bit."""
    if setup.adapter_dtype:
        return 4 if setup.adapter_dtype == "fp32" else 2
    if setup.precision == "fp32":
        return 4
    return 2 if deepspeed(setup) or fsdp(setup) else 4


def states_of(model: ModelFacts, setup: TrainingSetup) -> States:
    if deepspeed(setup):
        return _zero(model, setup)
    if fsdp(setup):
        return _fsdp(model, setup)
    return _plain(model, setup)


def _weights(model: ModelFacts, setup: TrainingSetup, ranks: int, *, on_host: bool = False) -> list[Term]:
    terms = []
    split = f" / {ranks} GPUs" if ranks > 1 else ""
    for part in base_parts(model, setup):
        if on_host:
            terms.append(term(part.name, 0, f"{part.formula}{split}, kept on the host"))
        else:
            terms.append(term(part.name, part.size / ranks, part.formula + split))
    if setup.method != "full":
        trained = trained_of(model, setup)
        name = "prompt embeddings" if setup.method == "prompt" else "adapters"
        widths = " and ".join(str(g.width) for g in trained.groups) or "0"
        terms.append(term(name, trained.size / ranks, f"{trained.label} × {widths} bytes{split}"))
    return terms


def _plain(model: ModelFacts, setup: TrainingSetup) -> States:
    """One GPU, or DDP: everything on every GPU.

    autocast: fp32 weights, gradients and states (4 + 4 + 8 bytes with AdamW). DDP copies gradients into buckets that
    together are as large as they (torch `Reducer`, `gradient_as_bucket_view=False`).
    """
    trained = trained_of(model, setup)
    terms = _weights(model, setup, 1)
    states = trained.states(setup)
    if setup.paged_optimizer:
        # bitsandbytes takes them as managed memory, beside torch's allocator; the driver moves them out when it must.
        states_term = term("optimizer states", states, f"{setup.optimizer}, paged", low=0, metric="driver")
    else:
        states_term = term("optimizer states", states, f"{setup.optimizer}, {trained.label}")
    terms.append(states_term)
    gradients = trained.size
    if setup.data_parallel > 1:
        terms.append(term("DDP buckets", gradients, f"{trained.label}, copies of the gradients"))
    if setup.optimizer_in_backward:
        return States(tuple(terms), 0.0, 0.0, fresh_limit=gradients)
    kernel = "loop" if setup.backend == "cpu" else setup.optimizer_kernel
    work = trained.work(setup, kernel)
    return States(tuple(terms), gradients, at_step=work, at_step_formula=f"{setup.optimizer}, {kernel} kernel")


def _zero(model: ModelFacts, setup: TrainingSetup) -> States:
    """DeepSpeed's ZeRO (arXiv:1910.02054) with 16-bit weights: 2 bytes of weights and 2 of gradients a parameter, 4 of
    master weights and the states divided by the N ranks; gradients / N from stage 2, weights / N at stage 3. In fp32
    the partition is cloned all the same (stage_1_and_2.py).

    The step flattens the partition's gradients and makes them fp32; stage 3 does so sub-group by sub-group.
    """
    n, stage = setup.data_parallel, setup.zero_stage
    trained = trained_of(model, setup)
    width = 2 if setup.precision != "fp32" else 4
    off = setup.offload != "none"
    split = f" / {n} GPUs" if n > 1 else ""
    terms = _weights(model, setup, n if stage == 3 else 1, on_host=setup.offload == "all")
    own = trained.numel / n
    master_width = 2 if setup.precision == "pure-bf16" else 4
    place = ", kept on the host" if off else ""
    terms.append(
        term(
            "master weights", 0 if off else own * master_width, f"{trained.label} × {master_width} bytes{split}{place}"
        )
    )
    states = trained.states(setup, master_width) / n
    terms.append(term("optimizer states", 0 if off else states, f"{setup.optimizer}, {trained.label}{split}{place}"))

    buckets = Buckets.of(setup, model.hidden_size)
    largest = min(largest_matrix(model) * trained.share, trained.numel)
    waiting = (min(buckets.reduce, trained.numel) + largest) * width
    step_bytes = (width + 4) if width == 2 else 4
    if stage <= 2:
        double = term(
            "reduce buckets",
            2 * buckets.reduce * width,
            f"{count(buckets.reduce)} elements × {width} bytes × 2 (overlap_comm)",
        )
        in_backward = [double]
        gathered: list[Term] = []
        share = 1.0 if stage == 1 else 1.0 / n
        at_step = own * step_bytes
        formula = f"gradients of {count(own)} elements, flat and in fp32"
    else:
        terms.append(
            term("reduce buckets", buckets.reduce * width, f"{count(buckets.reduce)} elements × {width} bytes")
        )
        elements = gathered_elements(model, setup, buckets) * trained.share
        each = _gather_bytes(model, setup)
        gathered = [term("gathered parameters", elements * each, f"{count(elements)} live at once × {each:.3g} bytes")]
        in_backward = []
        share = 1.0 / n
        group = min(SUB_GROUP, own)
        at_step = group * step_bytes
        formula = f"gradients of a sub-group of {count(group)} elements, flat and in fp32"
    if off:
        share, at_step, formula = 0.0, 0.0, "on the host"
        in_backward.append(
            term("gradients on their way to the host", largest * width, "a buffer of the largest matrix")
        )
    return States(
        tuple(terms),
        trained.numel * width * share,
        share,
        waiting if stage >= 2 else 0.0,
        tuple(t for t in gathered if t.bytes),
        tuple(t for t in in_backward if t.bytes),
        at_step,
        formula,
        resident=stage == 3 and not off,
    )


def _fsdp(model: ModelFacts, setup: TrainingSetup) -> States:
    """PyTorch FSDP: parameters, gradients and states / N; the layers that run are gathered in the compute type.

    Mixed precision shards fp32 parameters (4 + 4 + 8 bytes / N with AdamW). FULL_SHARD (stage 3) gathers two layers at
    once (the next one is fetched ahead), SHARD_GRAD_OP (stage 2) keeps all gathered; the root unit, with what stands
    outside the layers, is whole throughout.
    """
    n = setup.data_parallel
    trained = trained_of(model, setup)
    split = f" / {n} GPUs"
    off = setup.offload != "none"
    place = ", kept on the host" if off else ""
    full = setup.method == "full"
    stored = 4 if mixed(setup) and full else trained.width
    if full:
        shown = "master weights" if stored == 4 and mixed(setup) else "weights"
        terms = [
            term(shown, 0 if off else trained.numel * stored / n, f"{trained.label} × {stored} bytes{split}{place}")
        ]
    else:
        terms = _weights(model, setup, n, on_host=off)
    states = trained.states(setup, stored) / n
    terms.append(term("optimizer states", 0 if off else states, f"{setup.optimizer}, {trained.label}{split}{place}"))
    each = _gather_bytes(model, setup)
    layer, outside = layer_elements(model) * trained.share, outside_elements(model) * trained.share
    outside_each = 4.0 if setup.precision == "fp32" else 2.0
    if setup.zero_stage == 3:
        layers, what = 2.0 * layer, f"two layers of {count(layer)}"
    else:
        layers = float(sum(t.numel for t in model.tensors if t.layered))
        what = f"all layers, {count(layers)}"
    gathered = term(
        "gathered parameters",
        layers * each + outside * outside_each,
        f"{what} × {each:.3g} bytes, and the root unit of {count(outside)} × {outside_each:g} bytes",
    )
    fresh = 2 * layer * (4 if setup.precision == "fp32" else 2) if full else trained.size
    share = 0.0 if off else 1.0 / n
    work = 0.0 if off else trained.work(setup, setup.optimizer_kernel, stored) / n
    if setup.optimizer_in_backward:
        share = work = 0.0
    return States(
        tuple(terms),
        trained.numel * stored * share,
        share * (stored / trained.width if full else 1.0),
        fresh,
        (gathered,),
        (),
        work,
        f"{setup.optimizer}, {setup.optimizer_kernel} kernel",
    )


def _gather_bytes(model: ModelFacts, setup: TrainingSetup) -> float:
    """Bytes per gathered parameter: as stored (quantized weights travel packed)."""
    if setup.method == "full":
        return 4.0 if setup.precision == "fp32" else 2.0
    parts = base_parts(model, replace(setup, tensor_parallel=1))
    if setup.method != "qlora":
        return sum(p.size for p in parts) / max(1, model.params)
    # Embeddings and head, which are not quantized, are in the root unit.
    packed = sum(p.size for p in parts if p.name in ("weights", "quantization constants"))
    return packed / max(1, sum(t.numel for t in model.tensors if not is_head_or_embedding(t)))


def rounded_up(size: float) -> int:
    """The power of two that torch's pinned-memory allocator takes for `size` bytes (`CachingHostAllocator`)."""
    return 1 << max(0, math.ceil(math.log2(max(1.0, size))))
