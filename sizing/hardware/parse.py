"""Rows of the catalogue's files as the values that sizing passes around."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

from sizing.hardware.tables import GROUPS, PRICE_GROUP
from sizing.hardware.types import CapacityBlock, Gpu, InstanceType, Offering, Pay, Price
from sizing.tables import Row
from sizing.units import GB, GIB, MIB

SAME_GPU = 0.1
"""How far apart two figures for the memory of one GPU may lie; variants of a GPU (A100 40 and 80 GB) lie farther."""

_PAID_BY: dict[Pay, tuple[str, ...]] = {
    "on-demand": ("on_demand_usd_h",),
    "reserved-1y": ("reserved_1y_no_upfront_usd_h",),
    "reserved-3y": ("reserved_3y_no_upfront_usd_h",),
    "savings-1y": ("savings_ec2_1y_no_upfront_usd_h", "savings_ec2_1y_page_usd_h"),
    "savings-3y": ("savings_ec2_3y_no_upfront_usd_h", "savings_ec2_3y_page_usd_h"),
    "spot": ("spot_usd_h",),
}
"""The columns that price a way of paying, the first that is filled."""
_PAGE_TERMS = "effective rate of an undated copy of AWS's product page, equal to a reservation with part paid upfront"
_ANY_TERMS = "one list rate for all SageMaker components, some rounded to cents"
_PLAIN = frozenset(columns[0] for columns in _PAID_BY.values()) | {
    "spot_min_usd_h",
    "spot_max_usd_h",
    "sagemaker_hosting_usd_h",
    "sagemaker_training_usd_h",
    "sagemaker_any_usd_h",
}


def accelerator(row: Row) -> Gpu:
    vendor = row.text("vendor")
    if vendor not in ("nvidia", "neuron"):
        raise row.error("vendor", f"'{vendor}' is neither nvidia nor neuron")
    smi, api = row.integer("memory_mib_nvidia_smi"), row.integer("memory_mib_api")
    memory = smi or api
    if not memory:
        raise row.error("memory_mib_api", "neither nvidia-smi's nor the API's memory is known")
    bandwidth, tflops = row.number("bandwidth_gb_s"), row.number("tflops_16bit_dense")
    return Gpu(
        name=row.text("name"),
        memory_bytes=memory * MIB,
        memory_source="nvidia-smi" if smi else "api",
        bandwidth=None if bandwidth is None else bandwidth * GB,
        flops_16bit=None if tflops is None else tflops * 1e12,
        compute_capability=row.number("compute_capability"),
        bf16=row.flag("bf16"),
        vendor=cast(Literal["nvidia", "neuron"], vendor),
        api_memory_bytes=None if api is None else api * MIB,
        source=row.text("source"),
        as_of=row.date("as_of"),
    )


def _device(row: Row, share: float, accelerators: list[Gpu]) -> Gpu:
    """The accelerator of an instance: what AWS reports of it, completed from the accelerators table.

    A part of a GPU (g6f) has its partition's memory and that share of the whole's bandwidth and throughput.
    A GPU that the table lacks keeps its name and memory, the rest unknown; one that it has with quite another
    memory size keeps what a GPU's name settles (compute capability, bf16).
    """
    name = row.text("gpu")
    api, brochure = row.integer("gpu_memory_mib"), row.number("gpu_memory_gib_brochure")
    known = [gpu for gpu in accelerators if gpu.name == name]
    vendor: Literal["nvidia", "neuron"] = known[0].vendor if known else _vendor(row)
    if api is None and brochure is None:
        raise row.error("gpu_memory_mib", f"the memory of {name} is not known; without it nothing can be sized")
    reported = round((brochure or 0) * GIB) if api is None else api * MIB
    if share == 1:
        for gpu in known:
            # The same GPU though AWS has reported it a little differently from time to time (A10G: 24,576, 22,888).
            if gpu.api_memory_bytes and abs(reported / gpu.api_memory_bytes - 1) <= SAME_GPU:
                return gpu if gpu.api_memory_bytes == reported else replace(gpu, api_memory_bytes=reported)
    whole = known[0] if share < 1 and known else None
    return Gpu(
        name=name,
        memory_bytes=reported,
        memory_source="brochure" if api is None else "api",
        bandwidth=whole.bandwidth * share if whole and whole.bandwidth else None,
        flops_16bit=whole.flops_16bit * share if whole and whole.flops_16bit else None,
        compute_capability=known[0].compute_capability if known else None,
        bf16=known[0].bf16 if known else None,
        vendor=vendor,
        api_memory_bytes=None if api is None else reported,
        source=known[0].source if known else row.text("source"),
        as_of=known[0].as_of if known else row.date("as_of"),
    )


def _vendor(row: Row) -> Literal["nvidia", "neuron"]:
    """AWS's own accelerators come in families inf* and trn*; every other that the catalogue keeps is NVIDIA's."""
    return "neuron" if row.text("instance_type").startswith(("inf", "trn")) else "nvidia"


def instance(row: Row, accelerators: list[Gpu]) -> InstanceType:
    name = row.text("instance_type")
    family, dot, size = name.partition(".")
    if not (family and dot and size):
        raise row.error("instance_type", f"'{name}' is not of the form family.size")
    gpu, gpu_count = None, 0.0
    if row.cells["gpu"]:
        gpu_count = row.positive("gpu_count")
        gpu = _device(row, min(gpu_count, 1.0), accelerators)
    vcpus = row.integer("vcpus")
    if not vcpus:
        raise row.error("vcpus", "must be 1 or more")
    return InstanceType(
        name=name,
        family=family,
        vcpus=vcpus,
        memory_bytes=round(row.positive("memory_gib") * GIB),
        gpu=gpu,
        gpu_count=gpu_count,
        local_nvme_gb=row.integer("local_nvme_gb") or 0,
        network_gbps=row.number("network_gbps"),
        efa=bool(row.flag("efa")),
        nvlink=row.cells["gpu_link"],
        arch=row.text("arch"),
        usage_classes=tuple(row.text("usage_classes").split("|")),
        source=row.text("source"),
        as_of=row.date("as_of"),
        network_baseline_gbps=row.number("network_baseline_gbps"),
    )


def offering(row: Row) -> Offering:
    az_ids = tuple(row.cells["az_ids"].split("|")) if row.cells["az_ids"] else ()
    az_count = row.integer("az_count")
    if az_ids and az_count != len(az_ids):
        raise row.error("az_count", f"says {row.cells['az_count']}, az_ids names {len(az_ids)}")
    return Offering(
        row.text("instance_type"), row.text("region"), az_count, az_ids, row.date("as_of"), row.text("source")
    )


def price(row: Row, offerings: dict[tuple[str, str], Offering]) -> Price:
    cells = row.cells
    rates = {column: rate for column in PRICE_GROUP if cells[column] and (rate := row.rate(column)) is not None}
    as_of = {group: row.date(f"{group}_as_of") for group in GROUPS if cells[f"{group}_as_of"]}
    for column in rates:
        if PRICE_GROUP[column] not in as_of:
            raise row.error(f"{PRICE_GROUP[column]}_as_of", f"is empty, but {column} has a rate")
    usd_per_hour: dict[Pay, float] = {}
    terms: dict[str, str] = {}
    for pay, columns in _PAID_BY.items():
        for column in columns:
            if column in rates:
                usd_per_hour[pay] = rates[column]
                if column.endswith("_page_usd_h"):
                    terms[pay] = _PAGE_TERMS
                break
    for use in ("hosting", "training"):
        if f"sagemaker_{use}_usd_h" not in rates and "sagemaker_any_usd_h" in rates:
            terms[f"sagemaker_{use}"] = _ANY_TERMS
    name, region = row.text("instance_type"), row.text("region")
    offering = offerings.get((name, region))
    return Price(
        instance_type=name,
        region=region,
        usd_per_hour=usd_per_hour,
        effective={c.removesuffix("_usd_h"): rate for c, rate in rates.items() if c not in _PLAIN},
        spot_min=rates.get("spot_min_usd_h"),
        spot_max=rates.get("spot_max_usd_h"),
        spot_interruption=cells["spot_interruption"],
        sagemaker_hosting=rates.get("sagemaker_hosting_usd_h", rates.get("sagemaker_any_usd_h")),
        sagemaker_training=rates.get("sagemaker_training_usd_h", rates.get("sagemaker_any_usd_h")),
        offered=None if offering is None or offering.az_count is None else offering.az_count > 0,
        as_of=as_of,
        source=row.text("source"),
        terms=terms,
    )


def capacity_block(row: Row, instances: dict[str, InstanceType]) -> CapacityBlock:
    name = row.text("instance_type")
    if name not in instances:
        raise row.error("instance_type", f"{name} is not in instances.csv")
    return CapacityBlock(
        instance_type=name,
        region=row.cells["region"],
        usd_per_hour=row.positive("usd_h"),
        usd_per_accelerator_hour=row.rate("accelerator_usd_h"),
        as_of=row.date("as_of"),
        note=row.cells["note"],
        source=row.text("source"),
    )
