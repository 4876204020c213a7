"""The loader of services.csv: what a unit of an AWS service costs in a region, or that it is not known."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

from sizing.errors import UserError

DATA = Path(__file__).parent / "services.csv"
EVERYWHERE = "*"
_COLUMNS = ("service", "item", "region", "unit", "usd", "as_of", "note", "source")
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?|undated")


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


@cache
def load_services(path: Path = DATA) -> ServicePrices:
    """The prices of a file. Raises `UserError` with the line for one that is cut off or holds what it must not."""
    prices: dict[tuple[str, str, str], UnitPrice] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise UserError(f"{path}: the columns must be {','.join(_COLUMNS)}")
            for row in reader:
                price = _price(row, path, reader.line_num)
                key = (price.service, price.item, price.region)
                if key in prices:
                    raise UserError(f"{path} line {reader.line_num}: {' '.join(key)} stands there twice")
                prices[key] = price
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; reinstalling Berth restores it") from None
    return ServicePrices(prices)


def _price(row: dict[str, str | None], path: Path, line: int) -> UnitPrice:
    cells = {name: (row.get(name) or "").strip() for name in _COLUMNS}
    for name in _COLUMNS:
        if not cells[name] and name != "note":
            raise UserError(f"{path} line {line}: {name} is empty")
    try:
        usd = Decimal(cells["usd"])
    except InvalidOperation:
        raise UserError(f"{path} line {line}: usd '{cells['usd']}' is no number") from None
    if not (usd.is_finite() and usd > 0):
        raise UserError(f"{path} line {line}: usd {usd} must be above 0")
    if not _DATE.fullmatch(cells["as_of"]):
        raise UserError(f"{path} line {line}: as_of '{cells['as_of']}' is no date")
    return UnitPrice(usd=usd, **{name: cells[name] for name in _COLUMNS if name != "usd"})
