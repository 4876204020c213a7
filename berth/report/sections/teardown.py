"""How to take it down, and what keeps costing."""

from __future__ import annotations

from collections.abc import Mapping

from berth.report.blocks import Block, Commands, Items, Section
from berth.report.documents import Document


def section(documents: Mapping[str, Document]) -> Section | None:
    from berth.cli import COMMANDS

    kind = next((k for k in ("preview", "size", "training") if k in documents), None)
    if kind is None:
        return None
    stack = documents["preview"].content["stack"] if "preview" in documents else "STACK"
    if "down" in COMMANDS:
        steps: tuple[tuple[str, str], ...] = ((f"berth down {stack}", "removes everything that the stack created"),)
    else:
        steps = ((f"pulumi destroy --stack {stack}", "removes everything that the stack created"),)
    blocks: list[Block] = [Commands((*steps, (f"pulumi stack rm {stack}", "then forgets the stack itself")))]
    said = []
    if "preview" in documents:
        ends = documents["preview"].content["expires_at"]
        said.append(
            f"The stack ends by itself at {ends}."
            if ends
            else "The stack has no end of its own (time_to_live is off): it costs until it is taken down."
        )
    pays = [content["choice"]["pay"] for content in [documents["size"].content] if content["choice"]] if (
        "size" in documents
    ) else []  # fmt: skip
    if any(pay.startswith(("reserved", "savings")) for pay in pays):
        said.append("A reservation or savings plan is paid to the end of its term, with or without the machine.")
    if "training" in documents and documents["training"].content["wishes"]["pay"] == "capacity-block":
        said.append("A capacity block is paid up front and cannot be given back.")
    if said:
        blocks.append(Items(tuple(said), kind))
    return Section("teardown", "How to take it down", tuple(blocks))
