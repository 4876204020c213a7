"""What a plan costs under every way of paying, beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sizing.hardware.load import Hardware
from sizing.hardware.types import PAYS
from sizing.training_plan.plan import Plan
from sizing.training_plan.pricing import pay_note, rates_of
from sizing.training_plan.task import CAPACITY_BLOCK


@dataclass(frozen=True, slots=True)
class CostLine:
    """One way of paying in US dollars; `usd_per_hour` of all machines, None where unpriced."""

    pay: str
    usd_per_hour: float | None
    usd: float | None
    as_of: str
    note: str

    def to_json(self) -> dict[str, Any]:
        return {
            "pay": self.pay,
            "usd_per_hour": None if self.usd_per_hour is None else round(self.usd_per_hour, 6),
            "usd": None if self.usd is None else round(self.usd, 2),
            "as_of": self.as_of or None,
            "note": self.note or None,
        }


def cost_lines(plan: Plan, hardware: Hardware) -> tuple[CostLine, ...]:
    """A line for each way of paying and for SageMaker training; unpriced ones say so."""
    lines = []
    for pay in (*PAYS, CAPACITY_BLOCK):
        rates = rates_of(hardware, plan.instance.name, (plan.region,), (pay,))
        if not rates:
            lines.append(CostLine(pay, None, None, "", "unpriced"))
            continue
        rate = rates[0]
        note = pay_note(pay, rate.usd_per_hour, plan.nodes, plan.price, plan.hours, rate.block)
        dated = rate.block.as_of if rate.block else _dated(plan, pay)
        lines.append(CostLine(pay, plan.nodes * rate.usd_per_hour, rate.run_usd(plan.hours, plan.nodes), dated, note))
    sagemaker = plan.price.sagemaker_training
    if sagemaker is None:
        lines.append(CostLine("sagemaker-training", None, None, "", "unpriced"))
    else:
        usd = plan.nodes * sagemaker
        note = plan.price.terms.get("sagemaker_training", "")
        lines.append(CostLine("sagemaker-training", usd, usd * plan.hours, plan.price.as_of.get("sagemaker", ""), note))
    return tuple(lines)


def _dated(plan: Plan, pay: str) -> str:
    group = {"on-demand": "on_demand", "spot": "spot"}.get(pay, "reserved" if "reserved" in pay else "savings_plan")
    return plan.price.as_of.get(group, "undated")
