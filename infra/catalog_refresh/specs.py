"""Instance types and where they are offered, from EC2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from infra.catalog_refresh.clients import asking, field

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

FAMILIES: tuple[str, ...] = ("g*", "p*", "inf*", "trn*")
"""Wildcards of DescribeInstanceTypes' `instance-type` filter that cover every accelerated family, future ones too."""
TYPES_ACTION = "ec2:DescribeInstanceTypes"
OFFERINGS_ACTION = "ec2:DescribeInstanceTypeOfferings"
MAX_FILTER_VALUES = 200
"""EC2's limit on the values of one filter."""

_ZONE_ID = re.compile(r"[a-z]+\d+-az\d+\Z")  # not Local or Wavelength Zones: use1-bos1-az1
_NETWORK = re.compile(r"(?:up to )?(?:(\d+)x )?([\d.]+) gigabit\Z", re.IGNORECASE)

Cells = dict[str, str]


def describe_types(client: EC2Client, region: str, cpu_types: Sequence[str]) -> list[dict[str, Any]]:
    """DescribeInstanceTypes for the accelerated families and `cpu_types`; accelerators of other makers left out."""
    found: list[dict[str, Any]] = []
    pages = client.get_paginator("describe_instance_types")
    with asking(TYPES_ACTION, region):
        for page in pages.paginate(Filters=[{"Name": "instance-type", "Values": [*FAMILIES, *cpu_types]}]):
            found += [dict(record) for record in page["InstanceTypes"]]
    return [record for record in found if record.get("InstanceType") in cpu_types or accelerator(record) is not None]


def accelerator(record: dict[str, Any]) -> dict[str, Any] | None:
    """The NVIDIA GPU or AWS Neuron device of a type; None for a type with neither (CPU, AMD, Habana, Qualcomm)."""
    gpus = [gpu for gpu in record.get("GpuInfo", {}).get("Gpus", []) if gpu.get("Manufacturer") == "NVIDIA"]
    devices = gpus or record.get("NeuronInfo", {}).get("NeuronDevices", [])
    return devices[0] if devices else None


def instance_row(record: dict[str, Any], region: str, as_of: str, known: Cells | None) -> Cells | None:
    """A type as a row of instances.csv; None where AWS reports an accelerator without its memory.

    `known` is the row of this type that Berth ships: AWS reports nothing of NVLink or NVSwitch, so that comes from it.
    """
    name = field(record, TYPES_ACTION, "InstanceType")
    gpu = accelerator(record)
    memory = gpu.get("MemoryInfo", {}).get("SizeInMiB") if gpu else None
    if gpu is not None and not memory:
        return None
    network = record.get("NetworkInfo", {})
    peak, baseline = _bandwidth(network)
    link = known["gpu_link"] if known else ""
    source = f"AWS EC2 DescribeInstanceTypes, {region}"
    return {
        "instance_type": name,
        "vcpus": str(field(record, TYPES_ACTION, "VCpuInfo", "DefaultVCpus")),
        "memory_gib": f"{field(record, TYPES_ACTION, 'MemoryInfo', 'SizeInMiB') / 1024:g}",
        "gpu": gpu["Name"] if gpu else "",
        "gpu_count": f"{_count(gpu):g}" if gpu else "",
        "gpu_memory_mib": str(memory or ""),
        "gpu_memory_gib_brochure": "",
        "local_nvme_gb": str(record.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)),
        "network_gbps": "" if peak is None else f"{peak:g}",
        "network_baseline_gbps": "" if baseline is None else f"{baseline:g}",
        "network_performance": network.get("NetworkPerformance", ""),
        "efa": "yes" if network.get("EfaSupported") else "no",
        "gpu_link": link,
        "usage_classes": "|".join(sorted(field(record, TYPES_ACTION, "SupportedUsageClasses"))),
        "arch": "|".join(field(record, TYPES_ACTION, "ProcessorInfo", "SupportedArchitectures")),
        "as_of": as_of,
        "source": f"{source}; GPU link: {known['source']}" if known and link else source,
    }


def _count(gpu: dict[str, Any]) -> float:
    """Devices of a type. A share of one GPU (g6f) is reported as Count 0 with its GpuPartitionSize."""
    return float(gpu.get("Count") or field(gpu, TYPES_ACTION, "GpuPartitionSize"))


def _bandwidth(network: dict[str, Any]) -> tuple[float | None, float | None]:
    """Gbit/s at peak and sustained: NetworkPerformance's words first, since cards together may exceed the instance."""
    cards = network.get("NetworkCards", [])
    peak = sum(card.get("PeakBandwidthInGbps") or 0 for card in cards) or None
    baseline = sum(card.get("BaselineBandwidthInGbps") or 0 for card in cards) or None
    if words := _NETWORK.match(network.get("NetworkPerformance", "")):
        peak = int(words[1] or 1) * float(words[2])
    return peak, min(baseline, peak) if baseline and peak else baseline


def offering_rows(client: EC2Client, region: str, types: Iterable[str], as_of: str) -> list[Cells]:
    """DescribeInstanceTypeOfferings as rows of offerings.csv: one for every type asked, 0 zones where not offered."""
    names = sorted(types)
    zones: dict[str, set[str]] = {name: set() for name in names}
    pages = client.get_paginator("describe_instance_type_offerings")
    with asking(OFFERINGS_ACTION, region):
        for start in range(0, len(names), MAX_FILTER_VALUES):
            asked = names[start : start + MAX_FILTER_VALUES]
            filters = [{"Name": "instance-type", "Values": asked}]
            for page in pages.paginate(LocationType="availability-zone-id", Filters=filters):  # type: ignore[arg-type]
                for record in page["InstanceTypeOfferings"]:
                    if _ZONE_ID.match(record["Location"]) and record["InstanceType"] in zones:
                        zones[record["InstanceType"]].add(record["Location"])
    return [
        {
            "instance_type": name,
            "region": region,
            "az_count": str(len(zones[name])),
            "az_ids": "|".join(sorted(zones[name])),
            "as_of": as_of,
            "source": "AWS EC2 DescribeInstanceTypeOfferings, availability-zone-id",
        }
        for name in names
    ]
