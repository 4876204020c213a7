"""What the fine-tune is and costs."""

from __future__ import annotations

from collections.abc import Mapping

from berth.report.blocks import Bars, Block, Fact, Facts, Section, Table, Text
from berth.report.documents import Document
from berth.report.text import UNPRICED, likely, pay_name, usd
from sizing.units import gib, whole


def section(documents: Mapping[str, Document]) -> Section | None:
    if "training" not in documents:
        return None
    content = documents["training"].content
    plan, task = content["plan"], content["task"]
    examples = Fact("Examples", whole(task["examples"]), "training", _times(task["epochs"]))
    if plan is None:
        return Section(
            "training",
            "Fine-tuning",
            (
                Facts((examples,)),
                Text("No way of fine-tuning keeps every limit.", "training"),
                Table(
                    ("Machine", "Why not"),
                    tuple((r["instance_type"], r["reason"]) for r in content["refused"][:6]),
                    "training",
                    "The nearest",
                ),
            ),
        )
    usd_range = plan["usd"]
    machines = f"{plan['nodes']} × {plan['instance_type']}" if plan["nodes"] > 1 else plan["instance_type"]
    blocks: list[Block] = [
        Facts(
            (
                examples,
                Fact("Method", plan["method"], "training", f"{plan['precision']}, {plan['optimizer']}"),
                Fact("Machine", machines, "training", f"{plan['gpus']:g} × {plan['gpu']} each"),
                Fact("Takes", likely(plan["hours"], " h"), "training", "start of the machine included"),
                Fact(
                    "A run costs",
                    usd(usd_range["likely"]),
                    "training",
                    f"{usd(usd_range['low'])} to {usd(usd_range['high'])}, {pay_name(plan['pay'])}",
                ),
                Fact(
                    "GPU memory",
                    gib(plan["gpu_memory_bytes"]),
                    "training",
                    f"{plan['gpu_memory_free_share']:.0%} of it free",
                ),
            )
        )
    ]
    costs = content["costs"]
    if costs is not None:
        lines = list(costs["by_pay"].values())
        blocks.append(
            Bars("A run, US dollars", tuple((pay_name(x["pay"]), x["usd"], usd(x["usd"])) for x in lines), "training")
        )
        rows = [(pay_name(x["pay"]), usd(x["usd"]), x["as_of"] or "undated", x["note"] or "") for x in lines]
        rows += [(pay_name(pay), UNPRICED, "", "") for pay in costs["unpriced"]]
        blocks.append(
            Table(
                ("Way of paying", "A run", "Price of", "Note"),
                tuple(rows),
                "training",
                f"By way of paying ({costs['of']})",
                (1,),
                detail=True,
            )
        )
    rows_of = []
    for method, found in content["by_method"].items():
        best = found["plan"]
        if best is None:
            rows_of.append((method, "–", "–", "–", found["why_not"]))
        else:
            rows_of.append(
                (method, best["instance_type"], f"{best['hours']['likely']:.3g}", usd(best["usd"]["likely"]), "")
            )
    blocks.append(
        Table(
            ("Method", "Machine", "Hours", "A run", "Why not"),
            tuple(rows_of),
            "training",
            "The cheapest of each method",
            (2, 3),
            detail=True,
        )
    )
    return Section("training", "Fine-tuning", tuple(blocks))


def _times(epochs: float) -> str:
    return "once over" if epochs == 1 else f"{epochs:g} times over"
