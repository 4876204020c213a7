"""What an hour costs under the ways of paying that a run may use, and what a run of so many hours comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizing.hardware.load import Hardware
from sizing.hardware.types import CapacityBlock, Pay, Price
from sizing.money import COMMITTED
from sizing.training_plan.task import CAPACITY_BLOCK, TrainingWishes
from sizing.units import HOURS_PER_YEAR

BLOCK_HOURS = 24.0
"""Capacity Blocks are sold in whole days (Amazon EC2 user guide, Capacity Blocks for ML: 1 to 14 days by the day)."""
_YEARS = {"reserved-1y": 1, "savings-1y": 1, "reserved-3y": 3, "savings-3y": 3}


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars an hour of one machine in a region under one way of paying."""

    region: str
    pay: str
    usd_per_hour: float
    price: Price
    block: CapacityBlock | None = None

    def run_usd(self, hours: float, nodes: int) -> float:
        """A run of `hours` on `nodes` machines. Capacity Blocks count whole days; committed rates count the hours used,
        for someone who holds the commitment anyway."""
        if self.pay == CAPACITY_BLOCK:
            hours = max(1.0, math.ceil(hours / BLOCK_HOURS)) * BLOCK_HOURS
        return nodes * hours * self.usd_per_hour


def pays_of(wishes: TrainingWishes) -> tuple[str, ...]:
    if wishes.pay == "best":
        return ("on-demand", "spot", CAPACITY_BLOCK)
    return ("savings-1y",) if wishes.pay == "savings" else (wishes.pay,)


def blocks_of(hardware: Hardware, instance_type: str, region: str) -> CapacityBlock | None:
    """The latest rate of Capacity Blocks known for a type in a region; one for "most regions" where there is none."""
    found = [b for b in hardware.capacity_blocks if b.instance_type == instance_type and b.region in (region, "")]
    return max(found, key=lambda b: (b.region == region, b.as_of), default=None)


def rates_of(hardware: Hardware, instance_type: str, regions: tuple[str, ...], pays: tuple[str, ...]) -> list[Rate]:
    """Every rate known for a type in the regions under the ways of paying, zones that do not offer it left out."""
    found: list[Rate] = []
    for region in regions:
        price = hardware.prices.get((instance_type, region))
        if price is None or price.offered is False:
            continue
        for pay in pays:
            if pay == CAPACITY_BLOCK:
                block = blocks_of(hardware, instance_type, region)
                if block is not None:
                    found.append(Rate(region, pay, block.usd_per_hour, price, block))
                continue
            rate = price.usd_per_hour.get(_pay(pay))
            if rate is not None:
                found.append(Rate(region, pay, rate, price))
    return found


def commitment(pay: str, usd_per_hour: float, nodes: int) -> float:
    """US dollars that a committed rate obliges to over its term; 0 without a commitment."""
    return _YEARS.get(pay, 0) * HOURS_PER_YEAR * usd_per_hour * nodes


def pay_note(pay: str, usd_per_hour: float, nodes: int, price: Price, hours: float, block: CapacityBlock | None) -> str:
    """What a way of paying takes for granted, in words; empty for on demand."""
    if pay in COMMITTED:
        total = commitment(pay, usd_per_hour * nodes, 1)
        return (
            f"{pay} commits to ${total:,.0f} over its term, of which this run uses {nodes * hours:,.1f} machine-hours: "
            "only for those who hold it anyway"
        )
    if pay == "spot":
        band = f"{price.spot_interruption} of them a month" if price.spot_interruption else "how often is not known"
        return (
            f"spot machines can be taken away at two minutes' notice ({band}); what is done again after a checkpoint "
            "is not counted"
        )
    if pay == CAPACITY_BLOCK:
        dated = f"price of {block.as_of}" + (f", {block.note}" if block.note else "") if block else ""
        return f"Capacity Blocks are paid up front by whole days and start at a fixed time ({dated})"
    return ""


def _pay(name: str) -> Pay:
    from sizing.hardware.types import PAYS

    for pay in PAYS:
        if pay == name:
            return pay
    raise ValueError(f"unknown way of paying {name}")
