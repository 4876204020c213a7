"""Seconds of one optimizer step: computing, launching, communicating, moving to the host and back, updating weights.

- Computing: operations / (published dense throughput × MFU); a GPU cannot be faster than its host launches kernels.
- Communication: ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054, section 7): stages 0 to 2 move 2 P elements a GPU and
  step, stage 3 moves 3 P a micro-step; `P · (N − 1) / N` elements cross each GPU's link for a gather or a reduction.
  Between machines, `(M − 1) / M` of the elements enter each machine over its network once a collective.
- Offload (Ren et al. 2021, arXiv:2101.06840; Rajbhandari et al. 2021, arXiv:2104.07857): gradients go to the host and
  updated weights come back, the host's cores update; offloaded weights are fetched in each pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sizing.dtypes import DType
from sizing.hardware.types import InstanceType
from sizing.memory.training.setup import Offload
from sizing.throughput.device import PCIE_BYTES_PER_S, Device
from sizing.throughput.ranges import Pace
from sizing.training_plan.passes import Passes, forward_passes
from sizing.training_plan.tables import Width, constants, mfu

ADAM_TRAFFIC_BYTES = 36.0
"""A mixed-precision AdamW step reads gradient, master weight and two moments and writes back three and a 16-bit copy:
4 + 4 + 8 + 12 + 2 bytes, and the gradient once more for its norm, with the cast from 16 bit."""


Unpacks = Literal["never", "backward", "every pass"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The GPUs of a run: `gpus` in each of `nodes` machines. Rates in bytes/s; `network` of one machine."""

    device: Device
    gpus: int
    nodes: int = 1
    network: float = 0.0

    @property
    def world(self) -> int:
        return self.gpus * self.nodes


def cluster_of(instance: InstanceType, device: Device, nodes: int) -> Cluster:
    """The `Cluster` that `nodes` machines of a type make. Without EFA the sustained network rate counts; one machine
    sends nothing over its network."""
    if nodes == 1:
        return Cluster(device, instance.gpus)
    gbps = (instance.network_gbps if instance.efa else None) or instance.network_baseline_gbps or instance.network_gbps
    return Cluster(device, instance.gpus, nodes, (gbps or 0.0) * 1e9 / 8)


def unpacks(base: DType) -> Unpacks:
    """When weights held as `base` are expanded."""
    if not base.quantized:
        return "never"
    return "backward" if base.name == "int8" else "every pass"


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is run, as far as speed goes. `base_bytes`: a stored base weight's bytes; `trained`: elements."""

    method: str
    architecture: str
    width: Width
    zero_stage: int
    offload: Offload
    checkpointing: bool
    micro_batch: int
    accumulation: int
    base_bytes: float
    trained: float
    unpacks: Unpacks = "never"
    """When quantized weights are expanded: bitsandbytes' 4-bit and GPTQ's for every product; LLM.int8 multiplies as it
    is and expands for the backward pass (`MatMul8bitLt` in bitsandbytes)."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one optimizer step by what they go to. `hidden` is what communication and computing overlap."""

    compute: float
    launch: float
    """What launching takes beyond computing."""
    communication: float
    host: float
    optimizer: float
    hidden: float

    @property
    def total(self) -> float:
        return self.compute + self.launch + self.communication + self.host + self.optimizer - self.hidden


def step_time(
    passes: Passes, way: Way, cluster: Cluster, input_tokens: float, output_tokens: float, pace: Pace = "likely"
) -> StepTime:
    """Seconds of an optimizer step of `way.accumulation` micro-steps of `way.micro_batch` sequences on each GPU.

    `input_tokens`, `output_tokens`: of a sequence as padded. Raises `ValueError` in fp32 on a GPU without a figure.
    """
    k, device = constants(pace), cluster.device
    peak = device.flops_16bit if way.width == "16bit" else device.flops_fp32
    if peak is None:
        raise ValueError(f"no published fp32 throughput for {device.name}")
    share = mfu(device.name, way.architecture, way.method, way.width).at(pace)
    runs = forward_passes(way.method, way.checkpointing)
    micro = way.micro_batch * passes.forward(input_tokens, output_tokens) * runs / (peak * share)
    through = runs if way.method == "full" else runs + 1.0  # a backward pass launches as much as two forward passes
    each = k.layer_seconds + (k.quantized_layer_seconds if way.unpacks != "never" else 0.0)
    launching = passes.layers * each * through / 3.0
    if way.zero_stage and way.method == "full":
        launching += passes.layers * k.zero_layer_seconds
    if way.unpacks != "never":
        moved = passes.quantizable * (way.base_bytes + 2.0)
        times = 1.0 if way.unpacks == "backward" else (3.0 if way.checkpointing else 2.0)
        micro += moved * times / (device.bandwidth * k.unpack_efficiency)
    compute = micro * way.accumulation
    launch = max(0.0, launching - micro) * way.accumulation
    sent = _communication(passes, way, cluster, pace)
    host = _host(passes, way, cluster, pace)
    optimizer = 0.0
    if way.offload == "none":
        own = way.trained / (cluster.world if way.zero_stage else 1)
        optimizer = own * ADAM_TRAFFIC_BYTES / (device.bandwidth * k.bandwidth_efficiency)
    return StepTime(compute, launch, sent, host, optimizer, k.overlap * min(compute + launch, sent))


def _communication(passes: Passes, way: Way, cluster: Cluster, pace: Pace) -> float:
    """Seconds that collectives of one optimizer step take."""
    n = cluster.world
    if n == 1:
        return 0.0
    wide = 2.0 if way.width == "16bit" else 4.0
    # Gathers and reductions of the whole: bytes in one of each, how often a step.
    if way.zero_stage == 3:
        passed = 2.0 * passes.params * way.base_bytes + way.trained * wide
        size = passed * way.accumulation
    elif way.zero_stage == 2:
        size = way.trained * wide * (way.accumulation + 1.0)
    elif way.zero_stage == 1:
        size = way.trained * wide * 2.0
    else:
        size = way.trained * 4.0 * 2.0  # autocast's gradients are fp32
    k = constants(pace)
    efficiency = k.nvlink_efficiency if cluster.device.fast_link else k.pcie_efficiency
    inside = 0.0
    if cluster.gpus > 1:
        inside = size * (cluster.gpus - 1) / cluster.gpus / (cluster.device.link_bandwidth * efficiency)
    if cluster.nodes == 1:
        return inside
    between = size * (cluster.nodes - 1) / cluster.nodes / (max(cluster.network, 1.0) * k.network_efficiency)
    return max(inside, between)


def _host(passes: Passes, way: Way, cluster: Cluster, pace: Pace) -> float:
    """Seconds that offloading adds to a step: copies over PCIe and the update by the host's cores."""
    if way.offload == "none":
        return 0.0
    k = constants(pace)
    rate = min(k.host_copy_bytes_per_s, 2 * PCIE_BYTES_PER_S)
    wide = 2.0 if way.width == "16bit" else 4.0
    own = way.trained / cluster.world
    total = own * wide * way.accumulation / rate + own * wide / rate
    total += way.trained / cluster.nodes / k.cpu_optimizer_params_per_s
    if way.offload == "all":
        times = 3.0 if way.checkpointing else 2.0
        total += passes.params / cluster.world * way.base_bytes * times * way.accumulation / rate
    return total
