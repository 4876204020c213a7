"""How the fine-tune went."""

from __future__ import annotations

from collections.abc import Mapping

from berth.report.blocks import Block, Curve, Curves, Fact, Facts, Section
from berth.report.documents import Document
from berth.report.text import number
from sizing.units import things


def section(documents: Mapping[str, Document]) -> Section | None:
    if "run" not in documents:
        return None
    content = documents["run"].content
    plan, result, parts = content["plan"], content["result"], content["data"]["parts"]
    machines = "" if plan["nodes"] == 1 else f" on {plan['nodes']} machines"
    facts = [
        Fact("Trained", content["base"]["model"], "run", content["finished_at"]),
        Fact("Method", content["method"], "run", content["precision"]),
        Fact("Examples", f"{parts.get('train', 0):,}", "run", _aside(parts)),
        Fact("Processes", f"{plan['processes']}{machines}", "run", f"{plan['global_batch']} examples a step"),
        Fact("Steps", f"{result['steps']:,}", "run", things(float(result["epochs"]), "epoch")),
    ]
    for label, key in (("Last loss", "last_loss"), ("Best validation loss", "best_validation_loss")):
        if result[key] is not None:
            facts.append(Fact(label, number(result[key]), "run"))
    blocks: list[Block] = [Facts(tuple(facts))]
    curves = tuple(
        Curve(label, tuple((float(step), float(loss)) for step, loss in content.get("curve", {}).get(key, ())))
        for label, key in (("Training", "train"), ("Validation", "validation"))
    )
    if curves := tuple(curve for curve in curves if len(curve.points) > 1):
        blocks.append(Curves("Loss", "step", "cross entropy", curves, "run"))
    return Section("run", "How the fine-tune went", tuple(blocks))


def _aside(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in parts.items() if name != "train")
