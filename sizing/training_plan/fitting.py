"""The fastest way to run a method on a machine that its memory allows, or what was missing.

On one machine (or so many of a type) the fastest run is the cheapest, so settings are tried in the order of their time
and the first that fits is the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizing.dtypes import DType
from sizing.errors import UserError
from sizing.hardware.types import Gpu, InstanceType
from sizing.memory.loading import usable_ram_bytes
from sizing.memory.terms import Breakdown
from sizing.memory.training.setup import Method, Optimizer, Precision, TrainingSetup
from sizing.memory.training.trained import trained_numel
from sizing.memory.training.weights import base_dtype
from sizing.models.facts import ModelFacts
from sizing.start_up import StartUp, start_up
from sizing.throughput.device import Device
from sizing.training_plan.memories import FREE_SHARE, Memories, Situation, usable
from sizing.training_plan.passes import passes_of
from sizing.training_plan.plan import Refused
from sizing.training_plan.speed import Cluster, Way, cluster_of, step_time, unpacks
from sizing.training_plan.strategies import Strategy, micro_batches, strategies
from sizing.training_plan.tables import Width
from sizing.training_plan.task import TrainingTask, TrainingWishes
from sizing.units import gib


@dataclass(frozen=True, slots=True)
class Option:
    """A way to run a step and its seconds, likely, for the whole run."""

    seconds: float
    at: Situation
    way: Way
    global_batch: int


def prompt_tokens(method: Method) -> int:
    """Virtual tokens in front of every input (`TrainingSetup.prompt_tokens`)."""
    return TrainingSetup().prompt_tokens if method == "prompt" else 0


class Fitter:
    """Options for one model, task and wishes on one machine after another; what machines share is computed once."""

    def __init__(self, model: ModelFacts, task: TrainingTask, wishes: TrainingWishes) -> None:
        self.model, self.task, self.wishes = model, task, wishes
        self.memories = Memories(model, task, wishes)
        self.passes = passes_of(model)
        self._shelves: dict[tuple[object, ...], tuple[Option, ...]] = {}
        self._starts: dict[str, StartUp] = {}
        self._trained: dict[Method, float] = {}
        self._padded: dict[int, tuple[float, float]] = {}

    def start_up(self, instance: InstanceType) -> StartUp:
        """From the launch of a machine to the model in memory, the same for every method."""
        if instance.name not in self._starts:
            self._starts[instance.name] = start_up(self.model, instance)
        return self._starts[instance.name]

    def trained(self, method: Method) -> float:
        """Trained elements under a method."""
        if method not in self._trained:
            setup = self.memories.setup(Situation(method, "bf16", "adamw", Strategy(0, "none", False), 1, 1), 1, 1)
            self._trained[method] = float(trained_numel(self.model, setup))
        return self._trained[method]

    def fit(
        self, instance: InstanceType, gpu: Gpu, device: Device, method: Method, precision: Precision, nodes: int
    ) -> Option | Refused:
        """The fastest option of all optimizers that fits `nodes` machines, or the nearest miss."""
        found: list[Option] = []
        missed: list[Refused] = []
        for optimizer in self.wishes.optimizers:
            result = self._fit(instance, gpu, device, method, precision, optimizer, nodes)
            if isinstance(result, Option):
                found.append(result)
            else:
                missed.append(result)
        if found:
            return min(found, key=lambda o: o.seconds)
        return min(missed, key=lambda r: (r.kind != "system RAM", r.distance))

    def _fit(
        self,
        instance: InstanceType,
        gpu: Gpu,
        device: Device,
        method: Method,
        precision: Precision,
        optimizer: Optimizer,
        nodes: int,
    ) -> Option | Refused:
        cluster = cluster_of(instance, device, nodes)
        shelf = self._shelf(cluster, method, precision, optimizer)
        room, ram = usable(gpu.memory_bytes), usable_ram_bytes(instance.memory_bytes)
        short_ram: tuple[int, Option] | None = None
        for option in shelf:
            if not self.memories.fits(option.at, option.way.micro_batch, option.way.accumulation, room):
                continue
            host = self.memories.host(option.at).total_bytes
            if host <= ram:
                return option
            if short_ram is None or host - ram < short_ram[0]:
                short_ram = host - ram, option
        if short_ram is not None:
            return self._ram_refused(instance, ram, *short_ram)
        return self._memory_refused(instance, gpu, shelf, room)

    def _device(self, option: Option) -> Breakdown:
        return self.memories.device(option.at, option.way.micro_batch, option.way.accumulation)

    # What machines with the same GPUs share: the options, fastest first.
    def _shelf(
        self, cluster: Cluster, method: Method, precision: Precision, optimizer: Optimizer
    ) -> tuple[Option, ...]:
        key = (cluster, method, precision, optimizer)
        if key not in self._shelves:
            self._shelves[key] = tuple(self._options(cluster, method, precision, optimizer))
        return self._shelves[key]

    def _options(self, cluster: Cluster, method: Method, precision: Precision, optimizer: Optimizer) -> list[Option]:
        world = cluster.world
        per_gpu = -(-self.task.global_batch // world)
        width: Width = "fp32" if precision == "fp32" else "16bit"
        if width == "fp32" and cluster.device.flops_fp32 is None:
            return []
        stored = self._stored(method, precision, optimizer)
        found = [
            self._option(cluster, method, precision, optimizer, strategy, micro, stored)
            for strategy in strategies(method, precision, optimizer, world)
            # ZeRO-3 cannot shard LLM.int8's weights, which carry their row scales beside them
            if not (strategy.zero_stage == 3 and stored is not None and stored.name == "int8")
            for micro in micro_batches(per_gpu)
        ]
        # Equal times go to the larger micro-batch, which wastes less between kernels.
        return sorted(found, key=lambda o: (o.seconds, -o.way.micro_batch))

    def _stored(self, method: Method, precision: Precision, optimizer: Optimizer) -> DType | None:
        """How frozen weights are held; None where none are."""
        if method == "full":
            return None
        plain = Situation(method, precision, optimizer, Strategy(0, "none", checkpointing=False), 1, 1)
        return base_dtype(self.memories.setup(plain, 1, 1))

    def option(
        self,
        cluster: Cluster,
        method: Method,
        precision: Precision,
        optimizer: Optimizer,
        strategy: Strategy,
        micro_batch: int,
    ) -> Option:
        """The option of these very settings, whether or not it fits. Raises `UserError` for a micro-batch that does not
        make up the batch, and for a speed that is not known."""
        per_gpu = -(-self.task.global_batch // cluster.world)
        if per_gpu % micro_batch:
            raise UserError(
                f"a micro-batch of {micro_batch} does not make up {self.task.global_batch} examples on {cluster.world} "
                f"GPUs, {per_gpu} each; take a divisor of {per_gpu}"
            )
        if precision == "fp32" and cluster.device.flops_fp32 is None:
            raise UserError(f"speed unknown: no published fp32 throughput for {cluster.device.name}")
        stored = self._stored(method, precision, optimizer)
        return self._option(cluster, method, precision, optimizer, strategy, micro_batch, stored)

    def _option(
        self,
        cluster: Cluster,
        method: Method,
        precision: Precision,
        optimizer: Optimizer,
        strategy: Strategy,
        micro: int,
        stored: DType | None,
    ) -> Option:
        per_gpu = -(-self.task.global_batch // cluster.world)
        total = per_gpu * cluster.world
        width: Width = "fp32" if precision == "fp32" else "16bit"
        way = Way(
            method=method,
            architecture=self.model.architecture,
            width=width,
            zero_stage=strategy.zero_stage,
            offload=strategy.offload,
            checkpointing=strategy.checkpointing,
            micro_batch=micro,
            accumulation=per_gpu // micro,
            base_bytes=stored.weight_bytes if stored else (4.0 if width == "fp32" else 2.0),
            trained=self.trained(method),
            unpacks=unpacks(stored) if stored else "never",
        )
        tokens, target = self.tokens(method, micro)
        seconds = self.task.steps(total) * step_time(self.passes, way, cluster, tokens, target).total
        at = Situation(method, precision, optimizer, strategy, cluster.gpus, cluster.nodes)
        return Option(seconds, at, way, total)

    def tokens(self, method: Method, micro_batch: int) -> tuple[float, float]:
        """Input and target tokens of a sequence as padded to its micro-batch's longest, a soft prompt's included."""
        if micro_batch not in self._padded:
            self._padded[micro_batch] = self.task.lengths.padded(micro_batch)
        tokens, target = self._padded[micro_batch]
        return tokens + prompt_tokens(method), target

    def _memory_refused(self, instance: InstanceType, gpu: Gpu, shelf: tuple[Option, ...], room: int) -> Refused:
        best: tuple[int, Option] | None = None
        sharded = any(o.at.strategy.zero_stage == 3 for o in shelf)
        for option in shelf:
            # With recomputation and micro-batch 1; sharded weights where there are any: nothing takes less.
            thrifty = option.at.strategy.checkpointing and option.way.micro_batch == 1
            if thrifty and (option.at.strategy.zero_stage == 3 or not sharded):
                size = self._device(option).total_bytes
                if best is None or size < best[0]:
                    best = size, option
        if best is None:
            return Refused(instance.name, "speed unknown", f"no published fp32 throughput for {gpu.name}")
        size, option = best
        largest = self._device(option).largest()
        reason = (
            f"memory of each {gpu.name}: {option.at.method} takes {gib(size)} at least ({option.at.strategy.label}, "
            f"micro-batch 1), {gib(room)} usable of {gib(gpu.memory_bytes)} with {FREE_SHARE:.0%} left free, "
            f"{gib(size - room)} short (largest term: {largest.name} {gib(largest.bytes)})"
        )
        return Refused(instance.name, "GPU memory", reason, size - room, float(size - room))

    def _ram_refused(self, instance: InstanceType, ram: int, short: int, option: Option) -> Refused:
        host = self.memories.host(option.at)
        largest = host.largest()
        reason = (
            f"system RAM: {option.at.method} ({option.at.strategy.label}) takes {gib(host.total_bytes)} of a machine, "
            f"{gib(ram)} usable of {gib(instance.memory_bytes)}, {gib(short)} short "
            f"(largest term: {largest.name} {gib(largest.bytes)})"
        )
        return Refused(instance.name, "system RAM", reason, short, float(short))
