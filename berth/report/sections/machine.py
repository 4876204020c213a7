"""The machine, and why not the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from berth.report.blocks import Block, Fact, Facts, Section, Table, Text
from berth.report.documents import Document
from berth.report.text import likely, pay_name, usd

NEAREST = 6
"""Refused machines that are listed one by one; the rest are counted by reason."""


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "size" in documents:
        content = documents["size"].content
        choice = content["choice"]
        if choice is None:
            blocks.append(Text("No machine keeps every wish; the table says what each lacks.", "size"))
        else:
            gpus = f"{choice['gpus']:g} × {choice['gpu']}" if choice["gpu"] else "no GPU"
            facts = [
                Fact("Machine", choice["instance_type"], "size", f"{gpus}, {choice['memory_gib']:g} GiB of memory"),
                Fact("Region", choice["region"], "size"),
                Fact("Machines", f"{choice['hosts']}", "size"),
                Fact("Paid", pay_name(choice["pay"]), "size", f"{usd(choice['usd_per_hour'])} an hour each"),
                Fact("Number format", choice["dtype"], "size"),
                Fact("Largest batch that fits, as estimated", f"{choice['max_batch']:,}", "size"),
            ]
            speed = (content["throughput"] or {}).get("speed")
            if speed:
                answer = likely(speed["latency_s"], " s")
                facts.append(Fact("An answer takes, as estimated", answer, "size", f"batch of {speed['batch']}"))
            blocks.append(Facts(tuple(facts)))
        blocks += _refused(content["refused"])
    elif "preview" in documents:
        settings = documents["preview"].content["settings"]
        if settings.get("instance_type"):
            blocks.append(Facts((Fact("Machine", settings["instance_type"], "preview"),)))
    return Section("machine", "Machine, and why not the others", tuple(blocks)) if blocks else None


def _refused(refused: list[dict[str, str]]) -> list[Block]:
    rows = tuple((r["instance_type"], r["reason"]) for r in refused[:NEAREST])
    blocks: list[Block] = []
    if rows:
        blocks.append(Table(("Machine", "Why not"), rows, "size", "The nearest of the others"))
    rest = Counter(reason_kind(r["reason"]) for r in refused[NEAREST:])
    if rest:
        kinds = tuple((kind, f"{n}") for kind, n in rest.most_common())
        blocks.append(Table(("Reason", "Machines"), kinds, "size", "The rest, by reason", (1,), detail=True))
    return blocks


def reason_kind(reason: str) -> str:
    """The kind of a refusal, without its numbers and names: `GPU memory`, `costs more` …"""
    head = reason.partition(":")[0]
    if head.endswith("GPU memory"):
        return "GPU memory"
    head = re.sub(r"^\d+ GPUs, ", "more GPUs than asked for: ", head)
    return re.sub(r"^\S+ is an AWS Neuron device.*", "an AWS Neuron device", head)
