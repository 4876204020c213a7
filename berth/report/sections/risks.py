"""Risks, assumptions and the dates of the prices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from berth.report.blocks import Block, Items, Section, Table
from berth.report.documents import Document
from berth.report.sections.model import of as model_of
from berth.report.text import pay_name


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    found = model_of(documents)
    if found is not None and found[0]["licence_verdict"] != "business-friendly":
        model, kind = found
        verdict = model["licence_verdict"] or "not known"
        said = f"The licence ({model['licence'] or 'not known'}) is {verdict}: have it read before anything is built."
        blocks.append(Items((said,), kind, "Licence"))
    if "evaluation" not in documents and "review" not in documents:
        said = "No answer has been judged yet: the model may still turn out not to do the task well enough."
        source = found[1] if found else next(iter(documents))
        blocks.append(Items((said,), source, "Quality"))
    for kind, title in (("size", "Serving"), ("training", "Fine-tuning"), ("memory", "Memory")):
        content = documents[kind].content if kind in documents else {}
        notes = content.get("notes") or content.get("device", {}).get("notes") or []
        if notes:
            blocks.append(Items(tuple(dict.fromkeys(notes)), kind, title))
    if "preview" in documents:
        content = documents["preview"].content
        said_by = [f"{v['rule']}: {v['message']}" for v in content["violations"]]
        warned = (*content["warnings"], *said_by)
        if warned:
            blocks.append(Items(warned, "preview", "The stack"))
    blocks += _dates(documents)
    return Section("risks", "Risks, assumptions, dates of the prices", tuple(blocks)) if blocks else None


def _dates(documents: Mapping[str, Document]) -> list[Block]:
    """One table for each source of prices: what is priced, as of when."""
    blocks: list[Block] = []
    for kind in ("size", "training", "preview"):
        dates: dict[str, list[str]] = defaultdict(list)
        content = documents[kind].content if kind in documents else {}
        for pay, line in ((content.get("costs") or {}).get("by_pay") or {}).items():
            dates[line["as_of"] or "undated"].append(pay_name(pay))
        sagemaker = content.get("sagemaker")
        if sagemaker and sagemaker["usd_per_month"] is not None:
            dates[sagemaker["as_of"] or "undated"].append("SageMaker endpoint")
        for line in (content.get("bill") or {}).get("lines", []):
            if line["status"] == "priced":
                dates[line["as_of"] or "undated"].append(line["item"])
        if dates:
            rows = tuple((day, "; ".join(dict.fromkeys(what))) for day, what in sorted(dates.items()))
            caption = {"size": "Serving", "training": "Fine-tuning", "preview": "The stack"}[kind]
            origin = content.get("catalogue")
            if origin:
                refreshed = f", refreshed {origin['refreshed_at']}" if origin["refreshed_at"] else ""
                caption += f" (catalogue: {origin['kind']}{refreshed})"
            blocks.append(Table(("Prices of", "What"), rows, kind, caption))
    return blocks
