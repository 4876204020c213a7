"""The catalogue for a person to read, and as JSON documents: what is in force, types, prices, a refresh's outcome."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

from berth.output import table
from sizing.errors import unknown
from sizing.hardware.ages import STALE_DAYS, ages
from sizing.hardware.types import PAYS
from sizing.units import GB, GIB

if TYPE_CHECKING:
    from rich.console import Console

    from infra.catalog_refresh.refresh import Summary
    from sizing.hardware.load import Hardware
    from sizing.hardware.types import InstanceType

UNKNOWN = "–"
_MEMORY_MARK = {"nvidia-smi": "", "api": "*", "brochure": "**"}
_TERM_OF = {"savings-1y": "savings", "sagemaker_hosting": "SageMaker"}
_YES_NO = {True: "yes", False: "no", None: UNKNOWN}
_GROUP_NAMES = {
    "instance_types": "instance types",
    "accelerators": "accelerators",
    "offerings": "where offered",
    "on_demand": "on-demand prices",
    "reserved": "reserved prices",
    "savings_plan": "savings plans",
    "spot": "spot prices",
    "spot_advisor": "spot interruptions",
    "sagemaker": "SageMaker prices",
    "capacity_blocks": "capacity blocks",
}
_REFRESHED = ("offerings", "on_demand", "reserved", "savings_plan", "spot", "sagemaker")
"""Groups that age and that a refresh brings up to date."""
_CHANGES_SHOWN = 12


def of_family(hardware: Hardware, family: str | None) -> list[InstanceType]:
    """The types of a family, smallest first, or all; `UserError` for a family that is not in the catalogue."""
    instances = sorted(hardware.instances.values(), key=lambda i: (i.family, i.gpus, i.memory_bytes, i.vcpus, i.name))
    if family is None:
        return instances
    chosen = [i for i in instances if i.family == family.strip().lower()]
    if not chosen:
        families = {i.family for i in instances}
        raise unknown("instance family", family, families, f"families: {', '.join(sorted(families))}")
    return chosen


def in_force_document(
    hardware: Hardware, today: date, region: str | None, instances: list[InstanceType]
) -> dict[str, Any]:
    """Origin, age by group, coverage by region and warnings, over one region or all (`region` None)."""
    origin = hardware.origin
    groups = ages(hardware, today, region, frozenset(i.name for i in instances))
    stale = [f"{_GROUP_NAMES[age.group]} ({age.days} days)" for age in groups if age.stale and age.group in _REFRESHED]
    command = f"`berth catalog refresh --region {region or 'REGION'}`"
    warning = f"older than {STALE_DAYS} days, at least in part: {', '.join(stale)}; {command} brings them up to date"
    return {
        "origin": {
            "kind": origin.kind,
            "path": str(origin.path),
            "refreshed_at": origin.refreshed_at or None,
            "refreshed_regions": list(origin.regions),
        },
        "types": len(instances),
        "groups": [
            {
                "group": age.group,
                "rows": age.rows,
                "oldest": age.oldest or None,
                "newest": age.newest or None,
                "undated": age.undated,
                "days": age.days,
                "stale": age.stale,
            }
            for age in groups
        ],
        "regions": [_coverage(hardware, name, instances) for name in ([region] if region else hardware.regions)],
        "warnings": [warning] if stale else [],
    }


def _coverage(hardware: Hardware, region: str, instances: list[InstanceType]) -> dict[str, Any]:
    names = {i.name for i in instances}
    here = [price for (name, where), price in hardware.prices.items() if where == region and name in names]
    return {
        "region": region,
        "offered": sum(1 for name in names if hardware.offered(name, region)),
        "priced": {pay: sum(1 for price in here if pay in price.usd_per_hour) for pay in PAYS},
        "sagemaker": sum(1 for price in here if price.sagemaker_hosting or price.sagemaker_training),
        "unpriced": [i.name for i in hardware.unpriced(region) if i.name in names],
    }


def show_in_force(out: Console, hardware: Hardware, document: dict[str, Any]) -> None:
    """Print `in_force_document`."""
    origin = document["origin"]
    if origin["kind"] == "refreshed":
        regions = ", ".join(origin["refreshed_regions"])
        out.print(f"Refreshed from AWS at {origin['refreshed_at']} for {regions}; Berth's own data elsewhere.")
    else:
        out.print("Berth's own data; nothing has been refreshed on this machine.")
    out.print(f"Folder: {origin['path']}", soft_wrap=True)
    out.print()
    drawn = table(
        "data", "rows", "oldest", "newest", "undated", "age in days", right=("rows", "undated", "age in days")
    )
    for age in document["groups"]:
        drawn.add_row(
            _GROUP_NAMES[age["group"]],
            str(age["rows"]),
            age["oldest"] or UNKNOWN,
            age["newest"] or UNKNOWN,
            str(age["undated"]) if age["undated"] else "",
            UNKNOWN if age["days"] is None else str(age["days"]),
        )
    out.print(drawn)
    out.print()
    numbers = ("offered", "on demand", "res. 1y", "savings", "spot", "SageMaker")
    drawn = table("types priced", *numbers, right=numbers)
    for row in document["regions"]:
        priced = [row["priced"][pay] for pay in ("on-demand", "reserved-1y", "savings-1y", "spot")]
        cells = [row["offered"], *priced, row["sagemaker"]]
        drawn.add_row(row["region"], *(str(cell) for cell in cells))
    out.print(drawn)
    for row in document["regions"]:
        if not any(row["priced"].values()):
            out.print(f"{row['region']}: no prices yet; `berth catalog refresh --region {row['region']}` brings them")
        elif row["unpriced"]:
            out.print(f"Unpriced in {row['region']}: {', '.join(_by_family(row['unpriced'], hardware))}")
    for text in document["warnings"]:
        out.print(f"Warning: {text}")


def _by_family(names: list[str], hardware: Hardware) -> list[str]:
    """Type names, a family's as one where all of it is among them: g7.*"""
    families = {name: hardware.instances[name].family for name in names}
    sizes = Counter(instance.family for instance in hardware.instances.values())
    whole = {family for family, count in Counter(families.values()).items() if count == sizes[family] > 1}
    return list(dict.fromkeys(f"{families[name]}.*" if families[name] in whole else name for name in names))


def type_document(instance: InstanceType) -> dict[str, Any]:
    """An instance type with everything that is known of it; null where unknown."""
    gpu = instance.gpu
    return {
        "instance_type": instance.name,
        "family": instance.family,
        "vcpus": instance.vcpus,
        "memory_gib": instance.memory_bytes / GIB,
        "arch": instance.arch,
        "gpu_count": instance.gpu_count,
        "gpu": None
        if gpu is None
        else {
            "name": gpu.name,
            "vendor": gpu.vendor,
            "memory_gib": gpu.memory_bytes / GIB,
            "memory_source": gpu.memory_source,
            "api_memory_gib": None if gpu.api_memory_bytes is None else gpu.api_memory_bytes / GIB,
            "bandwidth_gb_s": None if gpu.bandwidth is None else gpu.bandwidth / GB,
            "tflops_16bit_dense": None if gpu.flops_16bit is None else gpu.flops_16bit / 1e12,
            "compute_capability": gpu.compute_capability,
            "bf16": gpu.bf16,
            "as_of": gpu.as_of,
            "source": gpu.source,
        },
        "gpu_link": instance.nvlink,
        "local_nvme_gb": instance.local_nvme_gb,
        "network_gbps": instance.network_gbps,
        "network_baseline_gbps": instance.network_baseline_gbps,
        "efa": instance.efa,
        "usage_classes": list(instance.usage_classes),
        "as_of": instance.as_of,
        "source": instance.source,
    }


def show_types(out: Console, instances: list[InstanceType]) -> None:
    """Print the types as a table."""
    numbers = ("vCPU", "RAM GiB", "GPU GiB", "GB/s", "TFLOPS")
    drawn = table("type", "vCPU", "RAM GiB", "GPU", "GPU GiB", "GB/s", "TFLOPS", "bf16", right=numbers, wrap=("GPU",))
    for instance in instances:
        row = type_document(instance)
        gpu = row["gpu"] or {}
        drawn.add_row(
            instance.name,
            str(instance.vcpus),
            f"{row['memory_gib']:g}",
            f"{row['gpu_count']:g} × {gpu['name']}" if gpu else UNKNOWN,
            f"{gpu['memory_gib']:.2f}{_MEMORY_MARK[gpu['memory_source']]}" if gpu else UNKNOWN,
            _number(gpu.get("bandwidth_gb_s")),
            _number(gpu.get("tflops_16bit_dense")),
            _YES_NO[gpu.get("bf16")],
        )
    out.print(drawn)
    out.print(
        "GPU GiB: what the driver leaves (nvidia-smi); * AWS's figure, the driver may leave less (T4: 6 %);\n"
        "** the maker's figure. GB/s and dense 16-bit TFLOPS of one GPU; – not known or not there."
    )


def price_document(hardware: Hardware, region: str, instance: InstanceType) -> dict[str, Any]:
    """Every rate of a type in a region with its date, terms and source; null where unpriced."""
    price = hardware.prices.get((instance.name, region))
    rates = price.usd_per_hour if price else {}
    return {
        "instance_type": instance.name,
        "region": region,
        "offered": hardware.offered(instance.name, region),
        "usd_per_hour": {pay: rates.get(pay) for pay in PAYS},
        "effective": price.effective if price else {},
        "spot_min": price.spot_min if price else None,
        "spot_max": price.spot_max if price else None,
        "spot_interruption": (price.spot_interruption or None) if price else None,
        "sagemaker_hosting": price.sagemaker_hosting if price else None,
        "sagemaker_training": price.sagemaker_training if price else None,
        "terms": price.terms if price else {},
        "as_of": price.as_of if price else {},
        "source": price.source if price else None,
    }


def show_prices(out: Console, region: str, rows: list[dict[str, Any]]) -> None:
    """Print `price_document`s of one region as a table."""
    headings = ("on demand", "res. 1y", "res. 3y", "sav. 1y", "spot", "SageMaker")
    drawn = table("type", *headings, right=headings, title=f"{region}, US dollars an hour, Linux")
    for row in rows:
        paid, terms = row["usd_per_hour"], row["terms"]
        drawn.add_row(
            row["instance_type"],
            _usd(paid["on-demand"], none="unpriced"),
            _usd(paid["reserved-1y"]),
            _usd(paid["reserved-3y"]),
            _usd(paid["savings-1y"], mark="savings-1y" in terms),
            _usd(paid["spot"]),
            _usd(row["sagemaker_hosting"], mark="sagemaker_hosting" in terms),
        )
    out.print(drawn)
    out.print("Reserved, savings: nothing upfront unless marked. SageMaker: hosting of ml.TYPE. – no rate known.")
    for offered, words in ((False, "Offered in no zone"), (None, "Not known whether offered")):
        names = [row["instance_type"] for row in rows if row["offered"] is offered]
        if names:
            out.print(f"{words}: {', '.join(names)}")
    marked = {(_TERM_OF[key], text) for row in rows for key, text in row["terms"].items() if key in _TERM_OF}
    for what, text in sorted(marked):
        out.print(f"* {what}: {text}.")


def summary_document(summary: Summary) -> dict[str, Any]:
    """What a refresh did."""
    return {
        "regions": list(summary.regions),
        "folder": str(summary.version),
        "types": summary.types,
        "offered": summary.offered,
        "priced": summary.priced,
        "service_prices": summary.service_prices,
        "changed": [
            {"instance_type": name, "region": region, "before": before, "after": after}
            for name, region, before, after in summary.changed
        ],
        "new_types": summary.new_types,
        "unknown_gpus": summary.unknown_gpus,
        "notes": summary.notes,
    }


def show_summary(out: Console, summary: Summary) -> None:
    """Print what a refresh did."""
    counts = f"{summary.offered} types offered, {summary.priced} priced, {summary.types} known in all"
    counts += f"; {summary.service_prices} prices of services" if summary.service_prices else ""
    out.print(f"Refreshed {', '.join(summary.regions)}: {counts}.")
    for name, region, before, after in summary.changed[:_CHANGES_SHOWN]:
        change = (after - before) / before
        out.print(f"  {name} in {region}, on demand: {before:.4f} -> {after:.4f} USD an hour ({change:+.1%})")
    if len(summary.changed) > _CHANGES_SHOWN:
        out.print(f"  and {len(summary.changed) - _CHANGES_SHOWN} more on-demand rates that moved; --json lists them")
    if summary.new_types:
        out.print(f"New types: {', '.join(summary.new_types)}")
    if summary.unknown_gpus:
        names = ", ".join(summary.unknown_gpus)
        out.print(f"GPUs without known bandwidth, throughput, compute capability and bf16: {names}")
    for note in summary.notes:
        out.print(f"Note: {note}")
    out.print(f"In force: {summary.version}", soft_wrap=True)


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _usd(value: float | None, *, none: str = UNKNOWN, mark: bool = False) -> str:
    return none if value is None else f"{value:.{4 if value < 100 else 3}f}{'*' if mark else ''}"
