"""Whether a model fits a machine: the GPU's memory at the batch asked, the host's while it loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sizing.errors import UserError
from sizing.hardware.types import Gpu, InstanceType
from sizing.measured.read import ENGINE
from sizing.memory.inference import check_sharding, estimate_inference
from sizing.memory.loading import host_terms, usable_ram_bytes
from sizing.memory.setup import InferenceSetup
from sizing.memory.terms import Breakdown, MemoryEstimate
from sizing.models.facts import ModelFacts
from sizing.throughput.capacity import BATCHES
from sizing.units import gib
from sizing.workload import Workload

if TYPE_CHECKING:
    from sizing.measured.calibration import Calibration

LEAN_LOADING = "mmap"
LARGEST_BATCH = 4096
"""Where the search for the largest batch ends."""


@dataclass(frozen=True, slots=True)
class Short:
    """What did not fit: where, by how many bytes, and in words."""

    bytes: int
    reason: str


class Memories:
    """Estimates of one model for one workload, made once for each dtype, split and batch.

    With a `calibration` an estimate for a GPU has what was measured in its place.
    """

    def __init__(
        self, model: ModelFacts, workload: Workload, loading: str, engine: str, calibration: Calibration | None = None
    ) -> None:
        self._model, self._workload, self._loading, self._engine = model, workload, loading, engine
        self._calibration = calibration
        self._known: dict[tuple[str, int, int, Gpu | None], MemoryEstimate] = {}
        self._hosts: dict[tuple[str, int, str], Breakdown] = {}

    def setup(self, dtype: str, gpus: int, batch: int) -> InferenceSetup:
        return InferenceSetup(
            dtype=dtype,
            batch=batch,
            input_tokens=self._workload.input_tokens,
            output_tokens=self._workload.output_tokens,
            tensor_parallel=gpus,
            engine=self._engine,
            loading=self._loading,
        )

    def estimate(self, dtype: str, gpus: int, batch: int, gpu: Gpu | None = None) -> MemoryEstimate:
        """Of one copy of the model over `gpus` GPUs; corrected by what was measured where the `gpu` is said."""
        key = (dtype, gpus, batch, None)
        if key not in self._known:
            self._known[key] = estimate_inference(self._model, self.setup(dtype, gpus, batch))
        if gpu is None or self._calibration is None:
            return self._known[key]
        corrected = (dtype, gpus, batch, gpu)
        if corrected not in self._known:
            setup = self.setup(dtype, gpus, batch)
            self._known[corrected] = self._calibration.memory(self._known[key], gpu, setup)
        return self._known[corrected]

    def failed_batch(self, dtype: str, gpus: int, gpu: Gpu) -> int | None:
        """The smallest batch that was seen to run out of this GPU's memory; None where none was."""
        if self._calibration is None or self._engine != ENGINE or gpus != 1:
            return None
        lengths = (self._workload.input_tokens, self._workload.output_tokens)
        return self._calibration.failed_batch(gpu, dtype, lengths)

    def fits(self, dtype: str, gpus: int, batch: int, gpu: Gpu) -> bool:
        """Whether a batch fits: by its likely total as the driver sees it, and none so large was seen to fail."""
        failed = self.failed_batch(dtype, gpus, gpu)
        if failed is not None and batch >= failed:
            return False
        return self.estimate(dtype, gpus, batch, gpu).device.total_bytes <= gpu.memory_bytes

    def host(self, dtype: str, processes: int, loading: str = "") -> Breakdown:
        """System RAM of the machine while `processes` load the model side by side."""
        key = (dtype, processes, loading or self._loading)
        if key not in self._hosts:
            self._hosts[key] = Breakdown(host_terms(self._model, dtype, key[2], ranks=processes))
        return self._hosts[key]

    def can_split(self, gpus: int) -> bool:
        try:
            check_sharding(self._model, gpus)
        except UserError:
            return False
        return True

    def largest_listed_batch(self, dtype: str, gpus: int, gpu: Gpu) -> int:
        """The largest of `BATCHES` that fits, 0 where none does."""
        fitting = 0
        low, high = 0, len(BATCHES)
        while low < high:
            middle = (low + high) // 2
            if self.fits(dtype, gpus, BATCHES[middle], gpu):
                fitting, low = BATCHES[middle], middle + 1
            else:
                high = middle
        return fitting

    def largest_batch(self, dtype: str, gpus: int, gpu: Gpu, limit: int = LARGEST_BATCH) -> int:
        """The largest batch that fits, as `sizing.memory.inference.largest_batch` finds it, in fewer estimates.

        Memory grows almost evenly with the batch, so a straight line through two totals lands next to the answer.
        """

        def total(batch: int) -> int:
            return self.estimate(dtype, gpus, batch, gpu).device.total_bytes

        room = gpu.memory_bytes
        failed = self.failed_batch(dtype, gpus, gpu)
        limit = limit if failed is None else min(limit, failed - 1)
        if limit < 1:
            return 0
        if total(1) > room:
            return 0
        if total(limit) <= room:
            return limit
        low, high = 1, limit
        while high - low > 1:
            slope = (total(high) - total(low)) / (high - low)
            guess = low + int((room - total(low)) / slope) if slope > 0 else high
            guess = min(max(guess, low + 1), high - 1)
            if total(guess) <= room:
                low = guess
                if total(guess + 1) > room:
                    return guess
            else:
                high = guess
        return low


def device_short(memory: Breakdown, gpu: Gpu, gpus: int, dtype: str, batch: int) -> Short | None:
    """What is missing on each GPU, by the likely total as the driver sees it; None where it fits."""
    short = memory.total_bytes - gpu.memory_bytes
    if short <= 0:
        return None
    largest = memory.largest()
    where = f"{gpu.name} GPU memory" if gpus == 1 else f"memory of each of {gpus} {gpu.name}"
    return Short(
        short,
        f"{where}: {gib(memory.total_bytes)} needed in {dtype} at batch {batch}, {gib(gpu.memory_bytes)} there, "
        f"{gib(short)} short (largest term: {largest.name} {gib(largest.bytes)})",
    )


def failed_short(failed: int | None, gpu: Gpu, dtype: str, batch: int) -> str:
    """Why a batch that no estimate refuses is refused by what was seen; empty where it is not."""
    if failed is None or batch < failed:
        return ""
    return f"{gpu.name} GPU memory: a batch of {failed} in {dtype} ran out of it when it was measured"


def host_short(memory: Breakdown, instance: InstanceType, processes: int, loading: str) -> Short | None:
    """What is missing of the system RAM that the operating system sees; each process loads the whole model."""
    usable = usable_ram_bytes(instance.memory_bytes)
    short = memory.total_bytes - usable
    if short <= 0:
        return None
    largest = memory.largest()
    by = f" by {processes} processes" if processes > 1 else ""
    return Short(
        short,
        f"system RAM: {gib(memory.total_bytes)} needed{by} while loading ({loading}), {gib(usable)} usable of "
        f"{gib(instance.memory_bytes)}, {gib(short)} short (largest term: {largest.name} {gib(largest.bytes)})",
    )
