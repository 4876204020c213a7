"""Which measurement speaks for which estimate, and what of it is carried over.

For the same model, dtype and engine (Berth's handler on transformers), one copy on one GPU:

- on the same GPU (same name, memory within a tenth), at a measured batch and the same token counts, memory by metric
  and the batch's seconds are what was measured;
- on the same GPU, at another batch or other token counts: weights and the CUDA context are taken as measured; what
  lies beyond the weights and the allocator's slack follow their formulas, corrected as `sizing.measured.carry` says;
  the seconds are the estimate's times what was measured over the estimate at the nearest batches;
- a batch that ran out of memory fits nowhere on that GPU, nor does one that is no smaller, with requests no shorter;
- on any other CUDA GPU only the weights are taken over (they are a property of model and dtype); after a measurement on
  a CPU too, but for quantized weights, whose constants differ there;
- never carried over: the host's memory while loading (resident memory counts pages that the kernel can take back),
  several GPUs a copy, start-up, and anything to another model, dtype or engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sizing.choosing.precision import auto_dtype
from sizing.choosing.wishes import Wishes
from sizing.dtypes import dtype as dtype_called
from sizing.errors import UserError
from sizing.hardware.load import Hardware
from sizing.hardware.types import Gpu
from sizing.measured.memory import PARTS, Basis, corrected
from sizing.measured.read import ENGINE, Measured, Point
from sizing.memory.inference import estimate_inference
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import MemoryEstimate
from sizing.models.facts import ModelFacts
from sizing.throughput.device import Correction, Device
from sizing.throughput.roofline import Asked, can_estimate, speed_at
from sizing.throughput.work import Work

_SAME_MEMORY = 0.1
"""How far the memory of two GPUs of one name may lie apart: CUDA's figure and nvidia-smi's differ by 2 % on a T4."""


@dataclass(frozen=True)
class Calibration:
    """The measurements of one model, ready to correct estimates. Made by `calibrate`."""

    model: ModelFacts
    measured: tuple[Measured, ...]
    notes: tuple[str, ...] = ()
    _estimates: dict[tuple[str, int, InferenceSetup], MemoryEstimate] = field(default_factory=dict, compare=False)

    def of_gpu(self, gpu: Gpu, dtype: str, setup: tuple[int, int]) -> Measured | None:
        """The measurement on this GPU in `dtype` that is nearest in token counts (`setup`: in, out); None without."""
        found = [
            m for m in self.measured if m.gpu and m.gpu == gpu.name and m.dtype == dtype and m.points and _same(m, gpu)
        ]
        return min(found, key=lambda m: (_distance(m, setup), m.path)) if found else None

    def failed_batch(self, gpu: Gpu, dtype: str, setup: tuple[int, int]) -> int | None:
        """The smallest batch that ran out of this GPU's memory with requests no longer than these; None if none did."""
        failed = [
            m.failed_batch
            for m in self.measured
            if m.gpu == gpu.name
            and m.dtype == dtype
            and _same(m, gpu)
            and m.failed_batch is not None
            and m.input_tokens <= setup[0]
            and m.output_tokens <= setup[1]
        ]
        return min(failed) if failed else None

    def basis(self, gpu: Gpu, setup: InferenceSetup) -> Basis | None:
        """What an estimate for `setup` on `gpu` takes from which measurement; None where it takes nothing."""
        if setup.engine != ENGINE or setup.tensor_parallel != 1:
            return None
        lengths = (setup.input_tokens, setup.output_tokens)
        same = self.of_gpu(gpu, setup.dtype, lengths)
        if same is not None:
            exact = _shape(same) == lengths and any(p.batch == setup.batch for p in same.points)
            return Basis(same, PARTS, exact)
        others = [
            m
            for m in self.measured
            if m.dtype == setup.dtype and (m.on_gpu or not dtype_called(m.dtype).quantized) and gpu.vendor == "nvidia"
        ]
        # The most bytes of several: what is carried to another GPU should not be the luckiest.
        return Basis(max(others, key=lambda m: m.weights_bytes), ("weights",), False) if others else None

    def memory(self, estimate: MemoryEstimate, gpu: Gpu, setup: InferenceSetup) -> MemoryEstimate:
        """`estimate` of one device corrected for `gpu`; the host's part stays as it is."""
        basis = self.basis(gpu, setup)
        if basis is None:
            return estimate
        points = [(p, self._estimate(setup, basis.measured, p).device) for p in basis.measured.points]
        same_shape = _shape(basis.measured) == (setup.input_tokens, setup.output_tokens)
        device = corrected(estimate.device, setup.batch, basis, points, same_shape=same_shape)
        return MemoryEstimate(device, estimate.host, estimate.rule_of_thumb, estimate.assumptions)

    def _estimate(self, setup: InferenceSetup, measured: Measured, point: Point) -> MemoryEstimate:
        key = (measured.path, point.batch, setup)
        if key not in self._estimates:
            there = InferenceSetup(
                dtype=measured.dtype,
                batch=point.batch,
                input_tokens=measured.input_tokens,
                output_tokens=measured.output_tokens,
                engine=setup.engine,
                attention=setup.attention,
                loading=setup.loading,
            )
            self._estimates[key] = estimate_inference(self.model, there)
        return self._estimates[key]

    def device(self, device: Device, gpu: Gpu, work: Work, asked: Asked) -> Device:
        """`device` with the correction of its speeds, where this GPU was measured."""
        if asked.engine != ENGINE or asked.gpus != 1 or can_estimate(asked, device):
            return device
        measured = self.of_gpu(gpu, asked.dtype, (asked.input_tokens, asked.output_tokens))
        if measured is None:
            return device
        there = Asked(asked.dtype, asked.engine, measured.input_tokens, measured.output_tokens)
        factors = tuple((p.batch, p.seconds / speed_at(work, there, device, p.batch).total) for p in measured.points)
        return device.corrected(Correction(factors))


def calibrate(model: ModelFacts, measured: Sequence[Measured], wishes: Wishes, hardware: Hardware) -> Calibration:
    """The calibration of `model` by what was `measured`.

    Raises `UserError` for a measurement of another model, or of a dtype that these wishes never take.
    """
    notes = []
    for m in measured:
        _check_model(m, model)
        _check_dtype(m, model, wishes, hardware)
        notes += [f"{m.path}: {note}" for note in _notes(m, wishes)]
    return Calibration(model, tuple(measured), tuple(notes))


def _same(measured: Measured, gpu: Gpu) -> bool:
    return (
        measured.gpus_per_copy == 1
        and abs(measured.gpu_memory_bytes - gpu.memory_bytes) <= _SAME_MEMORY * gpu.memory_bytes
    )


def _shape(measured: Measured) -> tuple[int, int]:
    return measured.input_tokens, measured.output_tokens


def _distance(measured: Measured, lengths: tuple[int, int]) -> float:
    """How far two requests lie apart: the sum of the logarithms of the ratios of their lengths."""
    return sum(abs(math.log((a + 1) / (b + 1))) for a, b in zip(_shape(measured), lengths, strict=True))


def _plain(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _check_model(measured: Measured, model: ModelFacts) -> None:
    if _plain(model.name) not in (_plain(measured.model), _plain(measured.source)):
        raise UserError(
            f"--measured {measured.path} is of {measured.model}, not of {model.name}, of which it says nothing; "
            f"size {measured.model}, or measure {model.name} with berth verify"
        )


def _check_dtype(measured: Measured, model: ModelFacts, wishes: Wishes, hardware: Hardware) -> None:
    if wishes.dtype != "auto":
        wished = dtype_called(wishes.dtype).name
        if wished != measured.dtype:
            raise UserError(
                f"--measured {measured.path} is in {measured.dtype}, and --dtype {wished} is asked for; ask for "
                f"--dtype {measured.dtype}, or measure in {wished}"
            )
        return
    gpus = [g for g in hardware.accelerators if g.vendor == "nvidia" and (not measured.gpu or g.name == measured.gpu)]
    taken = {auto_dtype(model, gpu) for gpu in gpus}
    if measured.dtype not in taken:
        where, named = measured.gpu or "any GPU", " or ".join(sorted(taken))
        raise UserError(
            f"--measured {measured.path} is in {measured.dtype}, and --dtype auto takes {named} on {where}; "
            f"ask for --dtype {measured.dtype}, or measure in {named}"
        )


def _notes(measured: Measured, wishes: Wishes) -> list[str]:
    notes = []
    if wishes.engine != ENGINE:
        notes.append(f"measured with {ENGINE}; for --engine {wishes.engine} nothing is taken from it")
    major = measured.transformers.split(".")[:2]
    if len(major) == 2 and all(part.isdigit() for part in major) and (int(major[0]), int(major[1])) < (4, 45):
        notes.append(
            f"measured with transformers {measured.transformers}, whose cache and logits take more than those of 4.45 "
            "and later, which are estimated; measure with the version that will serve"
        )
    if not measured.on_gpu:
        notes.append(f"measured on a CPU ({measured.device}): of a GPU it tells the weights only")
    elif not measured.gpu:
        notes.append(f"{measured.device} is in no instance type of the catalogue: its weights are taken, nothing else")
    if measured.gpus_per_copy > 1:
        notes.append(f"measured over {measured.gpus_per_copy} GPUs: its weights are taken, nothing else")
    if not measured.points:
        notes.append("not even a batch of 1 was answered")
    return notes
