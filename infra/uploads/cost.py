"""What it costs to keep a stack's bundle and model in the artifact bucket."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from infra.prices.table import ServicePrices, load_services
from model_runtime.fetch import wanted_files
from model_runtime.handler.bundle import Bundle
from sizing.units import GIB, gib

SMALLEST_SHOWN = Decimal("0.01")


def stored_line(bundle: Bundle, model: Path | None, region: str, prices: ServicePrices | None = None) -> str:
    """One line: how much is stored, and what S3 bills for it a month; "unpriced" where the region's price is unknown.

    S3 bills GB of 2^30 bytes. Each change keeps the replaced version for as long as the shared stack says.
    """
    size = bundle.total_bytes + (_model_bytes(model) if model else 0)
    price = (prices or load_services()).find("s3", "storage", region)
    if price is None:
        return f"{gib(size)} in S3, {region}: unpriced"
    usd = price.usd * Decimal(size) / Decimal(GIB)
    amount = f"${usd:,.2f}" if usd >= SMALLEST_SHOWN else f"less than ${SMALLEST_SHOWN}"
    return f"{gib(size)} in S3, {region}: {amount} a month until it is deleted (price of {price.as_of})"


def _model_bytes(folder: Path) -> int:
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}
    return sum(paths[name].stat().st_size for name in wanted_files(paths))
