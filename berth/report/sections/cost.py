"""What serving costs, by way of paying, with SageMaker beside it, and the bill of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Bars, Block, Fact, Facts, Items, Section, Table
from berth.report.documents import Document
from berth.report.text import UNPRICED, pay_name, usd


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "size" in documents and documents["size"].content["costs"] is not None:
        blocks += _machines(documents["size"].content)
    if "preview" in documents:
        blocks += _bill(documents["preview"].content)
    return Section("cost", "What it costs", tuple(blocks)) if blocks else None


def _machines(content: dict[str, Any]) -> list[Block]:
    costs, sagemaker = content["costs"], content["sagemaker"]
    bars: list[tuple[str, float | None, str]] = []
    rows = []
    for pay, line in costs["by_pay"].items():
        bars.append((pay_name(pay), line["usd_per_month"], usd(line["usd_per_month"])))
        rows.append(
            (
                pay_name(pay),
                usd(line["usd_per_month"]),
                usd(line["usd_per_year"]),
                usd(line["usd_per_1000_requests"]),
                line["as_of"] or "undated",
                line["note"] or "",
            )
        )
    for pay in costs["unpriced"]:
        rows.append((pay_name(pay), UNPRICED, UNPRICED, UNPRICED, "", ""))
    if sagemaker is not None:
        month, each = sagemaker["usd_per_month"], sagemaker["usd_per_1000_requests"]
        dearer = sagemaker["difference_percent"]
        note = sagemaker["note"] or ("" if dearer is None else f"{dearer:+g} % beside EC2 on demand")
        label = f"SageMaker ({sagemaker['instance_type']})"
        bars.append((label, month, usd(month)))
        rows.append(
            (label, usd(month), usd(sagemaker["usd_per_year"]), usd(each), sagemaker["as_of"] or "undated", note)
        )
    hosts = costs["hosts"]
    about = f"{hosts} machine{'' if hosts == 1 else 's'}, {costs['hours_per_day']:.3g} hours a day"
    blocks: list[Block] = [
        Bars(f"US dollars a month ({about})", tuple(bars), "size"),
        Table(
            ("Way of paying", "A month", "A year", "Per 1,000 requests", "Price of", "Note"),
            tuple(rows),
            "size",
            f"Machines only: {about}"
            + (f"; requests: {costs['per_request_basis']}" if costs["per_request_basis"] else ""),
            (1, 2, 3),
        ),
    ]
    above = costs["reserved_1y_pays_above_hours_per_day"]
    if above is not None:
        blocks.append(Facts((Fact("One year reserved pays above", f"{above:g} hours a day", "size"),)))
    rare = costs["rare_use"]
    if rare:
        blocks.append(
            Table(
                ("Way of running", "A month", "Wait before an answer, s", "Note"),
                tuple(
                    (w["name"], usd(w["usd_per_month"]), f"{w['delay_s']['likely']:,.0f}", w["note"])
                    for w in rare["ways"]
                ),
                "size",
                "If it is used rarely or in bursts",
                (1, 2),
                detail=True,
            )
        )
    return blocks


def _bill(content: dict[str, Any]) -> list[Block]:
    bill = content["bill"]
    until = bill["worst_case"]["until"]
    facts = [
        Fact(f"The whole stack {content['stack']}, a month", usd(bill["usd_per_month"]), "preview"),
        Fact(
            "At worst",
            usd(bill["worst_case"]["usd"]),
            "preview",
            f"until {until}" if until else "running all of a month",
        ),
    ]
    schedule = content["settings"].get("schedule")
    if schedule:
        facts.append(Fact("The stack runs", schedule, "preview", "berth size counts the hours a day that it was told"))
    if bill["budget_per_month"] is not None:
        facts.append(Fact("Budget a month", usd(bill["budget_per_month"]), "preview"))
    if bill["budget_per_run"] is not None:
        facts.append(Fact("Budget of a run", usd(bill["budget_per_run"]), "preview"))
    blocks: list[Block] = [Facts(tuple(facts))]
    priced = [line for line in bill["lines"] if line["status"] == "priced"]
    if priced:
        blocks.append(
            Table(
                ("Item", "A month", "Price of", "Note"),
                tuple(
                    (x["item"], usd(x["usd_per_month"]), x["as_of"] or "undated", x["note"] or "")
                    for x in sorted(priced, key=lambda x: -(x["usd_per_month"] or 0))
                ),
                "preview",
                f"The bill of {content['stack']}, everything it consists of",
                (1,),
                detail=True,
            )
        )
    if bill["unpriced"]:
        blocks.append(Items(tuple(map(str, bill["unpriced"])), "preview", "In the stack and unpriced"))
    if bill["depends_on_usage"]:
        blocks.append(Items(tuple(bill["depends_on_usage"]), "preview", "Comes on top, by use"))
    return blocks
