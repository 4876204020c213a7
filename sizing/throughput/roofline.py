"""Latency of one batch on one machine: prefill, then one decoding step per output token.

The roofline (Williams et al. 2009; for transformers Pope et al. 2022, arXiv:2211.05102): a pass takes as long as the
slower of reading its bytes and computing its operations. Two things an eager PyTorch program adds: the host cannot
launch kernels faster than so many a second, which bounds small models whatever the GPU; and quantized matrix products
cost a fixed time each, so LLM.int8 and NF4 decode more slowly than 16 bit although they read less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sizing.dtypes import DType, dtype
from sizing.throughput.device import Device
from sizing.throughput.ranges import PACES, Pace, Range, ordered
from sizing.throughput.tables import Engine, engine
from sizing.throughput.work import Pass, Work

Split = Literal["", "layers", "tensor"]
"""layers: whole layers on each GPU, one of which works at a time (`device_map`). tensor: every matrix is cut."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds at one pace: the whole prefill of a batch, one decoding step halfway through the output, and in all."""

    prefill: float
    step: float
    total: float


@dataclass(frozen=True, slots=True)
class RequestSpeed:
    """One batch served alone. Latencies in seconds; throughput counts the whole batch."""

    batch: int
    first_token: Range
    step: Range
    total: Range
    output_tokens_per_s: Range
    requests_per_s: Range
    bound_by: str
    """What the likely decoding step waits for: memory, arithmetic, kernel launches or the link between GPUs."""

    def to_json(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "first_token_s": self.first_token.to_json(),
            "step_s": self.step.to_json(5),
            "latency_s": self.total.to_json(3),
            "output_tokens_per_s": self.output_tokens_per_s.to_json(1),
            "requests_per_s": self.requests_per_s.to_json(4),
            "bound_by": self.bound_by,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a batch is made of, and on how many GPUs each copy of the model lies."""

    dtype: str
    engine: str
    input_tokens: int
    output_tokens: int
    gpus: int = 1
    split: Split = ""
    """How the model lies on several GPUs; empty: as the engine does it."""


def request_speed(work: Work, asked: Asked, device: Device, batch: int) -> RequestSpeed:
    """Latency and throughput of one `batch` of equal requests.

    Raises `ValueError` for fp32 on a GPU whose fp32 throughput is unpublished; ask `can_estimate` before.
    """
    fast, likely, slow = (speed_at(work, asked, device, batch, pace) for pace in PACES)
    first = [s.prefill + s.step if work.causal is False and work.step else s.prefill for s in (fast, likely, slow)]
    return RequestSpeed(
        batch=batch,
        first_token=ordered((first[0], first[1], first[2])),
        step=ordered((fast.step, likely.step, slow.step)),
        total=ordered((fast.total, likely.total, slow.total)),
        output_tokens_per_s=ordered(
            (
                batch * asked.output_tokens / fast.total,
                batch * asked.output_tokens / likely.total,
                batch * asked.output_tokens / slow.total,
            )
        ),
        requests_per_s=ordered((batch / fast.total, batch / likely.total, batch / slow.total)),
        bound_by=_bound_by(work, asked, device, batch),
    )


def can_estimate(asked: Asked, device: Device) -> str:
    """Empty, or in words what is missing for an estimate."""
    if dtype(asked.dtype).name == "fp32" and device.flops_fp32 is None:
        return f"no published fp32 throughput for {device.name}"
    return ""


def speed_at(work: Work, asked: Asked, device: Device, batch: int, pace: Pace = "likely") -> Speed:
    """The `Speed` of one batch at `pace`: constants all favourable, likely, or all unfavourable.

    On a device with a `correction` every time is multiplied by its factor for this batch.
    """
    how, kind = engine(asked.engine, pace), dtype(asked.dtype)
    factor = 1.0 if device.correction is None else device.correction.at(batch)
    prefill = factor * _prefill_seconds(work, asked, device, how, kind, batch)
    if work.step is None or asked.output_tokens == 0:
        return Speed(prefill, 0.0, prefill)
    # An encoder-decoder starts its output from nothing; a decoder's first token falls out of the prefill.
    steps = asked.output_tokens - 1 if work.causal else asked.output_tokens
    before = asked.input_tokens if work.causal else 0
    step = factor * _step(work, asked, device, how, kind, batch, before + asked.output_tokens / 2).seconds
    return Speed(prefill, step, prefill + steps * step)


def _flops_per_s(device: Device, how: Engine, kind: DType) -> float:
    if kind.name == "fp32":
        if device.flops_fp32 is None:
            raise ValueError(f"no published fp32 throughput for {device.name}")
        return device.flops_fp32 * how.mfu_fp32
    return device.flops_16bit * how.mfu_16bit


def _reading_seconds(part: Pass, work: Work, device: Device, how: Engine, kind: DType, tokens: float) -> float:
    """To read each weight once for `tokens` tokens: only the experts touched, expanded first where that is the way."""
    size = part.bytes + part.expert_bytes * work.expert_share(tokens)
    efficiency = how.packed_efficiency if kind.quantized else how.bandwidth_efficiency
    seconds = size / (device.bandwidth * efficiency)
    if kind.dequantizes and tokens > 1:
        seconds += part.expand_bytes / (device.bandwidth * how.bandwidth_efficiency)
    return seconds


def _launch_seconds(part: Pass, asked: Asked, how: Engine, kind: DType) -> float:
    per_layer = how.layer_seconds
    if asked.gpus > 1 and _split(asked, how) == 1:
        per_layer += how.hop_layer_seconds
    per_linear = 0.0
    if kind.name == "int8":
        per_linear = how.int8_linear_seconds
    elif kind.dequantizes:
        per_linear = how.nf4_linear_seconds
    return part.layers * per_layer + part.linears * per_linear


def _split(asked: Asked, how: Engine) -> int:
    """Over how many GPUs one layer's work is divided."""
    tensor = how.tensor_parallel if not asked.split else asked.split == "tensor"
    return asked.gpus if tensor else 1


def _allreduce_seconds(blocks: int, tokens: float, work: Work, asked: Asked, device: Device, how: Engine) -> float:
    """Ring all-reduce after each block: a start-up time, and `2(n−1)/n` of the activations over the link."""
    gpus = _split(asked, how)
    if gpus == 1:
        return 0.0
    start = how.allreduce_seconds_nvlink if device.fast_link else how.allreduce_seconds_pcie
    size = tokens * work.hidden_size * work.compute_bytes
    return blocks * (start + 2.0 * (gpus - 1) / gpus * size / device.link_bandwidth)


def _prefill_seconds(work: Work, asked: Asked, device: Device, how: Engine, kind: DType, batch: int) -> float:
    part, tokens, gpus = work.prefill, float(batch * asked.input_tokens), _split(asked, how)
    context = asked.input_tokens / 2 if work.causal else asked.input_tokens
    flops = tokens * (part.flops + work.attention_flops * context)
    if work.step is not None and work.causal:
        flops += batch * work.head_flops
    reading = _reading_seconds(part, work, device, how, kind, tokens) / gpus
    computing = flops / gpus / _flops_per_s(device, how, kind)
    together = max(reading, computing) if how.overlap else reading + computing
    return max(together, _launch_seconds(part, asked, how, kind)) + _allreduce_seconds(
        work.prefill_blocks, tokens, work, asked, device, how
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """Seconds that one decoding step would take on each account alone; launches and the GPU's work overlap."""

    memory: float
    arithmetic: float
    launches: float
    link: float

    @property
    def seconds(self) -> float:
        return max(self.memory + self.arithmetic, self.launches) + self.link

    @property
    def bound_by(self) -> str:
        if self.launches > self.memory + self.arithmetic:
            return "kernel launches"
        return max(
            (("memory", self.memory), ("arithmetic", self.arithmetic), ("link", self.link)), key=lambda part: part[1]
        )[0]


def _step(work: Work, asked: Asked, device: Device, how: Engine, kind: DType, batch: int, context: float) -> _Step:
    if work.step is None:
        return _Step(0.0, 0.0, 0.0, 0.0)
    gpus = _split(asked, how)
    weights = _reading_seconds(work.step, work, device, how, kind, batch) / gpus
    # A rank holds at least one key-value head.
    cache_ranks = min(gpus, work.kv_heads)
    cache = batch * work.kv_bytes(context, asked.input_tokens) * how.kv_passes / cache_ranks
    cache /= device.bandwidth * how.bandwidth_efficiency
    attention = work.step_attention_flops * context
    computing = batch * (work.step.flops + attention) / gpus / _flops_per_s(device, how, kind)
    return _Step(
        memory=weights + cache,
        arithmetic=max(0.0, computing - weights) if how.overlap else computing,
        launches=_launch_seconds(work.step, asked, how, kind),
        link=_allreduce_seconds(work.blocks, batch, work, asked, device, how),
    )


def _bound_by(work: Work, asked: Asked, device: Device, batch: int) -> str:
    if work.step is None or asked.output_tokens == 0:
        return "arithmetic"
    before = asked.input_tokens if work.causal else 0
    how, kind = engine(asked.engine), dtype(asked.dtype)
    return _step(work, asked, device, how, kind, batch, before + asked.output_tokens / 2).bound_by
