"""How a model would be served on a machine: dtype, GPUs a copy, copies, batch, hosts; or why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sizing.choosing.fit import LEAN_LOADING, Memories, device_short, failed_short, host_short
from sizing.choosing.precision import auto_dtype, refused_dtype
from sizing.choosing.refusal import Refusal
from sizing.choosing.wishes import Wishes
from sizing.hardware.types import Gpu, InstanceType
from sizing.models.facts import ModelFacts
from sizing.throughput.capacity import Capacity, Load, batch_needed, capacity_for, hosts_needed
from sizing.throughput.device import Device, device_of
from sizing.throughput.roofline import Asked, can_estimate, speed_at
from sizing.throughput.tables import engine
from sizing.throughput.work import Work, work_of
from sizing.units import gib
from sizing.workload import Workload

if TYPE_CHECKING:
    from sizing.measured.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Serving:
    """A way to serve that fits. `latency_s` is likely, waiting apart; None where the GPU's speed is unknown."""

    dtype: str
    gpus_per_copy: int
    copies: int
    batch: int
    hosts: int
    latency_s: float | None
    requests_per_s_per_host: float | None
    """Planned for, waiting and a margin included; under a batch, what the host answers when it is never idle."""
    speed_gap: str = ""


@dataclass(frozen=True, slots=True)
class Lay:
    """One copy of the model over `gpus` GPUs, `copies` of it on the machine."""

    gpus: int
    copies: int


class Planner:
    """Serves one model and workload on one machine after another; what machines share is computed once."""

    def __init__(
        self, model: ModelFacts, workload: Workload, wishes: Wishes, calibration: Calibration | None = None
    ) -> None:
        self.model, self.workload, self.wishes, self.calibration = model, workload, wishes, calibration
        self.memories = Memories(model, workload, wishes.loading, wishes.engine, calibration)
        self.load = load_of(workload)
        self._works: dict[str, Work] = {}
        self._capacities: dict[tuple[object, ...], tuple[Capacity, int]] = {}

    def dtype_on(self, gpu: Gpu) -> str:
        return auto_dtype(self.model, gpu) if self.wishes.dtype == "auto" else self.wishes.dtype

    def work(self, dtype: str) -> Work:
        if dtype not in self._works:
            self._works[dtype] = work_of(self.model, dtype)
        return self._works[dtype]

    def asked(self, dtype: str, gpus: int) -> Asked:
        return Asked(dtype, self.wishes.engine, self.workload.input_tokens, self.workload.output_tokens, gpus)

    def device(self, instance: InstanceType, dtype: str, gpus: int) -> Device | str:
        """The GPU as the roofline needs it, its speeds corrected where it was measured; or in words what is missing."""
        device = device_of(instance)
        if isinstance(device, str) or self.calibration is None or instance.gpu is None:
            return device
        return self.calibration.device(device, instance.gpu, self.work(dtype), self.asked(dtype, gpus))

    def serve(self, instance: InstanceType) -> Serving | Refusal:
        """The best way to serve on `instance`, or the reason that there is none."""
        gpu = instance.gpu
        if gpu is None:
            return Refusal(instance.name, "no GPU", "it has no GPU")
        if gpu.vendor != "nvidia":
            return Refusal(
                instance.name, "AWS Neuron", f"{gpu.name} is an AWS Neuron device; the LMI handler here runs on CUDA"
            )
        if instance.arch != "x86_64":
            return Refusal(instance.name, "architecture", f"its processor is {instance.arch}; LMI images are x86_64")
        if instance.gpus > self.wishes.max_gpus:
            return Refusal(
                instance.name, "too many GPUs", f"{instance.gpus} GPUs, more than --max-gpus {self.wishes.max_gpus}"
            )
        dtype = self.dtype_on(gpu)
        if why := refused_dtype(dtype, gpu):
            return Refusal(instance.name, "dtype", why)
        found: list[Serving | Refusal] = [self._lay_out(instance, gpu, dtype, lay) for lay in self._lays(instance)]
        serving = [s for s in found if isinstance(s, Serving)]
        if serving:
            return max(serving, key=lambda s: (-s.hosts, s.requests_per_s_per_host or 0.0, -s.gpus_per_copy))
        refused = [r for r in found if isinstance(r, Refusal)]
        # The layout that came nearest: one that fits and is too slow before one that is short of memory.
        return min(refused, key=lambda r: (r.short_bytes is not None, r.distance))

    def _lays(self, instance: InstanceType) -> list[Lay]:
        count = instance.gpus
        lays = [Lay(n, count // n) for n in range(1, count + 1) if count % n == 0 and self.memories.can_split(n)]
        return lays or [Lay(1, count)]

    def _lay_out(self, instance: InstanceType, gpu: Gpu, dtype: str, lay: Lay) -> Serving | Refusal:
        batch = self.workload.batch if self.load is None else 1
        memory = self.memories.estimate(dtype, lay.gpus, batch, gpu)
        if short := device_short(memory.device, gpu, lay.gpus, dtype, batch):
            return Refusal(instance.name, "GPU memory", short.reason, short.bytes, short.bytes)
        if seen := failed_short(self.memories.failed_batch(dtype, lay.gpus, gpu), gpu, dtype, batch):
            return Refusal(instance.name, "GPU memory", seen)
        processes = self.processes(lay.gpus, lay.copies)
        host = self.memories.host(dtype, processes)
        if short := host_short(host, instance, processes, self.wishes.loading):
            why = short.reason + self._leaner(instance, dtype, processes)
            return Refusal(instance.name, "system RAM", why, short.bytes, short.bytes)
        device = self.device(instance, dtype, lay.gpus)
        gap = device if isinstance(device, str) else can_estimate(self.asked(dtype, lay.gpus), device)
        if gap or isinstance(device, str):
            if self.load is not None or self.workload.latency_s is not None:
                return Refusal(
                    instance.name, "speed unknown", f"speed unknown: {gap}; no load or latency can be promised"
                )
            return Serving(dtype, lay.gpus, lay.copies, batch, 1, None, None, gap)
        if self.load is None:
            return self._serve_batch(instance, device, dtype, lay)
        return self._serve_load(instance, gpu, device, dtype, lay, self.load)

    def processes(self, gpus_per_copy: int, copies: int) -> int:
        """Processes that load the model: one a rank under tensor parallelism, else one a copy."""
        return copies * (gpus_per_copy if engine(self.wishes.engine).tensor_parallel else 1)

    def _leaner(self, instance: InstanceType, dtype: str, processes: int) -> str:
        """A hint where memory-mapped loading would make it fit."""
        if self.wishes.loading == LEAN_LOADING:
            return ""
        lean = self.memories.host(dtype, processes, LEAN_LOADING)
        if host_short(lean, instance, processes, LEAN_LOADING):
            return ""
        return f"; --loading {LEAN_LOADING} would fit with {gib(lean.total_bytes)}"

    def _serve_batch(self, instance: InstanceType, device: Device, dtype: str, lay: Lay) -> Serving | Refusal:
        batch, limit = self.workload.batch, self.workload.latency_s
        seconds = speed_at(self.work(dtype), self.asked(dtype, lay.gpus), device, batch).total
        if limit is not None and seconds > limit:
            return _too_slow(instance, seconds, limit, f"a batch of {batch}" if batch > 1 else "one request")
        return Serving(dtype, lay.gpus, lay.copies, batch, 1, seconds, lay.copies * batch / seconds)

    def _serve_load(
        self, instance: InstanceType, gpu: Gpu, device: Device, dtype: str, lay: Lay, load: Load
    ) -> Serving | Refusal:
        work, asked, limit = self.work(dtype), self.asked(dtype, lay.gpus), self.workload.latency_s
        key = (device, gpu.memory_bytes, dtype, lay)
        if key not in self._capacities:
            fitting = self.memories.largest_listed_batch(dtype, lay.gpus, gpu)
            most = capacity_for(work, asked, device, max(1, fitting), limit)
            hosts = hosts_needed(load, most.requests_per_s * lay.copies) if most.holds else 0
            self._capacities[key] = most, hosts
        most, hosts = self._capacities[key]
        if not most.holds and limit is not None:
            return _too_slow(instance, most.latency_alone_s, limit, "one request on an idle host")
        batch = batch_needed(work, asked, device, most, limit, load.peak_per_s / hosts / lay.copies)
        seconds = speed_at(work, asked, device, batch).total
        return Serving(dtype, lay.gpus, lay.copies, batch, hosts, seconds, most.requests_per_s * lay.copies)

    def holds_when_slow(self, serving: Serving, device: Device) -> bool:
        """Whether the latency asked holds even if everything turns out unfavourable."""
        limit = self.workload.latency_s
        if limit is None:
            return True
        asked = self.asked(serving.dtype, serving.gpus_per_copy)
        return speed_at(self.work(serving.dtype), asked, device, serving.batch, "slow").total <= limit


def load_of(workload: Workload) -> Load | None:
    """The load of a workload that has one."""
    if workload.requests_per_day is None:
        return None
    return Load(workload.requests_per_day, workload.hours_per_day, workload.peak_factor, workload.latency_s)


def waits(engine_name: str) -> str:
    """How requests wait under an engine, in words."""
    if engine(engine_name).continuous:
        return "a request joins the running batch at the next step"
    return "a request that finds the host busy waits for the batch under way"


def _too_slow(instance: InstanceType, seconds: float, limit: float, what: str) -> Refusal:
    return Refusal(
        instance.name, "latency", f"latency: {seconds:,.1f} s for {what}, {limit:g} s asked", distance=seconds
    )
