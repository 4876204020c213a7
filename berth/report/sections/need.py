"""The use-case and whether a language model is needed."""

from __future__ import annotations

from collections.abc import Mapping

from berth.report.blocks import Block, Fact, Facts, Items, Section, Text
from berth.report.documents import Document
from sizing.units import whole

VERDICTS = {
    "not-language": "not a task for a language model",
    "rule": "a rule will do",
    "managed-service": "a managed service will do",
    "smaller-model": "a smaller model will do",
    "smaller-model-first": "try a smaller model first",
    "not-yet": "not yet",
    "llm": "worth trying",
}
"""A verdict in a manager's words."""


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "assess" in documents:
        found = documents["assess"].content
        blocks.append(Text(found["summary"], "assess"))
        for title, decides in (("Because", True), ("And", False)):
            says = tuple(r["says"] for r in found["reasons"] if r["decides"] is decides)
            if says:
                blocks.append(Items(says, "assess", title))
    if "size" in documents:
        load = documents["size"].content["workload"]
        facts = [Fact("Task", load["task"] or "not said", "size")]
        facts.append(Fact("Tokens of a request", f"{load['input_tokens']:,} in, {load['output_tokens']:,} out", "size"))
        if load["requests_per_day"] is not None:
            facts.append(Fact("Requests a day", whole(load["requests_per_day"]), "size"))
        if load["batch"] is not None:
            facts.append(Fact("Requests at once", f"{load['batch']:,}", "size"))
        if load["latency_s"] is not None:
            facts.append(Fact("An answer within", f"{load['latency_s']:g} s", "size"))
        facts.append(Fact("Runs", f"{load['hours_per_day']:.3g} hours a day", "size"))
        blocks.append(Facts(tuple(facts)))
    return Section("need", "Use-case and need", tuple(blocks)) if blocks else None
