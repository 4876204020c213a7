"""Estimates beside published measurements, for fine-tuning, with DeepSpeed's estimators and 16 bytes a parameter."""

from __future__ import annotations

from pathlib import Path

from sizing.accuracy.points import DATA, OutOfScope, Point, PointResult, number, points
from sizing.accuracy.training_cases import case_of
from sizing.accuracy.training_rows import Case
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.terms import MemoryEstimate, Metric
from sizing.memory.training.activations import dialect_for, recipe_for
from sizing.memory.training.estimate import estimate_training, needed_bytes
from sizing.memory.training.host import running_breakdown
from sizing.memory.training.layers import layer_footprint
from sizing.memory.training.sharding import largest_matrix
from sizing.memory.training.weights import base_parts

HELD_OUT = DATA.with_name("held_out_training_points.csv")
MACHINE_TERMS = ("operating system and container", "page cache headroom")


def training_results(path: Path = DATA) -> tuple[list[PointResult], list[OutOfScope]]:
    """Every training row of the file (`measured_points.csv` unless told): a result, or the reason it has none."""
    results: list[PointResult] = []
    outside: list[OutOfScope] = []
    for point in points(path):
        if point.task != "training":
            continue
        case = case_of(point)
        if isinstance(case, str):
            outside.append(OutOfScope(point, case))
        else:
            results.append(result_of(point, case))
    return results, outside


def held_out_training_results() -> tuple[list[PointResult], list[OutOfScope]]:
    """Rows of the same tables that `measured_points.csv` leaves out (`held_out_training_points.csv`).

    No constant is set by them. litgpt's two habits, parameters that stay gathered and adapters scattered into place,
    were looked for with its rows of both files in view.
    """
    return training_results(HELD_OUT)


def result_of(point: Point, case: Case) -> PointResult:
    """The estimate for `case` beside the measurement."""
    if case.metric == "layer":
        return _layer_result(point, case)
    estimate = estimate_training(case.model, case.setup)
    others = (("DeepSpeed", deepspeed_estimate(case)),) if case.metric not in ("host", "process") else ()
    weights = float(sum(p.size for p in base_parts(case.model, case.setup)))
    if case.metric == "fits":
        needed = needed_bytes(estimate)
        return PointResult(
            point,
            "fits",
            case.capacity_bytes,
            needed,
            estimate.rule_of_thumb.total_bytes / _ranks(case),
            weights,
            point.group,
            fits=case.fits,
            estimated_fits=needed <= case.capacity_bytes and _host_fits(estimate, case),
            note=case.note,
            others=others,
        )
    measured = (number(point.measured_value) or 0.0) * case.unit_bytes
    return PointResult(
        point,
        case.metric,
        measured,
        predicted(estimate, case),
        estimate.rule_of_thumb.total_bytes / _ranks(case) * case.devices,
        weights * case.devices,
        point.group,
        note=case.note,
        others=others,
    )


def predicted(estimate: MemoryEstimate, case: Case) -> float:
    """The figure of `estimate` that the point's metric asks for, in bytes."""
    if case.metric == "host":
        # What tools call used: without the pages of files, which the kernel takes back.
        return float(sum(t.bytes for t in estimate.host.terms if t.name != "weights, mapped file"))
    if case.metric == "process":
        running = running_breakdown(case.model, case.setup)
        return float(sum(t.bytes for t in running.terms if t.name not in MACHINE_TERMS))
    metric: Metric = "reserved" if case.metric == "reserved" else "driver" if case.metric == "driver" else "allocated"
    return float(estimate.device.total(metric)) * case.devices


def _host_fits(estimate: MemoryEstimate, case: Case) -> bool:
    return not case.host_bytes or estimate.host.total_bytes <= usable_ram_bytes(int(case.host_bytes))


def deepspeed_estimate(case: Case) -> float:
    """What DeepSpeed's `estimate_zero2/3_model_states_mem_needs` say for a GPU, in bytes: 2P + 18P/N at stage 2;
    4 · largest layer + 18P/N at stage 3, with offloads less (`runtime/zero/stage_1_and_2.py`, `stage3.py`)."""
    setup, total = case.setup, case.model.params
    n = max(1, setup.data_parallel)
    if setup.zero_stage == 3:
        largest = largest_matrix(case.model)
        share = {"none": 18.0, "optimizer": 2.0, "all": 0.0}[setup.offload]
        return (4 * largest + share * total / n) * case.devices
    if setup.offload != "none":
        return 2.0 * total * case.devices
    return (2 * total + 18 * total / n) * case.devices


def _ranks(case: Case) -> int:
    """The rule of thumb spreads over the GPUs where states and weights are sharded."""
    return case.setup.data_parallel if case.setup.zero_stage == 3 else 1


def _layer_result(point: Point, case: Case) -> PointResult:
    stack = case.model.main
    unit = case.setup.micro_batch * case.setup.input_tokens * stack.hidden_size * 2
    recipe, dialect = recipe_for(case.model, case.setup), dialect_for(case.model, case.setup)
    found = layer_footprint(stack, dialect, recipe, case.setup.micro_batch, case.setup.input_tokens)
    measured = (number(point.measured_value) or 0.0) * unit
    return PointResult(
        point, "layer", measured, float(found.saved_bytes + found.output), 34.0 / 2 * unit, float(unit), point.group
    )
