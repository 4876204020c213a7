"""Estimates beside published measurements, for inference."""

from __future__ import annotations

from pathlib import Path

from sizing.accuracy.inference_cases import SPEED_UNITS, Case, case_of, measured, model_of
from sizing.accuracy.points import DATA, OutOfScope, Point, PointResult, points
from sizing.dtypes import dtype as dtype_called
from sizing.memory.engines import engine
from sizing.memory.inference import estimate_inference
from sizing.memory.runtime import A100_WITH_LIBRARIES
from sizing.memory.terms import Breakdown, MemoryEstimate, Metric
from sizing.memory.weights import is_quantized, kept_bytes

_WEIGHTS = ("weights", "weights kept in fp32", "weights kept in 16 bit", "quantization constants")


def inference_results(path: Path = DATA) -> tuple[list[PointResult], list[OutOfScope]]:
    """Every inference row of the file (`measured_points.csv` unless told): a result, or the reason it has none."""
    results: list[PointResult] = []
    outside: list[OutOfScope] = []
    for point in points(path):
        if point.task != "inference":
            continue
        case = case_of(point)
        if isinstance(case, str):
            outside.append(OutOfScope(point, case))
        else:
            result = result_of(point, case)
            if result is None:
                outside.append(OutOfScope(point, "a speed, which `sizing.throughput` answers"))
            else:
                results.append(result)
    return results, outside


def result_of(point: Point, case: Case) -> PointResult | None:
    """The estimate for `case` beside the measurement; None for a speed on a device whose memory is not known."""
    estimate = estimate_inference(case.model, case.setup)
    about_fitting = point.unit == "fit" or point.unit in SPEED_UNITS
    if about_fitting:
        if not case.capacity_bytes:
            return None
        needed = estimate.device.total("driver")
        return PointResult(
            point,
            "fits",
            case.capacity_bytes,
            needed,
            estimate.rule_of_thumb.total_bytes,
            _weights(estimate.device),
            point.group,
            fits=point.measured_value != "OOM",
            estimated_fits=needed <= case.capacity_bytes,
            note=case.note or ("it ran, so it fitted" if point.unit in SPEED_UNITS else ""),
        )
    value = measured(point)
    if value is None:
        return None
    # The simple methods know nothing of devices: a figure per GPU is held against their share of it.
    shares = point.gpu_count if point.unit.endswith("/GPU") else 1
    whole = estimate.rule_of_thumb.params if "sequential" not in point.method else _params_of(point)
    return PointResult(
        point,
        case.metric,
        value * case.unit_bytes,
        predicted(estimate, case),
        whole * estimate.rule_of_thumb.bytes_per_param * estimate.rule_of_thumb.overhead / shares,
        whole * estimate.rule_of_thumb.bytes_per_param / shares,
        point.group,
        note=case.note,
    )


def _params_of(point: Point) -> int:
    model = model_of(point)
    return model.params if model is not None else 0


def predicted(estimate: MemoryEstimate, case: Case) -> float:
    """The figure of `estimate` that the point's metric asks for, in bytes."""
    device = estimate.device
    if case.metric == "weights":
        return _weights(device)
    if case.metric == "footprint":
        return _footprint(case)
    if case.metric == "allocated + context":
        return device.total("allocated") + A100_WITH_LIBRARIES
    if case.devices > 1:
        temporary = device.bytes_of(("activations", "logits"))
        return device.total("allocated") + (case.devices - 1) * temporary
    metric: Metric = "reserved" if case.metric == "reserved" else "driver" if case.metric == "driver" else "allocated"
    return float(device.total(metric))


def _weights(device: Breakdown) -> float:
    return float(device.bytes_of(_WEIGHTS))


def _footprint(case: Case) -> float:
    """`get_memory_footprint()`: parameters and buffers, without the row scales that bitsandbytes keeps beside them."""
    dtype, habits = dtype_called(case.setup.dtype), engine(case.setup.engine)
    return sum(t.numel * (1.0 if is_quantized(t, dtype, habits) else kept_bytes(t, dtype)) for t in case.model.tensors)
