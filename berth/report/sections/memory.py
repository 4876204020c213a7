"""The memory picture: terms against the GPU, and the machine's own memory while it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Block, Fact, Facts, Section, StackedBar, Table, Text
from berth.report.documents import Document
from sizing.units import GIB, gib


def gpu_memory(instance_type: str) -> tuple[str, int] | None:
    """(GPU, usable bytes of one) of an instance type of the catalogue; None where it has none or is not known."""
    from sizing.hardware.load import load_hardware

    machine = load_hardware().instances.get(instance_type)
    return None if machine is None or machine.gpu is None else (machine.gpu.name, machine.gpu.memory_bytes)


def section(documents: Mapping[str, Document]) -> Section | None:
    source = next((kind for kind in ("size", "memory") if kind in documents), None)
    if source is None:
        return None
    content = documents[source].content
    memory = content["memory"] if source == "size" else content
    choice = content.get("choice")
    held = content.get("instance")
    gpu = gpu_memory(choice["instance_type"]) if choice else None
    if held and held["gpu_memory_bytes"]:
        gpu = (held["gpu"], held["gpu_memory_bytes"])
    device = memory["device"]
    purpose = content.get("for", "inference")
    shown = f"{choice['dtype']}, {choice['batch']} at once on {choice['gpu']}" if choice else ""
    if source == "memory" and purpose == "inference":
        shown = f"{content['setup']['dtype']}, batch {content['setup']['batch']}"
    blocks: list[Block] = [
        StackedBar(
            f"One GPU's memory in {purpose}" + (f" ({shown})" if shown else ""),
            tuple((t["name"], t["bytes"]) for t in device["terms"]),
            source,
            device["low_bytes"],
            device["high_bytes"],
            gpu[1] if gpu else None,
            f"{gpu[0]}, {gib(gpu[1])}" if gpu else "",
        ),
        _table(device["terms"], source, "Where the GPU's memory goes"),
    ]
    if gpu and device["high_bytes"] > gpu[1]:
        blocks.append(
            Text(
                f"If every uncertain term turns out large, {gib(device['high_bytes'])} are needed and "
                f"{gib(gpu[1])} are there: measure before relying on it.",
                source,
            )
        )
    rule, host = memory["rule_of_thumb"], memory["host"]
    facts = [
        Fact(
            "Machine's own memory while loading",
            gib(host["total_bytes"]),
            source,
            f"{gib(host['low_bytes'])} to {gib(host['high_bytes'])}"
            + (f"; {choice['instance_type']} has {choice['memory_gib']:g} GiB" if choice else ""),
        ),
        Fact(
            "Rule of thumb",
            gib(rule["total_bytes"]),
            source,
            f"parameters × {rule['bytes_per_param']:g} bytes × {rule['overhead']:g}",
        ),
    ]
    blocks.append(Facts(tuple(facts)))
    return Section("memory", "Memory", tuple(blocks))


def _table(terms: list[dict[str, Any]], source: str, caption: str) -> Table:
    rows = []
    for term in terms:
        fixed = term["low_bytes"] == term["bytes"] == term["high_bytes"]
        spread = "" if fixed else f"{term['low_bytes'] / GIB:.2f} to {term['high_bytes'] / GIB:.2f}"
        rows.append((term["name"], f"{term['bytes'] / GIB:,.2f}", spread, term["formula"]))
    return Table(("Term", "GiB", "Range", "How"), tuple(rows), source, caption, (1, 2), detail=True)
