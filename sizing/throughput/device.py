"""What of a GPU the roofline needs: memory bandwidth, peak arithmetic, and the link to its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from sizing.hardware.types import InstanceType
from sizing.throughput.tables import fp32_tflops

PCIE_BYTES_PER_S = 12e9
"""One direction of PCIe 3.0 x16 as NCCL uses it without peer-to-peer (15.75 GB/s on the wire, staged through host
memory on AWS's G types, whose page lists no peer-to-peer)."""
_NVLINK_SHARE = 0.5
"""NVLink figures count both directions."""


@dataclass(frozen=True, slots=True)
class Correction:
    """How many times as long as estimated batches took on this GPU: (batch, factor) in ascending order of batch."""

    factors: tuple[tuple[int, float], ...]

    def at(self, batch: int) -> float:
        """The factor for `batch`: between two that were measured in proportion, beyond them that of the nearest."""
        below = [f for f in self.factors if f[0] <= batch]
        above = [f for f in self.factors if f[0] >= batch]
        if not below or not above:
            return (below[-1] if below else above[0])[1]
        (low, at_low), (high, at_high) = below[-1], above[0]
        if low == high:
            return at_low
        share = (batch - low) / (high - low)
        return (1 - share) * at_low + share * at_high


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU (or the share of one that g6f types give). Bandwidth in bytes/s, arithmetic in FLOP/s, dense."""

    name: str
    bandwidth: float
    flops_16bit: float
    flops_fp32: float | None
    link_bandwidth: float = PCIE_BYTES_PER_S
    """Bytes/s in one direction to another GPU of the machine."""
    fast_link: bool = False
    """NVLink or NVSwitch."""
    correction: Correction | None = None
    """What measured batches say of estimated ones, for one model, dtype and kind of request; None: not measured."""

    def corrected(self, correction: Correction) -> Device:
        """The same device, whose estimated times are multiplied by `correction`."""
        return replace(self, correction=correction)


@cache
def device_of(instance: InstanceType) -> Device | str:
    """The `Device` of `instance`, or in words which published figure is missing for a speed estimate."""
    gpu = instance.gpu
    if gpu is None:
        return "it has no GPU"
    missing = [
        what
        for what, value in (("memory bandwidth", gpu.bandwidth), ("16-bit throughput", gpu.flops_16bit))
        if value is None
    ]
    if missing or gpu.bandwidth is None or gpu.flops_16bit is None:
        return f"no published {' and '.join(missing)} for {gpu.name}"
    share = min(1.0, instance.gpu_count)  # of the whole GPU that the fp32 table describes; `gpu` holds the share's own
    fp32 = fp32_tflops(gpu.name)
    return Device(
        name=gpu.name,
        bandwidth=gpu.bandwidth,
        flops_16bit=gpu.flops_16bit,
        flops_fp32=None if fp32 is None else fp32 * 1e12 * share,
        link_bandwidth=_link_bandwidth(instance.nvlink) if instance.fast_interconnect else PCIE_BYTES_PER_S,
        fast_link=instance.fast_interconnect,
    )


def _link_bandwidth(words: str) -> float:
    """`NVSwitch 600 GB/s` -> bytes/s in one direction; PCIe where no figure is given."""
    for word in words.split():
        try:
            return float(word) * 1e9 * _NVLINK_SHARE
        except ValueError:
            continue
    return PCIE_BYTES_PER_S
