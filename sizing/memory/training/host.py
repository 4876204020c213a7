"""Memory of one node's host in fine-tuning: what is offloaded, and every rank's copy of the model while it is loaded.

The two do not stand side by side, so the larger of the two moments is the estimate.
"""

from __future__ import annotations

from sizing.memory.loading import host_terms as loading_terms
from sizing.memory.terms import Breakdown, Term, term
from sizing.memory.training.setup import TrainingSetup
from sizing.memory.training.sharding import SUB_GROUP, deepspeed, fsdp, largest_matrix
from sizing.memory.training.states import rounded_up, trained_of
from sizing.memory.training.weights import base_dtype, base_parts, weight_width
from sizing.models.facts import ModelFacts
from sizing.units import count, gib

_MACHINE = ("process", "operating system and container", "page cache headroom")


def host_breakdown(model: ModelFacts, setup: TrainingSetup) -> Breakdown:
    """Terms of one node, in bytes, at the worse of two moments: while its ranks load the model, or while they train."""
    first = loading_breakdown(model, setup)
    second = _running(model, setup, first)
    if first.total_bytes >= second.total_bytes:
        return Breakdown(first.terms, (f"while the model is loaded; in training {gib(second.total_bytes)}",))
    return Breakdown(second.terms, (f"in training; while the model is loaded {gib(first.total_bytes)}",))


def loading_breakdown(model: ModelFacts, setup: TrainingSetup) -> Breakdown:
    """Terms of one node while the model is loaded, in bytes.

    Every rank reads the whole model; under ZeRO-3 (`zero.Init`) and FSDP one at a time, and only its share stays.
    """
    dtype = base_dtype(setup).name
    if setup.method == "full":
        dtype = "fp32" if weight_width(setup) == 4 else "fp16" if setup.precision == "fp16" else "bf16"
    sharded = setup.zero_stage == 3 and (fsdp(setup) or (deepspeed(setup) and setup.zero_init))
    if deepspeed(setup) and not setup.zero_init and model.published_dtype != "unknown":
        dtype = model.published_dtype  # turned to the run's type by the engine, after loading
    stored = model.published_dtype if model.published_dtype not in ("unknown", "", "none") else None
    ranks = _ranks(setup)
    terms = loading_terms(model, dtype, setup.loading, ranks=1 if sharded else ranks, file_dtype=stored)
    if sharded:
        # The others wait, each a process all the same.
        terms = tuple(_times(t, ranks) if t.name == "process" else t for t in terms)
    return Breakdown(terms)


def running_breakdown(model: ModelFacts, setup: TrainingSetup) -> Breakdown:
    """Terms of one node while it trains, in bytes."""
    return _running(model, setup, loading_breakdown(model, setup))


def _running(model: ModelFacts, setup: TrainingSetup, loading: Breakdown) -> Breakdown:
    machine = [t for t in loading.terms if t.name in _MACHINE]
    return Breakdown((*_offloaded(model, setup, _ranks(setup)), *machine))


def _times(one: Term, copies: int) -> Term:
    what = f"{one.formula} × {copies} ranks" if copies > 1 else one.formula
    return term(one.name, one.bytes * copies, what, low=one.low * copies, high=one.high * copies, metric=one.metric)


def _ranks(setup: TrainingSetup) -> int:
    """Processes of one node."""
    return min(setup.gpus, setup.gpus_per_node)


def _offloaded(model: ModelFacts, setup: TrainingSetup, ranks: int) -> list[Term]:
    """Offloaded states of all ranks of a node (DeepSpeed `cpu_offload`, `offload_param`; FSDP `CPUOffload`).

    DeepSpeed keeps fp32 master weights, both moments, fp32 gradients of its partition (ZeRO-1/2) or 16-bit ones and a
    sub-group's in fp32 (ZeRO-3), and a 16-bit copy to send back; pinned memory is taken in powers of two.
    """
    terms: list[Term] = []
    if setup.offload_activations:
        stack = model.main
        size = setup.micro_batch * setup.input_tokens * stack.hidden_size * 2 * sum(s.layers for s in model.stacks)
        terms.append(term("offloaded activations", size * ranks, f"layer inputs of {ranks} ranks"))
    if setup.offload == "none":
        return terms
    trained = trained_of(model, setup)
    n = setup.data_parallel
    own = trained.numel / n
    times = f" × {ranks} ranks / {n}"

    def add(name: str, size: float, formula: str, *, pieces: float = 1.0, pinned: bool = True) -> None:
        """A buffer of `size` a rank, in `pieces` that torch's allocator rounds up to a power of two when pinned."""
        taken = rounded_up(size / pieces) * pieces if pinned and setup.pinned and size else size
        what = ", pinned: rounded up to a power of two" if taken > size else ""
        terms.append(term(name, taken * ranks, formula + times + what, low=size * ranks))

    if fsdp(setup):
        width = 4 if setup.precision != "pure-bf16" and setup.method == "full" else trained.width
        add("master weights", own * width, f"{trained.label} × {width} bytes", pinned=False)
        add("gradients", own * width, f"{trained.label} × {width} bytes", pinned=False)
        add("optimizer states", trained.states(setup, width) / n, setup.optimizer, pinned=False)
        if setup.method != "full":
            add("weights", sum(p.size for p in base_parts(model, setup)) / n, "frozen weights", pinned=False)
        return terms
    width = 2 if setup.precision != "fp32" else 4
    groups = max(1.0, own / SUB_GROUP) if setup.zero_stage == 3 else 1.0
    add("master weights", own * 4, f"{trained.label} × 4 bytes", pieces=groups)
    add("optimizer states", trained.states(setup, 4) / n, f"{setup.optimizer}, {trained.label}", pinned=False)
    if setup.zero_stage == 3:
        add("gradients", own * width, f"{trained.label} × {width} bytes")
        group = min(SUB_GROUP, own)
        add("fp32 gradients of a sub-group", group * 4, f"{count(group)} elements × 4 bytes", pinned=False)
    else:
        add("gradients", own * 4, f"{trained.label} × 4 bytes")
        add("16-bit copy of the partition", own * width, f"{trained.label} × {width} bytes")
        add("gradient buffer", largest_matrix(model) * width, "the largest matrix")
    if setup.offload == "all":
        base = sum(p.size for p in base_parts(model, setup))
        add(
            "weights",
            base / n,
            "parameters of the ranks",
            pieces=groups if setup.method == "full" else base / n / SUB_GROUP,
        )
    return terms
