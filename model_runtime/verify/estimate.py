"""sizing's estimate of what was measured, term beside term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sizing.dtypes import dtype as dtype_called
from sizing.errors import UserError
from sizing.memory.engines import engine
from sizing.memory.inference import estimate_inference
from sizing.memory.kv_cache import cache_size
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import MemoryEstimate
from sizing.models.resolve import resolve_model


@dataclass(frozen=True, slots=True)
class Estimated:
    """An estimate and the KV cache at the end of generation, own and cross-attention, in bytes."""

    memory: MemoryEstimate
    cache: float
    cross: float


def estimate_for(folder: str, dtype: str, *, batch: int, input_tokens: int, output_tokens: int) -> Estimated | None:
    """The estimate for a model's folder; None where sizing does not know the model or the setting.

    The cache is that of the end, when the last token has been made and is not cached yet; the estimate's own cache term
    is that of the moment of the peak, which may be the prompt's pass.
    """
    try:
        model = resolve_model(folder)
        setup = InferenceSetup(dtype=dtype, batch=batch, input_tokens=input_tokens, output_tokens=output_tokens)
        memory = estimate_inference(model, setup)
    except UserError:
        return None
    if model.decoder is None:
        return Estimated(memory, 0.0, 0.0)
    cache = cache_size(
        model,
        engine(setup.engine),
        batch=batch,
        tokens=output_tokens if model.encoder is not None else input_tokens + output_tokens - 1,
        encoder_tokens=input_tokens if model.encoder is not None else 0,
        element_bytes=dtype_called(dtype).compute_bytes,
        tensor_parallel=1,
    )
    return Estimated(memory, cache.self_attention, cache.cross_attention)


def served_estimate(
    model: str, dtype: str, instance_type: str, batch: int, input_tokens: int, output_tokens: int
) -> dict[str, Any] | None:
    """What sizing expects of a service, to stand beside what was seen from outside: seconds of one request on an idle
    host, and the device's memory in bytes at `batch`. None where it knows the model, dtype or GPU's speed not."""
    from sizing.hardware.load import load_hardware
    from sizing.throughput.device import device_of
    from sizing.throughput.roofline import Asked, can_estimate, request_speed
    from sizing.throughput.work import work_of

    try:
        facts = resolve_model(model)
        instance = load_hardware().instance(instance_type)
        setup = InferenceSetup(dtype=dtype, batch=batch, input_tokens=input_tokens, output_tokens=output_tokens)
        memory = estimate_inference(facts, setup)
    except UserError:
        return None
    device = device_of(instance)
    asked = Asked(setup.dtype, setup.engine, input_tokens, output_tokens if facts.generates else 0)
    if isinstance(device, str) or can_estimate(asked, device):
        return None
    alone = request_speed(work_of(facts, setup.dtype), asked, device, 1)
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "latency_s": alone.total.to_json(),
        "batch": batch,
        "device_bytes": memory.device.total_bytes,
        "max_bytes": instance.gpu.memory_bytes if instance.gpu else None,
    }


def compare(start_up: Mapping[str, Any], result: Mapping[str, Any], estimated: Estimated | None) -> dict[str, Any]:
    """Measured and estimated bytes of a batch, term by term.

    Terms: `weights` (parameters and buffers as they stand), `KV cache` and `KV cache, cross-attention` (at the end of
    generation), `peak beyond weights`. On a GPU the peak is `torch.cuda.max_memory_allocated`, and `reserved` and
    `driver` stand beside it; on a CPU it is resident memory, of which the allocator and the kernels keep some: there it
    is a bound and no check.
    """
    gpu = "driver_bytes" in result
    # Resident memory before the batch holds the interpreter and the libraries, which are no part of an estimate.
    beyond = max(0, result["peak_bytes"] - result["before_bytes"])
    measured = {
        "weights": start_up["weights_bytes"],
        "KV cache": result.get("kv_cache_bytes") or 0,
        "KV cache, cross-attention": result.get("cross_cache_bytes") or 0,
        "peak beyond weights": beyond,
    }
    if gpu:
        measured |= {"reserved": result["reserved_bytes"], "driver": result["driver_bytes"]}
    likely: dict[str, int] = {}
    ranges: dict[str, tuple[int, int]] = {}
    if estimated is not None:
        device = estimated.memory.device
        weights = [t.name for t in device.terms if t.name.startswith(("weights", "quantization constants"))]
        stand = device.bytes_of(weights)
        likely = {
            "weights": stand,
            "KV cache": round(estimated.cache),
            "KV cache, cross-attention": round(estimated.cross),
            "peak beyond weights": device.total("allocated") - stand,
        }
        ranges["peak beyond weights"] = (
            device.total("allocated", "low") - stand,
            device.total("allocated", "high") - stand,
        )
        if gpu:
            likely |= {"reserved": device.total("reserved"), "driver": device.total("driver")}
            ranges["driver"] = (device.total("driver", "low"), device.total("driver", "high"))
    terms = [
        {
            "name": name,
            "measured_bytes": size,
            "estimated_bytes": likely.get(name),
            "estimated_low_bytes": ranges.get(name, (None, None))[0],
            "estimated_high_bytes": ranges.get(name, (None, None))[1],
            "difference": None if not likely.get(name) else size / likely[name] - 1,
        }
        for name, size in measured.items()
        if size or likely.get(name)
    ]
    host: dict[str, Any] = {"measured_load_peak_bytes": start_up["load_peak_bytes"]}
    if estimated is not None:
        host["estimated_load_peak_bytes"] = estimated.memory.host.total("driver")
        host["estimated_terms"] = [t.to_json() for t in estimated.memory.host.terms]
    return {
        "batch": result["batch"],
        "metric": "torch.cuda.max_memory_allocated" if gpu else "resident memory, Linux VmHWM",
        "terms": terms,
        "host": host,
    }
