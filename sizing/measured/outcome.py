"""What measuring changes: the choice by estimates alone beside the one with what was measured, in words and as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sizing.choose import Choice, Chosen, choose
from sizing.choosing.fit import Memories
from sizing.choosing.serving import Planner
from sizing.choosing.wishes import Wishes
from sizing.hardware.load import Hardware
from sizing.hardware.types import Gpu
from sizing.measured.calibration import Calibration, calibrate
from sizing.measured.memory import PARTS
from sizing.measured.read import Measured, Point
from sizing.models.facts import ModelFacts
from sizing.throughput.device import device_of
from sizing.throughput.roofline import Asked, can_estimate, speed_at
from sizing.units import gib
from sizing.workload import Workload

Origin = Literal["measured", "carried over", "estimated"]
"""carried over: an estimate corrected by what was measured at another batch, other token counts or another GPU."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The largest measured batch of one file beside its estimate, and the largest batch that fits before and after.

    `max_batch`: of the requests asked for; sizes are bytes as the driver sees them; seconds are those of the batch.
    """

    measured: Measured
    gpu: Gpu
    point: Point
    estimated_bytes: int
    estimated_seconds: float | None
    max_batch: int
    max_batch_estimated: int

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.measured.path,
            "gpu": self.gpu.name,
            "batch": self.point.batch,
            "input_tokens": self.measured.input_tokens,
            "output_tokens": self.measured.output_tokens,
            "measured_bytes": self.point.driver,
            "estimated_bytes": self.estimated_bytes,
            "measured_s": self.point.seconds,
            "estimated_s": self.estimated_seconds,
            "max_batch": self.max_batch,
            "max_batch_estimated": self.max_batch_estimated,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A choice that takes measurements into account, beside the one by estimates alone."""

    choice: Choice
    by_estimates: Choice
    calibration: Calibration
    compared: tuple[Compared, ...]

    @property
    def changes(self) -> bool:
        """Whether another machine, number of machines or batch is chosen than estimates alone would have it."""
        return _essence(self.choice.chosen) != _essence(self.by_estimates.chosen)

    def lines(self) -> list[str]:
        """What was measured, what follows from it, and whether the choice changes: sentences for a person."""
        said = [_compared_line(c, self._wished(c)) for c in self.compared]
        said += [line for c in self.compared if (line := _seconds_line(c))]
        return [*said, self._verdict(), *self.calibration.notes]

    def _wished(self, compared: Compared) -> int:
        """The batch that is asked for, or under a load the one that estimates alone would serve at on this GPU."""
        work, before = self.choice.workload, self.by_estimates.chosen
        if work.requests_per_day is None:
            return work.batch
        return before.serving.batch if before is not None and before.instance.gpu == compared.gpu else 1

    def _verdict(self) -> str:
        now, before = self.choice.chosen, self.by_estimates.chosen
        if now is None:
            miss = self.choice.nearest_miss()
            why = f" ({miss.instance_type}: {miss.reason})" if miss else ""
            return "nothing fits" + ("" if before is None else f" any more, {_named(before)} by estimates alone") + why
        if before is None:
            return f"the choice changes: {_named(now)}; by estimates alone nothing fits"
        if self.changes:
            return f"the choice changes: {_named(now)} instead of {_named(before)}"
        return f"the choice stands: {_named(now)}"

    def origins(self) -> Iterator[tuple[str, Origin]]:
        """Every part of the choice's GPU memory, its latency and largest batch, and whether each was measured."""
        chosen = self.choice.chosen
        if chosen is None or chosen.instance.gpu is None:
            return
        planner = Planner(self.choice.model, self.choice.workload, self.choice.wishes, self.calibration)
        serving, gpu = chosen.serving, chosen.instance.gpu
        basis = self.calibration.basis(gpu, planner.memories.setup(serving.dtype, serving.gpus_per_copy, serving.batch))
        taken = () if basis is None else basis.parts
        exact = basis is not None and basis.exact
        same_gpu = len(taken) == len(PARTS)
        for part in PARTS:
            origin: Origin = "measured" if exact or part == "weights" else "carried over"
            yield part, origin if part in taken else "estimated"
        corrected = same_gpu and chosen.speed is not None
        yield "latency", "estimated" if not corrected else "measured" if exact else "carried over"
        yield "largest batch", "carried over" if same_gpu else "estimated"

    def to_json(self) -> dict[str, Any]:
        """The key `measured` of `berth size --json`."""
        before = self.by_estimates.chosen
        return {
            "files": [_file_json(m) for m in self.calibration.measured],
            "compared": [c.to_json() for c in self.compared],
            "choice_by_estimates": None if before is None else _choice_json(before),
            "changes": self.changes,
            "origins": dict(self.origins()),
            "says": self.lines(),
        }


def choose_measured(
    model: ModelFacts, workload: Workload, hardware: Hardware, wishes: Wishes, measured: tuple[Measured, ...]
) -> Outcome:
    """`choose` with and without what was `measured`. Raises `UserError` as both `choose` and `calibrate` do."""
    calibration = calibrate(model, measured, wishes, hardware)
    return Outcome(
        choice=choose(model, workload, hardware, wishes, calibration),
        by_estimates=choose(model, workload, hardware, wishes),
        calibration=calibration,
        compared=tuple(_comparisons(model, workload, hardware, wishes, calibration)),
    )


def _comparisons(
    model: ModelFacts, workload: Workload, hardware: Hardware, wishes: Wishes, calibration: Calibration
) -> Iterator[Compared]:
    plain, calibrated = Planner(model, workload, wishes), Planner(model, workload, wishes, calibration)
    lengths = (workload.input_tokens, workload.output_tokens)
    for m in calibration.measured:
        instance = next(
            (
                i
                for i in hardware.instances.values()
                if i.gpu is not None and calibration.of_gpu(i.gpu, m.dtype, lengths) is not None and i.gpu.name == m.gpu
            ),
            None,
        )
        if instance is None or instance.gpu is None or m.largest is None or wishes.engine != "transformers":
            continue
        point, gpu = m.largest, instance.gpu
        there = Memories(
            model, Workload(m.input_tokens, m.output_tokens, batch=point.batch), wishes.loading, wishes.engine
        )
        device, asked = device_of(instance), Asked(m.dtype, wishes.engine, m.input_tokens, m.output_tokens)
        unknown = isinstance(device, str) or can_estimate(asked, device)
        yield Compared(
            measured=m,
            gpu=gpu,
            point=point,
            estimated_bytes=there.estimate(m.dtype, 1, point.batch).device.total_bytes,
            estimated_seconds=(
                None
                if unknown or isinstance(device, str)
                else speed_at(plain.work(m.dtype), asked, device, point.batch).total
            ),
            max_batch=calibrated.memories.largest_batch(m.dtype, 1, gpu),
            max_batch_estimated=plain.memories.largest_batch(m.dtype, 1, gpu),
        )


def _compared_line(compared: Compared, wished: int) -> str:
    m, point = compared.measured, compared.point
    size = point.driver or 0
    shape = f"{m.input_tokens:,} tokens in, {m.output_tokens:,} out"
    head = (
        f"{compared.gpu.name}, batch {point.batch} ({shape}): measured {gib(size)}, "
        f"estimated {gib(compared.estimated_bytes)}"
    )
    most, before = compared.max_batch, compared.max_batch_estimated
    if not most:
        return f"{head}: not even one request as asked for fits"
    if wished > most:
        return f"{head}: batch {wished} does not fit; batch {most} does"
    if most == before:
        return f"{head}: batch {wished} fits, {most:,} at most, as estimated"
    return f"{head}: batch {wished} fits, {most:,} at most, not {before:,}"


def _seconds_line(compared: Compared) -> str:
    if compared.estimated_seconds is None:
        return ""
    ratio = compared.point.seconds / compared.estimated_seconds
    return (
        f"{compared.gpu.name}, batch {compared.point.batch}: took {compared.point.seconds:,.3g} s, "
        f"estimated {compared.estimated_seconds:,.3g} s ({ratio:.2f} ×)"
    )


def _essence(chosen: Chosen | None) -> tuple[object, ...] | None:
    if chosen is None:
        return None
    return chosen.instance.name, chosen.region, chosen.pay, chosen.serving.batch, chosen.serving.hosts


def _named(chosen: Chosen) -> str:
    hosts = f"{chosen.serving.hosts:,} × " if chosen.serving.hosts > 1 else ""
    return f"{hosts}{chosen.instance.name} at batch {chosen.serving.batch} (${chosen.usd_per_month:,.2f} a month)"


def _choice_json(chosen: Chosen) -> dict[str, Any]:
    return {
        "instance_type": chosen.instance.name,
        "region": chosen.region,
        "pay": chosen.pay,
        "batch": chosen.serving.batch,
        "max_batch": chosen.max_batch,
        "hosts": chosen.serving.hosts,
        "usd_per_month": round(chosen.usd_per_month, 2),
    }


def _file_json(m: Measured) -> dict[str, Any]:
    return {
        "file": m.path,
        "measured_at": m.measured_at,
        "model": m.model,
        "dtype": m.dtype,
        "device": m.device,
        "gpu": m.gpu or None,
        "instance_type": m.instance_type or None,
        "input_tokens": m.input_tokens,
        "output_tokens": m.output_tokens,
        "weights_bytes": m.weights_bytes,
        "batches": [p.batch for p in m.points],
        "failed_batch": m.failed_batch,
    }
