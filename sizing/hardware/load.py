"""The catalogue in force: Berth's own data, with a refreshed catalogue of this machine laid over it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from sizing.errors import UserError, unknown
from sizing.hardware import cache
from sizing.hardware.tables import GROUPS, PRICE_GROUP, Row, keyed, read_rows
from sizing.hardware.types import PAYS, CapacityBlock, Gpu, InstanceType, Offer, Offering, Pay, Price
from sizing.units import GB, GIB, MIB

DATA = Path(__file__).parent / "data"
"""The data that Berth ships."""
_REINSTALL = "; reinstalling Berth restores it"

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


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the catalogue comes from. `regions` and `refreshed_at` (UTC, ISO 8601) say what a refresh replaced."""

    kind: Literal["embedded", "refreshed", "folder"]
    path: Path
    refreshed_at: str = ""
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Hardware:
    """Instance types, their prices by (type, region) and where they are offered. Share it; it is never changed."""

    instances: dict[str, InstanceType]
    prices: dict[tuple[str, str], Price]
    offerings: dict[tuple[str, str], Offering]
    capacity_blocks: tuple[CapacityBlock, ...]
    accelerators: tuple[Gpu, ...]
    origin: Origin
    regions: tuple[str, ...]
    """Every region that a price or an offering names."""
    priced_regions: tuple[str, ...]
    _offers: dict[str, tuple[Offer, ...]] = field(default_factory=dict, repr=False)

    def instance(self, name: str) -> InstanceType:
        """The type of this name; `UserError` with the nearest names for one that is not in the catalogue."""
        found = self.instances.get(name) or self.instances.get(name.strip().lower())
        if found is None:
            raise unknown("instance type", name, self.instances, "`berth catalog types` lists them")
        return found

    def region(self, name: str) -> str:
        """The region's name, normalised; `UserError` with the nearest names where nothing is known of it."""
        found = name.strip().lower()
        if found not in self.regions:
            raise unknown("region", name, self.regions, "`berth catalog refresh --region NAME` adds one of AWS's")
        return found

    def offered(self, instance_type: str, region: str) -> bool | None:
        """Whether a zone of the region offers the type; None where that is not known."""
        offering = self.offerings.get((instance_type, region))
        return None if offering is None or offering.az_count is None else offering.az_count > 0

    def offers(
        self,
        region: str,
        pays: Iterable[Pay] = PAYS,
        *,
        types: Iterable[str] | None = None,
        include_not_offered: bool = False,
    ) -> list[Offer]:
        """Priced offers in a region, cheapest first (then by name and way of paying).

        Types priced but offered in no zone are left out unless asked for; where that is unknown they stay.
        A region that is known but has no prices gives an empty list; an unknown one raises `UserError`.
        """
        name = self.region(region)
        if name not in self._offers:
            self._offers[name] = tuple(self._priced(name))
        wanted, only = frozenset(pays), None if types is None else frozenset(types)
        return [
            offer
            for offer in self._offers[name]
            if offer.pay in wanted
            and (include_not_offered or offer.price.offered is not False)
            and (only is None or offer.instance.name in only)
        ]

    def unpriced(self, region: str) -> list[InstanceType]:
        """The types that are offered in the region, or may be, and have no rate there under any way of paying."""
        name = self.region(region)
        return [
            instance
            for instance in self.instances.values()
            if self.offered(instance.name, name) is not False
            and not ((price := self.prices.get((instance.name, name))) and price.usd_per_hour)
        ]

    def _priced(self, region: str) -> list[Offer]:
        order = {pay: i for i, pay in enumerate(PAYS)}
        offers = [
            Offer(self.instances[name], region, pay, rate, price)
            for (name, where), price in self.prices.items()
            if where == region
            for pay, rate in price.usd_per_hour.items()
        ]
        return sorted(offers, key=lambda o: (o.usd_per_hour, o.instance.name, order[o.pay]))


_loaded: dict[tuple[Path, ...], tuple[tuple[int, ...], Hardware]] = {}


def load_hardware(data_dir: Path | None = None) -> Hardware:
    """The catalogue in force; read once a process and again only when its files change.

    `data_dir` reads that folder alone (instances.csv, prices.csv, offerings.csv; accelerators.csv and
    capacity_blocks.csv where it has them). Without it: Berth's data, over which the refreshed catalogue
    of this machine replaces, region by region, what was refreshed.
    Raises `UserError` for a file that is missing, empty, cut off or holds what it must not, with its place.
    """
    if data_dir is not None:
        folders: tuple[Path, ...] = (Path(data_dir),)
    else:
        refreshed = cache.current_version()
        folders = (DATA,) if refreshed is None else (DATA, refreshed)
    stamp = tuple(_stamp(folder) for folder in folders)
    known = _loaded.get(folders)
    if known is None or known[0] != stamp:
        hardware = build_hardware(folders[0], folders[1] if len(folders) > 1 else None)
        known = _loaded[folders] = (stamp, hardware)
    return known[1]


def _stamp(folder: Path) -> int:
    """Changes when a file of the folder does."""
    try:
        return hash(tuple(sorted((p.name, s.st_mtime_ns, s.st_size) for p in folder.iterdir() if (s := p.stat()))))
    except OSError as error:
        raise UserError(f"the catalogue folder {folder} cannot be read: {error.strerror}") from None


def read_tables(folder: Path = DATA, overlay: Path | None = None) -> tuple[dict[str, list[Row]], cache.Manifest | None]:
    """The rows of instances.csv, offerings.csv and prices.csv, and the manifest of what a refresh laid over them."""
    hint = _REINSTALL if folder == DATA else ""
    rows = {name: read_rows(folder / name, hint) for name in cache.TABLES}
    if overlay is None:
        return rows, None
    manifest = cache.read_manifest(overlay)
    fresh = {name: read_rows(overlay / name, cache.RESET_HINT) for name in cache.TABLES}
    return {name: _over(rows[name], fresh[name], manifest.regions) for name in cache.TABLES}, manifest


def build_hardware(folder: Path = DATA, overlay: Path | None = None) -> Hardware:
    """`load_hardware` for the folders given, read anew."""
    rows, manifest = read_tables(folder, overlay)
    hint = _REINSTALL if folder == DATA else ""
    if manifest is not None and overlay is not None:
        origin = Origin("refreshed", overlay, manifest.refreshed_at, manifest.regions)
    else:
        origin = Origin("embedded" if folder == DATA else "folder", folder)

    accelerators = [_accelerator(row) for row in read_rows(_own_or_shipped(folder, "accelerators.csv"), hint)]
    instances = keyed(
        rows["instances.csv"], lambda r: r.text("instance_type"), lambda r: _instance(r, accelerators), "instance_type"
    )

    def place(row: Row) -> tuple[str, str]:
        name = row.text("instance_type")
        if name not in instances:
            raise row.error("instance_type", f"{name} is not in instances.csv")
        return name, row.text("region")

    offerings = keyed(rows["offerings.csv"], place, _offering, "instance_type, region")
    prices = keyed(rows["prices.csv"], place, lambda r: _price(r, offerings), "instance_type, region")
    blocks = [
        _capacity_block(row, instances) for row in read_rows(_own_or_shipped(folder, "capacity_blocks.csv"), hint)
    ]
    priced = {region for (_, region), price in prices.items() if price.usd_per_hour}
    regions = {region for _, region in prices} | {region for _, region in offerings}
    return Hardware(
        instances=instances,
        prices=prices,
        offerings=offerings,
        capacity_blocks=tuple(blocks),
        accelerators=tuple(accelerators),
        origin=origin,
        regions=tuple(sorted(regions)),
        priced_regions=tuple(sorted(priced)),
    )


def _own_or_shipped(folder: Path, name: str) -> Path:
    """A table that AWS does not report: the folder's own where it has one, else Berth's."""
    return folder / name if (folder / name).exists() else DATA / name


def _over(rows: list[Row], fresh: list[Row], regions: tuple[str, ...]) -> list[Row]:
    """Rows with `fresh` laid over them: whole regions of prices and offerings, single instance types."""
    if "region" in rows[0].cells:
        return [row for row in rows if row.cells["region"] not in regions] + fresh
    replaced = {row.cells["instance_type"] for row in fresh}
    return [row for row in rows if row.cells["instance_type"] not in replaced] + fresh


def _accelerator(row: Row) -> Gpu:
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
    A GPU that the table lacks keeps its name and memory, the rest unknown; one that it has with another
    memory size keeps what a GPU's name settles (compute capability, bf16).
    """
    name = row.text("gpu")
    api, brochure = row.integer("gpu_memory_mib"), row.number("gpu_memory_gib_brochure")
    known = [gpu for gpu in accelerators if gpu.name == name]
    vendor: Literal["nvidia", "neuron"] = known[0].vendor if known else _vendor(row)
    if api is None and brochure is None:
        raise row.error("gpu_memory_mib", f"the memory of {name} is not known; without it nothing can be sized")
    reported = round((brochure or 0) * GIB) if api is None else api * MIB
    same = [gpu for gpu in known if gpu.api_memory_bytes == reported]
    if share == 1 and same:
        return same[0]
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


def _instance(row: Row, accelerators: list[Gpu]) -> InstanceType:
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


def _offering(row: Row) -> Offering:
    az_ids = tuple(row.cells["az_ids"].split("|")) if row.cells["az_ids"] else ()
    az_count = row.integer("az_count")
    if az_ids and az_count != len(az_ids):
        raise row.error("az_count", f"says {row.cells['az_count']}, az_ids names {len(az_ids)}")
    return Offering(
        row.text("instance_type"), row.text("region"), az_count, az_ids, row.date("as_of"), row.text("source")
    )


def _price(row: Row, offerings: dict[tuple[str, str], Offering]) -> Price:
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


def _capacity_block(row: Row, instances: dict[str, InstanceType]) -> CapacityBlock:
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
