"""The loader of services.csv: what a unit of an AWS service costs in a region, or that it is not known.

Prices that `berth catalog refresh` fetched stand before those that Berth ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

from sizing.hardware.cache import RESET_HINT, current_version, damaged, digest, read_manifest
from sizing.tables import REINSTALL, Row, read_rows

DATA = Path(__file__).parent / "services.csv"
REFRESHED = "services.csv"
"""Beside the tables of a refreshed catalogue."""
EVERYWHERE = "*"
COLUMNS = ("service", "item", "region", "unit", "usd", "as_of", "note", "source")


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """US dollars for one `unit`. `note` says what it holds for: the first tier, the part above what is free."""

    service: str
    item: str
    region: str
    unit: str
    usd: Decimal
    as_of: str
    note: str
    source: str


class ServicePrices:
    """Prices by service, item and region; a region that is missing is unpriced, never a neighbour's price."""

    def __init__(self, prices: dict[tuple[str, str, str], UnitPrice]) -> None:
        self._prices = prices

    def find(self, service: str, item: str, region: str) -> UnitPrice | None:
        """The price, None where none is known for the region."""
        return self._prices.get((service, item, region)) or self._prices.get((service, item, EVERYWHERE))

    def all(self) -> list[UnitPrice]:
        return list(self._prices.values())


def load_services(path: Path | None = None) -> ServicePrices:
    """The prices of a file; by default those that Berth ships, with what a refresh fetched in their place.

    Raises `UserError` with the line for a file that is cut off or holds what it must not.
    """
    if path is not None:
        return _loaded(path, None)
    return _loaded(DATA, current_version())


@cache
def _loaded(path: Path, version: Path | None) -> ServicePrices:
    shipped = _by_key(read_rows(path, COLUMNS, REINSTALL))
    fetched = {} if version is None else _by_key(refreshed_rows(version))
    return ServicePrices(shipped | fetched)


def refreshed_rows(version: Path) -> list[Row]:
    """The rows that a version of the refreshed catalogue holds; none where it was written without them.

    Raises `UserError` for a file that is not as the refresh wrote it.
    """
    path = version / REFRESHED
    wanted = read_manifest(version).files.get(REFRESHED)
    if wanted is None:
        return []
    if not path.is_file() or digest(path) != wanted:
        raise damaged(version.parent, f"{REFRESHED} is not as the refresh wrote it (cut off or changed)")
    if path.read_text(encoding="utf-8").count("\n") == 1:
        return []
    return read_rows(path, COLUMNS, RESET_HINT)


def _by_key(rows: list[Row]) -> dict[tuple[str, str, str], UnitPrice]:
    found: dict[tuple[str, str, str], UnitPrice] = {}
    for row in rows:
        price = UnitPrice(
            service=row.text("service"),
            item=row.text("item"),
            region=row.text("region"),
            unit=row.text("unit"),
            usd=_usd(row),
            as_of=row.date("as_of"),
            note=row.cells["note"].strip(),
            source=row.text("source"),
        )
        key = (price.service, price.item, price.region)
        if key in found:
            raise row.error("item", f"{' '.join(key)} stands there twice")
        found[key] = price
    return found


def _usd(row: Row) -> Decimal:
    """The price as a decimal, to the last digit that AWS gives."""
    text = row.text("usd")
    try:
        usd = Decimal(text)
    except InvalidOperation:
        raise row.error("usd", f"'{text}' is no number") from None
    if not (usd.is_finite() and usd > 0):
        raise row.error("usd", f"{usd} must be above 0; leave the row out where the price is unknown")
    return usd
