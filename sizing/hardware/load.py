"""The catalogue in force: Berth's own data, with a refreshed catalogue of this machine laid over it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sizing.errors import UserError, unknown
from sizing.hardware import cache, parse
from sizing.hardware.tables import keyed, read_rows
from sizing.hardware.types import PAYS, CapacityBlock, Gpu, InstanceType, Offer, Offering, Pay, Price
from sizing.tables import REINSTALL, Row

DATA = Path(__file__).parent / "data"
"""The data that Berth ships."""


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
    hint = REINSTALL if folder == DATA else ""
    if overlay is None:
        return {name: read_rows(folder / name, hint) for name in cache.TABLES}, None
    manifest = cache.read_manifest(overlay)
    fresh = {name: read_rows(overlay / name, cache.RESET_HINT) for name in cache.TABLES}
    rows = {name: read_rows(folder / name, hint, manifest.regions) for name in cache.TABLES}
    replaced = {row.cells["instance_type"] for row in fresh["instances.csv"]}
    rows["instances.csv"] = [row for row in rows["instances.csv"] if row.cells["instance_type"] not in replaced]
    return {name: rows[name] + fresh[name] for name in cache.TABLES}, manifest


def build_hardware(folder: Path = DATA, overlay: Path | None = None) -> Hardware:
    """`load_hardware` for the folders given, read anew."""
    rows, manifest = read_tables(folder, overlay)
    hint = REINSTALL if folder == DATA else ""
    if manifest is not None and overlay is not None:
        origin = Origin("refreshed", overlay, manifest.refreshed_at, manifest.regions)
    else:
        origin = Origin("embedded" if folder == DATA else "folder", folder)

    accelerators = [parse.accelerator(row) for row in read_rows(_own_or_shipped(folder, "accelerators.csv"), hint)]
    instances = keyed(
        rows["instances.csv"],
        lambda r: r.text("instance_type"),
        lambda r: parse.instance(r, accelerators),
        "instance_type",
    )

    def place(row: Row) -> tuple[str, str]:
        name = row.text("instance_type")
        if name not in instances:
            raise row.error("instance_type", f"{name} is not in instances.csv")
        return name, row.text("region")

    offerings = keyed(rows["offerings.csv"], place, parse.offering, "instance_type, region")
    prices = keyed(rows["prices.csv"], place, lambda r: parse.price(r, offerings), "instance_type, region")
    blocks = [
        parse.capacity_block(row, instances) for row in read_rows(_own_or_shipped(folder, "capacity_blocks.csv"), hint)
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
