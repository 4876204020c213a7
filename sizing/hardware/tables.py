"""The catalogue's CSV files: their columns, and their rows by key."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from sizing import tables
from sizing.tables import Row

GROUPS: tuple[str, ...] = ("on_demand", "reserved", "savings_plan", "spot", "spot_advisor", "sagemaker")
"""Column groups of prices.csv; each is dated by its own `<group>_as_of` column."""

PRICE_GROUP: dict[str, str] = {
    "on_demand_usd_h": "on_demand",
    "reserved_1y_no_upfront_usd_h": "reserved",
    "reserved_1y_partial_upfront_usd_h": "reserved",
    "reserved_1y_all_upfront_usd_h": "reserved",
    "reserved_3y_no_upfront_usd_h": "reserved",
    "reserved_3y_partial_upfront_usd_h": "reserved",
    "reserved_3y_all_upfront_usd_h": "reserved",
    "convertible_1y_no_upfront_usd_h": "reserved",
    "convertible_3y_no_upfront_usd_h": "reserved",
    "savings_ec2_1y_no_upfront_usd_h": "savings_plan",
    "savings_ec2_3y_no_upfront_usd_h": "savings_plan",
    "savings_compute_1y_no_upfront_usd_h": "savings_plan",
    "savings_compute_3y_no_upfront_usd_h": "savings_plan",
    "savings_ec2_1y_page_usd_h": "savings_plan",
    "savings_ec2_3y_page_usd_h": "savings_plan",
    "spot_usd_h": "spot",
    "spot_min_usd_h": "spot",
    "spot_max_usd_h": "spot",
    "sagemaker_hosting_usd_h": "sagemaker",
    "sagemaker_training_usd_h": "sagemaker",
    "sagemaker_any_usd_h": "sagemaker",
}
"""Rate columns and their group. Upfront rates are effective: (upfront / hours of the term) + hourly."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "accelerators.csv": (
        "name",
        "vendor",
        "memory_mib_api",
        "memory_mib_nvidia_smi",
        "compute_capability",
        "bf16",
        "bandwidth_gb_s",
        "tflops_16bit_dense",
        "as_of",
        "source",
    ),
    "instances.csv": (
        "instance_type",
        "vcpus",
        "memory_gib",
        "gpu",
        "gpu_count",
        "gpu_memory_mib",
        "gpu_memory_gib_brochure",
        "local_nvme_gb",
        "network_gbps",
        "network_baseline_gbps",
        "network_performance",
        "efa",
        "gpu_link",
        "usage_classes",
        "arch",
        "as_of",
        "source",
    ),
    "prices.csv": (
        "instance_type",
        "region",
        *PRICE_GROUP,
        "spot_advisor_savings_pct",
        "spot_interruption",
        *(f"{group}_as_of" for group in GROUPS),
        "source",
    ),
    "offerings.csv": ("instance_type", "region", "az_count", "az_ids", "as_of", "source"),
    "capacity_blocks.csv": ("instance_type", "region", "usd_h", "accelerator_usd_h", "as_of", "note", "source"),
}
"""The columns of every file, in order. A file with other columns is refused."""

K = TypeVar("K")
V = TypeVar("V")


def read_rows(path: Path, hint: str = "", without_regions: Collection[str] = ()) -> list[Row]:
    """The rows of one of the catalogue's files, its columns checked; those of `without_regions` left out.

    Raises `UserError` on anything damaged: one line that names the place and ends with `hint`, what to do about it.
    """
    return tables.read_rows(path, COLUMNS[path.name], hint, without_regions)


def keyed(rows: list[Row], key: Callable[[Row], K], value: Callable[[Row], V], column: str) -> dict[K, V]:
    """Rows as a dict; a key that comes twice is refused at its second line, `column`."""
    found: dict[K, V] = {}
    for row in rows:
        k = key(row)
        if k in found:
            name = " in ".join(str(part) for part in k) if isinstance(k, tuple) else k
            raise row.error(column, f"{name} comes a second time")
        found[k] = value(row)
    return found
