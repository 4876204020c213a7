"""`berth catalog`: which instance types and prices are in force, how old they are, and bringing them up to date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from infra.catalog_refresh.refresh import Progress, Summary
    from sizing.hardware.ages import Age
    from sizing.hardware.load import Hardware
    from sizing.hardware.types import InstanceType

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Instance types and prices: what is in force, how old it is, and bringing it up to date.",
)

FamilyOption = Annotated[str | None, typer.Option("--family", help="Only this instance family, e.g. g4dn.")]
UNKNOWN = "–"


@app.command()
def show(
    region: Annotated[str | None, typer.Option("--region", help="Only this region, e.g. eu-west-1.")] = None,
    family: FamilyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Which data are in force, from where, how old each group is, and what has no price."""
    from datetime import UTC, datetime

    from sizing.hardware.ages import ages
    from sizing.hardware.load import load_hardware

    hardware = load_hardware()
    instances = _family(hardware, family)
    regions = [hardware.region(region)] if region else list(hardware.regions)
    names = frozenset(i.name for i in instances)
    groups = ages(hardware, datetime.now(UTC).date(), regions[0] if region else None, names)
    coverage = [_coverage(hardware, name, instances) for name in regions]
    warnings = _warnings(groups, regions[0] if region else None)
    if json_output:
        print_json(
            {
                "origin": _origin(hardware),
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
                "regions": coverage,
                "warnings": warnings,
            }
        )
        return
    _print_show(hardware, groups, coverage, warnings)


@app.command()
def types(family: FamilyOption = None, json_output: JsonOption = False) -> None:
    """The instance types: vCPUs, RAM, accelerators and what they can."""
    from sizing.hardware.load import load_hardware

    instances = _family(load_hardware(), family)
    if json_output:
        print_json([_type(instance) for instance in instances])
        return
    drawn = table(
        "type",
        "vCPU",
        "RAM GiB",
        "GPU",
        "n",
        "GPU GiB",
        "GB/s",
        "TFLOPS",
        "bf16",
        right=("vCPU", "RAM GiB", "n", "GPU GiB"),
    )
    for instance in instances:
        row = _type(instance)
        gpu = row["gpu"] or {}
        drawn.add_row(
            instance.name,
            str(instance.vcpus),
            f"{row['memory_gib']:g}",
            gpu.get("name", UNKNOWN),
            f"{row['gpu_count']:g}" if gpu else UNKNOWN,
            f"{gpu['memory_gib']:.2f}{_MEMORY_MARK[gpu['memory_source']]}" if gpu else UNKNOWN,
            _number(gpu.get("bandwidth_gb_s")),
            _number(gpu.get("tflops_16bit_dense")),
            {True: "yes", False: "no", None: UNKNOWN}[gpu.get("bf16")],
        )
    out = console()
    out.print(drawn)
    out.print(
        "GPU GiB: what the driver leaves (nvidia-smi); * AWS's figure, the driver may leave less (T4: 6 %);\n"
        "** the maker's figure. GB/s and dense 16-bit TFLOPS of one GPU; – not known or not there."
    )


@app.command()
def prices(
    region: Annotated[str, typer.Option("--region", help="The region, e.g. eu-west-1.")] = "us-east-1",
    family: FamilyOption = None,
    json_output: JsonOption = False,
) -> None:
    """US dollars an hour of every type in a region, by way of paying."""
    from sizing.hardware.load import load_hardware
    from sizing.hardware.types import PAYS

    hardware = load_hardware()
    name = hardware.region(region)
    rows: list[dict[str, Any]] = []
    for instance in _family(hardware, family):
        price = hardware.prices.get((instance.name, name))
        rates = price.usd_per_hour if price else {}
        rows.append(
            {
                "instance_type": instance.name,
                "region": name,
                "offered": hardware.offered(instance.name, name),
                "usd_per_hour": {pay: rates.get(pay) for pay in PAYS},
                "effective": price.effective if price else {},
                "sagemaker_hosting": price.sagemaker_hosting if price else None,
                "sagemaker_training": price.sagemaker_training if price else None,
                "terms": price.terms if price else {},
                "as_of": price.as_of if price else {},
                "source": price.source if price else None,
            }
        )
    if json_output:
        print_json(rows)
        return
    headings = ("on demand", "res. 1y", "res. 3y", "savings 1y", "spot", "SageMaker")
    drawn = table("type", *headings, "offered", right=headings, title=f"{name}, US dollars an hour, Linux")
    marked = False
    for row in rows:
        paid, terms = row["usd_per_hour"], row["terms"]
        marked = marked or bool(terms)
        drawn.add_row(
            row["instance_type"],
            _usd(paid["on-demand"], none="unpriced"),
            _usd(paid["reserved-1y"]),
            _usd(paid["reserved-3y"]),
            _usd(paid["savings-1y"], mark="savings-1y" in terms),
            _usd(paid["spot"]),
            _usd(row["sagemaker_hosting"], mark="sagemaker_hosting" in terms),
            {True: "yes", False: "no", None: "not known"}[row["offered"]],
        )
    out = console()
    out.print(drawn)
    out.print("Reserved and savings: nothing upfront. SageMaker: the hosting rate of ml.TYPE. – no rate known.")
    if marked:
        for text in sorted(
            {f"* {_TERM_OF[key]}: {value}." for row in rows for key, value in row["terms"].items() if key in _TERM_OF}
        ):
            out.print(text)


@app.command()
def refresh(
    region: Annotated[
        list[str], typer.Option("--region", help="A region to bring up to date, e.g. us-east-1. May be given again.")
    ],
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="The AWS profile whose credentials to use; else the SDK's own search."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            help="Leave out sagemaker, savings or spot, e.g. for want of permission; its rates stay as they are. "
            "May be given again.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Bring types, offerings and prices up to date from AWS's own APIs: all of it or nothing. Costs nothing."""
    from datetime import UTC, datetime

    from infra.catalog_refresh.clients import connect
    from infra.catalog_refresh.refresh import refresh as run

    clients = connect(profile)
    with _progress() as progress:
        summary = run(region, clients, progress, datetime.now(UTC), without=without or ())
    if json_output:
        print_json(
            {
                "regions": list(summary.regions),
                "folder": str(summary.version),
                "types": summary.types,
                "offered": summary.offered,
                "priced": summary.priced,
                "changed": [
                    {"instance_type": name, "region": where, "before": before, "after": after}
                    for name, where, before, after in summary.changed
                ],
                "new_types": summary.new_types,
                "unknown_gpus": summary.unknown_gpus,
                "notes": summary.notes,
            }
        )
        return
    _print_summary(summary)


@app.command()
def reset() -> None:
    """Remove the refreshed catalogue from this machine; the data that Berth ships serve again."""
    from infra.catalog_refresh import store
    from sizing.hardware import cache

    folder = cache.catalog_dir()
    if store.reset(folder):
        typer.echo(f"removed the refreshed catalogue in {folder}; Berth's own data are in force")
    else:
        typer.echo(f"nothing to remove in {folder}; Berth's own data are in force")


_MEMORY_MARK = {"nvidia-smi": "", "api": "*", "brochure": "**"}
_TERM_OF = {"savings-1y": "savings", "sagemaker_hosting": "SageMaker"}
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


def _family(hardware: Hardware, family: str | None) -> list[InstanceType]:
    from sizing.errors import unknown

    instances = sorted(hardware.instances.values(), key=lambda i: (i.family, i.gpus, i.memory_bytes, i.vcpus, i.name))
    if family is None:
        return instances
    chosen = [i for i in instances if i.family == family.strip().lower()]
    if not chosen:
        families = {i.family for i in instances}
        raise unknown("instance family", family, families, f"families: {', '.join(sorted(families))}")
    return chosen


def _origin(hardware: Hardware) -> dict[str, Any]:
    origin = hardware.origin
    return {
        "kind": origin.kind,
        "path": str(origin.path),
        "refreshed_at": origin.refreshed_at or None,
        "refreshed_regions": list(origin.regions),
    }


def _coverage(hardware: Hardware, region: str, instances: list[InstanceType]) -> dict[str, Any]:
    from sizing.hardware.types import PAYS

    names = {i.name for i in instances}
    here = [price for (name, where), price in hardware.prices.items() if where == region and name in names]
    return {
        "region": region,
        "offered": sum(1 for name in names if hardware.offered(name, region)),
        "priced": {pay: sum(1 for price in here if pay in price.usd_per_hour) for pay in PAYS},
        "sagemaker": sum(1 for price in here if price.sagemaker_hosting or price.sagemaker_training),
        "unpriced": [i.name for i in hardware.unpriced(region) if i.name in names],
    }


def _warnings(groups: list[Age], region: str | None) -> list[str]:
    from sizing.hardware.ages import STALE_DAYS

    stale = [f"{_GROUP_NAMES[age.group]} ({age.days} days)" for age in groups if age.stale and age.group in _REFRESHED]
    if not stale:
        return []
    command = f"`berth catalog refresh --region {region or 'REGION'}`"
    return [f"older than {STALE_DAYS} days, at least in part: {', '.join(stale)}; {command} brings them up to date"]


def _print_show(hardware: Hardware, groups: list[Age], coverage: list[dict[str, Any]], warnings: list[str]) -> None:
    out, origin = console(), hardware.origin
    if origin.kind == "refreshed":
        out.print(
            f"Refreshed from AWS at {origin.refreshed_at} for {', '.join(origin.regions)}; Berth's own data elsewhere."
        )
    else:
        out.print("Berth's own data; nothing has been refreshed on this machine.")
    out.print(f"Folder: {origin.path}", soft_wrap=True)
    out.print()
    drawn = table(
        "data", "rows", "oldest", "newest", "undated", "age in days", right=("rows", "undated", "age in days")
    )
    for age in groups:
        drawn.add_row(
            _GROUP_NAMES[age.group],
            str(age.rows),
            age.oldest or UNKNOWN,
            age.newest or UNKNOWN,
            str(age.undated) if age.undated else "",
            UNKNOWN if age.days is None else str(age.days),
        )
    out.print(drawn)
    out.print()
    ways = ("on demand", "res. 1y", "res. 3y", "savings 1y", "spot", "SageMaker")
    drawn = table("types priced", "offered", *ways, "unpriced", right=("offered", *ways, "unpriced"))
    for row in coverage:
        priced = row["priced"]
        counts = [priced[pay] for pay in ("on-demand", "reserved-1y", "reserved-3y", "savings-1y", "spot")]
        cells = [row["offered"], *counts, row["sagemaker"], len(row["unpriced"])]
        drawn.add_row(row["region"], *(str(cell) for cell in cells))
    out.print(drawn)
    for row in coverage:
        if not any(row["priced"].values()):
            out.print(f"{row['region']}: no prices yet; `berth catalog refresh --region {row['region']}` brings them")
        elif row["unpriced"]:
            out.print(f"Unpriced in {row['region']}: {', '.join(_by_family(row['unpriced'], hardware))}")
    for text in warnings:
        out.print(f"Warning: {text}")


def _by_family(names: list[str], hardware: Hardware) -> list[str]:
    """Type names, a family's as one where all of it is among them: g7.*"""
    families = {name: hardware.instances[name].family for name in names}
    sizes = Counter(instance.family for instance in hardware.instances.values())
    whole = {family for family, count in Counter(families.values()).items() if count == sizes[family] > 1}
    return list(dict.fromkeys(f"{families[name]}.*" if families[name] in whole else name for name in names))


def _type(instance: InstanceType) -> dict[str, Any]:
    from sizing.units import GB, GIB

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
            "bandwidth_gb_s": None if gpu.bandwidth is None else gpu.bandwidth / GB,
            "tflops_16bit_dense": None if gpu.flops_16bit is None else gpu.flops_16bit / 1e12,
            "compute_capability": gpu.compute_capability,
            "bf16": gpu.bf16,
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


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _usd(value: float | None, *, none: str = UNKNOWN, mark: bool = False) -> str:
    return none if value is None else f"{value:.4f}{'*' if mark else ''}"


def _print_summary(summary: Summary) -> None:
    out = console()
    where = ", ".join(summary.regions)
    out.print(
        f"Refreshed {where}: {summary.offered} types offered, {summary.priced} priced, {summary.types} known in all."
    )
    for name, region, before, after in summary.changed[:12]:
        change = (after - before) / before
        out.print(f"  {name} in {region}, on demand: {before:.4f} -> {after:.4f} USD an hour ({change:+.1%})")
    if len(summary.changed) > 12:
        out.print(f"  and {len(summary.changed) - 12} more on-demand rates that moved; --json lists them")
    if summary.new_types:
        out.print(f"New types: {', '.join(summary.new_types)}")
    if summary.unknown_gpus:
        out.print(
            f"GPUs without known bandwidth, throughput, compute capability and bf16: {', '.join(summary.unknown_gpus)}"
        )
    for note in summary.notes:
        out.print(f"Note: {note}")
    out.print(f"In force from now on: {summary.version}", soft_wrap=True)


class _Lines:
    """Progress as one plain line a stage, for logs and pipes."""

    def begin(self, label: str, total: int) -> None:
        typer.echo(label if total == 1 else f"{label} ({total} requests)", err=True)

    def advance(self) -> None:
        pass


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, plain lines otherwise; both on stderr, so that stdout holds the result alone."""
    err = console(stderr=True)
    if not err.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    bars = Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err)

    class Drawn:
        def begin(self, label: str, total: int) -> None:
            self.task = bars.add_task(label, total=total)

        def advance(self) -> None:
            bars.advance(self.task)

    with bars:
        yield Drawn()
