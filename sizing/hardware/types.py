"""What a machine is and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Pay = Literal["on-demand", "reserved-1y", "reserved-3y", "savings-1y", "savings-3y", "spot"]
"""A way of paying. Reserved and savings rates are "no upfront" unless `Price.terms` says otherwise."""
PAYS: tuple[Pay, ...] = ("on-demand", "reserved-1y", "reserved-3y", "savings-1y", "savings-3y", "spot")


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator. Sizes in bytes, bandwidth in bytes/s, throughput in FLOP/s (dense); None where unpublished."""

    name: str
    memory_bytes: int
    """What the driver leaves to programs (`nvidia-smi` total, T4: 15,360 MiB), not the brochure's figure."""
    memory_source: Literal["nvidia-smi", "api", "brochure"]
    bandwidth: float | None
    flops_16bit: float | None
    compute_capability: float | None
    """CUDA compute capability; None for AWS Neuron devices."""
    bf16: bool | None
    """None: not known (a GPU that the accelerators table lacks); treat as no."""
    vendor: Literal["nvidia", "neuron"] = "nvidia"
    api_memory_bytes: int | None = None
    """What EC2's DescribeInstanceTypes reports; it differs from `nvidia-smi` (T4: 16,384 MiB)."""
    source: str = ""
    as_of: str = ""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """An EC2 instance type. `memory_bytes` is system RAM; `gpu_count` is a fraction for a shared GPU (g6f)."""

    name: str
    family: str
    vcpus: int
    memory_bytes: int
    gpu: Gpu | None
    gpu_count: float
    local_nvme_gb: int
    network_gbps: float | None
    efa: bool
    nvlink: str
    """How its GPUs are linked, in words; `fast_interconnect` says whether it is NVLink or NVSwitch."""
    arch: str
    usage_classes: tuple[str, ...]
    source: str
    as_of: str
    network_baseline_gbps: float | None = None
    """What is sustained where `network_gbps` is a burst ("Up to 25 Gigabit")."""

    @property
    def gpus(self) -> int:
        """Devices that a program sees (a fraction of a GPU is one device)."""
        return 0 if self.gpu is None else max(1, round(self.gpu_count))

    @property
    def fast_interconnect(self) -> bool:
        return "NVLink" in self.nvlink or "NVSwitch" in self.nvlink


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars an hour for one type in one region, Linux, shared tenancy. None is unpriced, never 0."""

    instance_type: str
    region: str
    usd_per_hour: dict[Pay, float]
    """Only the ways of paying that have a price."""
    effective: dict[str, float]
    """Effective rates with upfront payment and convertible terms, by their column name."""
    spot_min: float | None
    spot_max: float | None
    spot_interruption: str
    """AWS spot advisor's band (`<5%` … `>20%`), empty where unknown."""
    sagemaker_hosting: float | None
    sagemaker_training: float | None
    offered: bool | None
    """False: priced but offered in no zone. None: not known."""
    as_of: dict[str, str]
    """Date by column group: on_demand, reserved, savings_plan, spot, sagemaker."""
    source: str
    terms: dict[str, str] = field(default_factory=dict)
    """What a rate takes for granted, by way of paying or `sagemaker_hosting`, `sagemaker_training`; in words."""


@dataclass(frozen=True, slots=True)
class Offering:
    """In how many zones of a region a type is offered (0: none; None: not known). Offered does not mean in stock."""

    instance_type: str
    region: str
    az_count: int | None
    az_ids: tuple[str, ...]
    as_of: str
    source: str


@dataclass(frozen=True, slots=True)
class CapacityBlock:
    """A rate of EC2 Capacity Blocks for ML: paid up front, for a fixed time, in US dollars an hour."""

    instance_type: str
    region: str
    """Empty where the source says "most regions"."""
    usd_per_hour: float
    usd_per_accelerator_hour: float | None
    as_of: str
    note: str
    source: str


@dataclass(frozen=True, slots=True)
class Offer:
    """One instance type in one region under one way of paying."""

    instance: InstanceType
    region: str
    pay: Pay
    usd_per_hour: float
    price: Price

    @property
    def terms(self) -> str:
        """What the rate takes for granted, in words; empty for the plain case."""
        return self.price.terms.get(self.pay, "")
