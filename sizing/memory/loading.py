"""Host memory while a model is loaded: its weights pass through system RAM before they reach the GPU.

How much of them stands there at once depends on how they are read. The multipliers of `LOADING_WAYS` are measured by
`scripts/measure_loading.py`; its rows, and published peaks beside them, are in `data/loading_measured.csv`, which a
test compares with them. `docs/loading.md` explains the ways and the sources of every constant below.

Two kinds of memory are kept apart. *Anonymous* memory (tensors that a process allocated) must fit: without swap the
kernel ends the process. *Mapped* pages of a weight file count as resident while there is room and are dropped and
read again when there is not: their term has a low bound of 0 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.dtypes import DType
from sizing.dtypes import dtype as dtype_called
from sizing.errors import UserError, unknown
from sizing.memory.engines import ENGINES
from sizing.memory.terms import Term, term
from sizing.memory.weights import stored_bytes
from sizing.models.facts import ModelFacts, Tensor
from sizing.units import GB, GIB, KIB, MIB, gib

Bound = Literal["low", "likely", "high"]
DEFAULT_WAY = "plain"


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with its bounds: a multiplier of weights' bytes, or bytes."""

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.likely <= self.high:
            raise ValueError(f"{self.low} <= {self.likely} <= {self.high} does not hold")


@dataclass(frozen=True, slots=True)
class LoadingWay:
    """How weights get from their files into a model. Multipliers of bytes, per process.

    `built`: × the model's weights in its own dtype, allocated when it is built from its configuration (anonymous).
    `state_dict`: × the file's weights, read into tensors of their own (anonymous); of the largest shard only where
    `by_shard`.
    `mapped`: × the file's weights, as pages of the file, which all processes of a host share.
    `converted`: × those weights of the model whose dtype differs from the file's (anonymous). 0 where `built` already
    holds them.
    """

    name: str
    summary: str
    built: Range
    state_dict: Range
    mapped: Range
    converted: Range
    source: str
    by_shard: bool = False


_NONE = Range(0.0, 0.0, 0.0)
_STATE = Range(1.0, 1.0, 1.02)
_BUILT = Range(1.0, 1.0, 1.1)
# Building a model, and converting a .bin file, allocate tied embeddings once for each of their names: 1.26 x in a T5 of
# 0.4 B parameters, whose embeddings are 8 % of it. The larger the model, the closer to 1.
_WITH_TIED = Range(1.0, 1.0, 1.26)
_MAPPED = Range(0.0, 1.0, 1.02)
_MEASURED = "scripts/measure_loading.py, 2026-11-24, data/loading_measured.csv"

LOADING_WAYS: dict[str, LoadingWay] = {
    w.name: w
    for w in (
        LoadingWay(
            "plain",
            "the model is built, the whole checkpoint is read into a state dict and copied into it: "
            "torch.load + load_state_dict, and from_pretrained of transformers 4.28 on one file",
            _BUILT,
            _STATE,
            _NONE,
            _NONE,
            f"{_MEASURED}; T0 in transformers#16844: 89.4 GB for weights of 44.5 GB",
        ),
        LoadingWay(
            "sharded",
            "the model is built and the checkpoint copied into it one shard after the other (shards of up to 10 GB)",
            _BUILT,
            _STATE,
            _NONE,
            _NONE,
            f"{_MEASURED}; T0 in transformers#16844: 54.8 GB for weights of 44.5 GB in shards of 10 GB",
            by_shard=True,
        ),
        LoadingWay(
            "assign",
            "the model is built, then its weights are replaced by those of a memory-mapped file: "
            "torch.load(mmap=True) + load_state_dict(assign=True)",
            _WITH_TIED,
            _NONE,
            _NONE,
            _NONE,
            _MEASURED,
        ),
        LoadingWay(
            "mmap",
            "the weights are used where they lie in a memory-mapped file, in the file's dtype: "
            "from_pretrained of transformers 5 on safetensors",
            _NONE,
            _NONE,
            _MAPPED,
            _WITH_TIED,
            _MEASURED,
        ),
        LoadingWay(
            "convert",
            "the weights of a memory-mapped file are turned into another dtype: from_pretrained of transformers 5",
            _NONE,
            _NONE,
            _MAPPED,
            _WITH_TIED,
            _MEASURED,
        ),
    )
}
"""By name. `mmap` and `convert` are one call; which of them happens depends on the dtypes of file and model."""

_SHARD_BYTES = 10 * GB
"""`max_shard_size` of `save_pretrained` in transformers 4.28: the largest piece of most checkpoints cut by it."""

_CONTEXT = Range(116_592 * KIB, 1_734_560 * KIB, 1_734_560 * KIB)
"""Resident memory that a CUDA context adds to a process that imported torch: 438,632 or 2,056,600 kB in all against
322,040 kB without, depending on what initialised CUDA first (pytorch#113326, torch 2.2, lazy loading, 2023-11-09).
pytorch#12873 has 1,904,088 kB in all (2018-10-19)."""
IMPORTS = Range(0.337 * GB, 0.773 * GB, 0.95 * GB)
"""Resident memory of Python after importing torch and transformers (`baseline_bytes` of data/loading_measured.csv):
0.773 GB with transformers 5.23 (0.445 anonymous, the rest pages of shared libraries), 0.596 with 4.28 (0.337)."""
_PROCESS_HIGH = 3.8 * GB
"""The largest host memory of a process with its model on the GPU in PEFT's table: T0-3B 2.96, mt0-xxl 3.0,
bloomz-7b1 3.8 GB (huggingface/peft README, 2023)."""

_OS = 117_227_520
"""Used without buffers and cache on an m4.large with Amazon Linux and the ECS agent (Amazon ECS Developer Guide,
"Reserving Amazon ECS Linux container instance memory")."""
_DAEMONS = 250 * MIB
"""What the system's own pods take on an EKS node, measured (2i2c-org/infrastructure, node-capacity-info.json)."""
_SERVER_HEAP = GIB
"""DJL Serving's Java heap in the LMI container: JAVA_OPTS="-Xmx1g -Xms1g …" (djl-serving, lmi.Dockerfile)."""
_KUBERNETES = 674 * MIB
"""What EKS sets aside on a g4dn.xlarge: 11 MiB x 29 pods + 255 MiB, and 100 MiB before it evicts pods
(awslabs/amazon-eks-ami, bootstrap.sh)."""
_HEADROOM = Range(67_584 * KIB, 256 * MIB, 384 * MIB)
"""Pages that the kernel keeps free: `vm.min_free_kbytes` as transparent huge pages set it on one node (67,584 kB, read
on Linux 6.18), its cap of 256 MiB, and the high watermark half as much again (Linux, mm/page_alloc.c)."""

USABLE_RAM = Range(0.925, 0.957, 0.975)
"""Share of an EC2 type's memory that its operating system sees; firmware and kernel keep the rest.

Seen: g4dn.xlarge or its like 16,070,168 of 16,777,216 KiB = 0.958 (groundlight/edge-endpoint#79), r5.xlarge 0.965,
r5.4xlarge 0.972, r5.16xlarge 0.973 (2i2c-org/infrastructure, node-capacity-info.json), m4.large 0.975 (Amazon ECS
Developer Guide). Low: what Karpenter takes off a type that it has not seen, VM_MEMORY_OVERHEAD_PERCENT = 0.075."""


def usable_ram_bytes(memory_bytes: int, bound: Bound = "likely") -> int:
    """What programs and the operating system find of an instance type's `memory_bytes`, in bytes."""
    share: float = getattr(USABLE_RAM, bound)
    return int(memory_bytes * share)


def loading_way(name: str) -> LoadingWay:
    """The way called `name`. Raises `UserError` for an unknown one."""
    if name not in LOADING_WAYS:
        raise unknown("way of loading", name, LOADING_WAYS)
    return LOADING_WAYS[name]


def host_terms(
    model: ModelFacts, dtype: str, way: str = DEFAULT_WAY, *, ranks: int = 1, file_dtype: str | None = None
) -> tuple[Term, ...]:
    """Peak memory of the host, in bytes, while `ranks` processes load `model` as `dtype` in the way called `way`.

    Every rank reads the whole checkpoint; only pages of a mapped file are shared. `file_dtype` is what the checkpoint
    is stored in: the published dtype unless given (where that is unknown, the model's own, or 16 bit for a model to be
    quantized). Moving weights to the GPU and freeing them one by one makes the peak smaller; that is not counted on.

    Formula: ranks × (built × model + state dict × file + converted × what changes dtype) + mapped × file, plus the
    processes, the operating system with its container, and what the kernel keeps free.
    Raises `UserError` for an unknown dtype or way, a model without weights, or fewer than one rank.
    """
    chosen = loading_way(way)
    target = dtype_called(dtype)
    if ranks < 1:
        raise UserError(f"ranks is {ranks}; at least one process loads the model")
    if not model.tensors:
        raise UserError(f"{model.name} has no published weights, so there is nothing to load")
    stored, assumed = _file_dtype(model, target, file_dtype)
    file_bytes = _file_bytes(model, stored)
    model_bytes = sum(_host_bytes(t, target) for t in model.tensors)
    changed = sum(_host_bytes(t, target) for t in model.tensors if _changes(t, target, stored))
    if way in ("mmap", "convert"):
        way = "convert" if changed else "mmap"
    elif way == "assign" and changed:
        # The assigned weights are the file's own; casting them afterwards is a conversion like any other.
        chosen = LOADING_WAYS["convert"]
    label = f"{stored.name} file{assumed}"
    each = f" × {ranks} ranks" if ranks > 1 else ""
    terms = []

    def weights(name: str, times: Range, size: float, what: str, copies: int = 1) -> None:
        if times.high and size:
            by = f" × {copies} ranks" if copies > 1 else ""
            terms.append(
                term(
                    name,
                    times.likely * size * copies,
                    f"{way}: {times.likely:g} × {gib(size)} {what}{by}",
                    low=times.low * size * copies,
                    high=times.high * size * copies,
                )
            )

    # What is quantized on loading is quantized on the GPU (bitsandbytes), where the host may never hold the result.
    on_gpu = target.quantized and changed > 0
    built = Range(0.0, chosen.built.likely, chosen.built.high) if on_gpu else chosen.built
    converted = Range(0.0, chosen.converted.likely, chosen.converted.high) if on_gpu else chosen.converted
    weights("weights, built model", built, model_bytes, f"model ({target.name})", ranks)
    if chosen.by_shard:
        shard = min(file_bytes, _SHARD_BYTES)
        weights("weights, largest shard", chosen.state_dict, shard, f"shard ({label}, at most 10 GB)", ranks)
    else:
        weights("weights, state dict", chosen.state_dict, file_bytes, f"state dict ({label})", ranks)
    weights("weights, mapped file", chosen.mapped, file_bytes, f"pages of the {label}, which the kernel can take back")
    weights("dtype conversion", converted, changed, f"{stored.name} -> {target.name}", ranks)
    terms += [_process_term(ranks, each), *_machine_terms()]
    return tuple(terms)


def _process_term(ranks: int, each: str) -> Term:
    """Python, torch, transformers and the CUDA context on the host, pinned staging buffers included."""
    likely = IMPORTS.likely + _CONTEXT.likely
    return term(
        "process",
        ranks * likely,
        f"(imports {gib(IMPORTS.likely)} + CUDA context on the host {gib(_CONTEXT.likely)}){each}",
        low=ranks * (IMPORTS.low + _CONTEXT.low),
        high=ranks * _PROCESS_HIGH,
    )


def _machine_terms() -> tuple[Term, Term]:
    """What the machine needs beside the loading processes."""
    likely = _OS + _DAEMONS + _SERVER_HEAP
    return (
        term(
            "operating system and container",
            likely,
            f"system {gib(_OS)} + daemons {gib(_DAEMONS)} + model server {gib(_SERVER_HEAP)}",
            low=_OS,
            high=likely + _KUBERNETES,
        ),
        term(
            "page cache headroom",
            _HEADROOM.likely,
            "free pages that the kernel keeps (vm.min_free_kbytes)",
            low=_HEADROOM.low,
            high=_HEADROOM.high,
        ),
    )


def _file_dtype(model: ModelFacts, target: DType, given: str | None) -> tuple[DType, str]:
    """What the checkpoint is stored in, and a word on it where it is assumed."""
    if given is not None:
        return dtype_called(given), ""
    if target.name.startswith(("gptq", "awq")):
        return target, ""  # these exist only as checkpoints that were quantized beforehand
    if model.published_dtype == "unknown":
        return (dtype_called("fp16") if target.quantized else target), ", assumed"
    return dtype_called(model.published_dtype), ""


def _host_bytes(tensor: Tensor, dtype: DType) -> float:
    return stored_bytes(tensor, dtype, ENGINES["transformers"])


def _file_bytes(model: ModelFacts, stored: DType) -> float:
    """Bytes of the checkpoint's weights. A plain one holds every parameter in its dtype, `keep_fp32` or not."""
    if stored.quantized:
        return sum(_host_bytes(t, stored) for t in model.tensors)
    return model.params * stored.kept_bytes


def _changes(tensor: Tensor, target: DType, stored: DType) -> bool:
    """Whether `tensor` is held in another dtype than the file's; what transformers keeps in fp32 may not be."""
    if target == stored:
        return False
    return stored.name != "fp32" or _host_bytes(tensor, target) != 4.0 * tensor.numel
