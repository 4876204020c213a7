"""Bring the catalogue up to date for some regions: ask AWS, merge with what is known, write, swap."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from infra.catalog_refresh import KEPT, pricelist, savings, services, specs, spot, store
from infra.catalog_refresh.clients import Clients
from infra.prices.table import REFRESHED
from model_runtime.progress import Progress
from sizing.errors import UserError, unknown
from sizing.hardware import cache
from sizing.hardware.load import DATA, Hardware, build_hardware, read_tables
from sizing.hardware.tables import COLUMNS, GROUPS, PRICE_GROUP

OPTIONAL: tuple[str, ...] = ("sagemaker", "savings", "spot", "services")
"""Groups that a refresh can leave out; their rates stay as they are, with their old date."""

_GROUP_OF = {"sagemaker": "sagemaker", "savings": "savings_plan", "spot": "spot"}
_SOURCE_PREFIX = {
    "on_demand": ("od",),
    "reserved": ("ri",),
    "savings_plan": ("sp",),
    "spot": ("spot",),
    "spot_advisor": ("advisor", "spot"),
    "sagemaker": ("sm", "sm training=hosting"),
}
"""How a row's `source` begins the part that belongs to a column group."""
_SOURCE_PARTS = re.compile(r"(?:\A|; )(od|ri|sp|spot|advisor|sm|sm training=hosting): ")
Cells = dict[str, str]
Key = tuple[str, str]


@dataclass(slots=True)
class Summary:
    """What a refresh found and wrote."""

    version: Path | None = None
    regions: tuple[str, ...] = ()
    types: int = 0
    priced: int = 0
    service_prices: int = 0
    """Prices of services beside machines that AWS gave."""
    offered: int = 0
    changed: list[tuple[str, str, float, float]] = field(default_factory=list)
    """On-demand rates that moved: type, region, before, after."""
    new_types: list[str] = field(default_factory=list)
    unknown_gpus: list[str] = field(default_factory=list)
    """GPUs that the accelerators table lacks: kept, with bandwidth, throughput, capability and bf16 unknown."""
    notes: list[str] = field(default_factory=list)


def refresh(
    regions: Sequence[str],
    clients: Clients,
    progress: Progress,
    now: datetime,
    *,
    without: Collection[str] = (),
    folder: Path | None = None,
) -> Summary:
    """Refresh `regions` into the cache; all of it or, on any failure (`UserError`), nothing.

    `now` (UTC) dates every row. `without` leaves out groups of `OPTIONAL`. `folder` is the catalogue's cache.
    """
    wanted = _checked(regions, without, clients)
    folder = cache.catalog_dir() if folder is None else folder
    summary = Summary(regions=wanted)
    with store.locked(folder):
        store.sweep(folder)
        base = _Base.read(folder, summary)
        tables = base.kept(wanted)
        for region in wanted:
            _region(region, clients, progress, now, frozenset(without), base, tables, summary)
        summary.version = store.publish(
            folder, tables, base.regions | set(wanted), now, lambda staged: _check(staged, wanted, base, summary)
        )
    return summary


def _checked(regions: Sequence[str], without: Collection[str], clients: Clients) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(region.strip().lower() for region in regions))
    for region in wanted:
        if region not in clients.regions:
            raise unknown("AWS region", region, clients.regions)
    for group in without:
        if group not in OPTIONAL:
            raise unknown("group for --without", group, OPTIONAL)
    if not wanted:
        raise UserError("no region to refresh: name one with --region, e.g. --region us-east-1")
    return wanted


@dataclass(frozen=True, slots=True)
class _Base:
    """What is known before a refresh."""

    hardware: Hardware
    shipped: dict[str, Cells]
    """Berth's own rows of instances.csv, by type."""
    prices: dict[Key, Cells]
    """The rows of prices.csv in force."""
    overlay: dict[str, list[Cells]]
    """All rows of the refreshed catalogue in force, by file."""
    regions: frozenset[str]
    """Regions refreshed earlier."""

    @classmethod
    def read(cls, folder: Path, summary: Summary) -> _Base:
        try:
            version = cache.current_version(folder)
            rows, manifest = read_tables(DATA, version)
            hardware = build_hardware(DATA, version)
        except UserError as error:
            if cache.RESET_HINT not in str(error):
                raise
            summary.notes.append(f"replaced without reuse: {str(error).removesuffix(cache.RESET_HINT)}")
            version, (rows, manifest), hardware = None, read_tables(DATA), build_hardware(DATA)
        shipped = rows if version is None else read_tables(DATA)[0]
        overlay: dict[str, list[Cells]] = {name: [] for name in cache.TABLES}
        if version is not None:
            for name in cache.TABLES:
                overlay[name] = [row.cells for row in rows[name] if row.path.parent == version]
        overlay[REFRESHED] = store.read_services(version)
        return cls(
            hardware=hardware,
            shipped={row.cells["instance_type"]: row.cells for row in shipped["instances.csv"]},
            prices={(row.cells["instance_type"], row.cells["region"]): row.cells for row in rows["prices.csv"]},
            overlay=overlay,
            regions=frozenset(manifest.regions if manifest else ()),
        )

    def kept(self, refreshed: Collection[str]) -> dict[str, list[Cells]]:
        """The tables to write, so far: earlier refreshes of other regions."""
        return {
            name: [cells for cells in rows if cells.get("region", "") not in refreshed]
            for name, rows in self.overlay.items()
        }


def _region(
    region: str,
    clients: Clients,
    progress: Progress,
    now: datetime,
    without: frozenset[str],
    base: _Base,
    tables: dict[str, list[Cells]],
    summary: Summary,
) -> None:
    ec2, today = clients.ec2(region), f"{now:%Y-%m-%d}"

    progress.begin(f"{region}: instance types", 1)
    cpu_types = [i.name for i in base.hardware.instances.values() if i.gpu is None]
    fresh: dict[str, Cells] = {}
    for record in specs.describe_types(ec2, region, cpu_types):
        name = record["InstanceType"]
        row = specs.instance_row(record, region, today, base.shipped.get(name))
        if row is None:
            summary.notes.append(f"{name}: AWS reports an accelerator without its memory; not taken up")
        else:
            fresh[name] = row
    if not any(row["gpu"] for row in fresh.values()):
        raise UserError(f"AWS reports no accelerated instance type in {region}; {KEPT}")
    replaced = tables["instances.csv"]
    tables["instances.csv"] = [row for row in replaced if row["instance_type"] not in fresh] + list(fresh.values())
    progress.advance()

    progress.begin(f"{region}: where they are offered", 1)
    known = set(base.hardware.instances) | {row["instance_type"] for row in tables["instances.csv"]}
    offerings = specs.offering_rows(ec2, region, known, today)
    tables["offerings.csv"] += offerings
    offered = sorted(row["instance_type"] for row in offerings if row["az_count"] != "0")
    if not offered:
        raise UserError(f"AWS reports that {region} offers none of the catalogue's instance types; {KEPT}")
    summary.offered += len(offered)
    progress.advance()

    rates: dict[str, dict[str, float]] = {name: {} for name in offered}

    progress.begin(f"{region}: on-demand and reserved prices", len(offered))
    for name in offered:
        rates[name] |= pricelist.ec2_rates(clients.pricing, name, region)
        progress.advance()
    if not any("on_demand_usd_h" in found for found in rates.values()):
        raise UserError(f"AWS's Price List has no on-demand price for {region}; {KEPT}")

    if "spot" not in without:
        progress.begin(f"{region}: spot prices", 1)
        _merge(rates, spot.spot_rates(ec2, region, offered, now))
        progress.advance()
    if "savings" not in without:
        progress.begin(f"{region}: Savings Plans", savings.batches(offered))
        _merge(rates, savings.savings_rates(clients.savingsplans, region, offered, progress.advance))
    if "sagemaker" not in without:
        progress.begin(f"{region}: SageMaker prices", len(pricelist.SAGEMAKER_USES))
        for use, column in pricelist.SAGEMAKER_USES.items():
            found = pricelist.sagemaker_rates(clients.pricing, use, region)
            _merge(rates, {name: {column: rate} for name, rate in found.items()})
            progress.advance()

    if "services" in without:
        tables[REFRESHED] += [row for row in base.overlay[REFRESHED] if row["region"] == region]
    else:
        progress.begin(f"{region}: prices of services", len(services.QUESTIONS))
        listed, said = services.service_rows(clients.pricing, region, today, progress.advance)
        there = {(row["service"], row["item"]) for row in listed}
        earlier = (r for r in base.overlay[REFRESHED] if r["region"] == region)
        tables[REFRESHED] += [*listed, *(r for r in earlier if (r["service"], r["item"]) not in there)]
        summary.service_prices += len(listed)
        summary.notes += said

    kept = {"spot_advisor"} | {_GROUP_OF[group] for group in without if group in _GROUP_OF}
    for name, found in rates.items():
        row = _price_row(name, region, found, today, kept, base.prices.get((name, region), {}))
        if any(row[column] for column in PRICE_GROUP):
            tables["prices.csv"].append(row)


def _merge(rates: dict[str, dict[str, float]], found: Mapping[str, Mapping[str, float]]) -> None:
    for name, columns in found.items():
        if name in rates:
            rates[name] |= columns


_SOURCES = {
    "on_demand": "AWS Price List, GetProducts AmazonEC2",
    "reserved": "AWS Price List, GetProducts AmazonEC2, upfront terms as effective rates",
    "savings_plan": "AWS DescribeSavingsPlansOfferingRates, no upfront",
    "spot": "AWS EC2 DescribeSpotPriceHistory, mean/min/max over zones",
    "sagemaker": "AWS Price List, GetProducts AmazonSageMaker",
}


def _price_row(
    name: str, region: str, rates: Mapping[str, float], today: str, kept: Collection[str], before: Mapping[str, str]
) -> Cells:
    """A row of prices.csv: the rates found, dated today, and the groups in `kept` as they were."""
    row = dict.fromkeys(COLUMNS["prices.csv"], "")
    row |= {"instance_type": name, "region": region}
    sources: list[str] = []
    old = _sources(before.get("source", ""))
    for group in GROUPS:
        dated = f"{group}_as_of"
        if group in kept:
            columns = [column for column, belongs in PRICE_GROUP.items() if belongs == group]
            columns += ["spot_advisor_savings_pct", "spot_interruption"] if group == "spot_advisor" else []
            row |= {column: before.get(column, "") for column in [*columns, dated]}
            if row[dated]:
                prefix = _SOURCE_PREFIX[group][0]
                texts = [old[p] for p in _SOURCE_PREFIX[group] if p in old]
                sources.append(f"{prefix}: {', '.join(texts[:1] if group == 'spot_advisor' else texts)}")
            continue
        filled = {column: rate for column, rate in rates.items() if PRICE_GROUP[column] == group}
        if filled:
            row |= {column: f"{rate:.6f}".rstrip("0").rstrip(".") for column, rate in filled.items()}
            row[dated] = today
            sources.append(f"{_SOURCE_PREFIX[group][0]}: {_SOURCES[group]}")
    row["source"] = "; ".join(sources)
    return row


def _sources(text: str) -> dict[str, str]:
    """The parts of a row's source by their prefix."""
    parts = _SOURCE_PARTS.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _check(staged: Path, wanted: Sequence[str], base: _Base, summary: Summary) -> None:
    """Read the written catalogue as the next command will, refuse a hollow one, and sum up what is in it."""
    try:
        hardware = build_hardware(DATA, staged)
    except UserError as error:
        problem = str(error).removesuffix(cache.RESET_HINT).replace(f"{staged}{os.sep}", "")
        raise UserError(f"what AWS answered makes no catalogue: {problem}; {KEPT}") from None
    for region in wanted:
        priced = [o for o in hardware.offers(region, ("on-demand",), include_not_offered=True) if o.instance.gpu]
        if not priced:
            raise UserError(f"AWS gave no on-demand price of an accelerated type in {region}; {KEPT}")
        summary.priced += sum(1 for _, where in hardware.prices if where == region)
        for offer in priced:
            before = base.hardware.prices.get((offer.instance.name, region))
            rate = before.usd_per_hour.get("on-demand") if before else None
            if rate is not None and abs(rate - offer.usd_per_hour) > 0.5e-4 * rate:
                summary.changed.append((offer.instance.name, region, rate, offer.usd_per_hour))
    summary.types = len(hardware.instances)
    summary.new_types = sorted(set(hardware.instances) - set(base.hardware.instances))
    table = {gpu.name for gpu in hardware.accelerators}
    summary.unknown_gpus = sorted({i.gpu.name for i in hardware.instances.values() if i.gpu} - table)
