"""The report as Markdown: the same blocks, charts as the tables that they show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from berth.report.blocks import Bars, Block, Commands, Curves, Facts, Items, Report, StackedBar, Table, Text
from sizing.units import gib


def plain(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would read as markup."""
    one = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", one).replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def _code(text: str) -> str:
    one = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", one)), default=0) + 1)
    pad = " " if one.startswith("`") or one.endswith("`") else ""
    return f"{fence}{pad}{one}{pad}{fence}"


def render(report: Report) -> str:
    """The page as CommonMark with GitHub's tables."""
    lines = [f"# {plain(report.title)}", ""]
    if report.tentative:
        lines += [f"> **Tentative.** {plain('; '.join(report.tentative))}.", ""]
    lines += _block(report.glance)
    for section in report.sections:
        lines += [f"## {plain(section.title)}", ""]
        for block in section.blocks:
            lines += _block(block)
    lines += ["## Where the numbers come from", ""]
    for source in report.sources:
        dated = f", {plain(source.dated)}" if source.dated else ""
        lines.append(f"- **{source.kind}**: {_code(source.command)} ({plain(source.path)}{dated})")
    if report.missing:
        lines += ["", "### Not in this report", "", *(f"- {plain(what)}" for what in report.missing)]
    return "\n".join(lines).rstrip() + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    marks = ["---:" if index in right else "---" for index in range(len(columns))]
    cells = [[plain(cell) or " " for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return [head, "| " + " | ".join(marks) + " |", *body, ""]


def _block(block: Block) -> list[str]:
    if isinstance(block, Facts):
        rows = [(f.label, f"{f.value} ({f.note})" if f.note else f.value, f.source) for f in block.facts]
        return _table(("", "", "from"), rows)
    if isinstance(block, Text):
        return [f"{plain(block.text)} ({block.source})", ""]
    if isinstance(block, Items):
        title = [f"### {plain(block.title)} ({block.source})", ""] if block.title else []
        return [*title, *(f"- {plain(item)}" for item in block.items), ""]
    if isinstance(block, Commands):
        return [*(f"{i}. {_code(c)}: {plain(does)}" for i, (c, does) in enumerate(block.steps, 1)), ""]
    if isinstance(block, Table):
        return [f"**{plain(block.caption)}** ({block.source})", "", *_table(block.columns, block.rows, block.right)]
    if isinstance(block, StackedBar):
        total = sum(size for _, size in block.parts)
        there = f" of {plain(block.capacity_label)}" if block.capacity is not None else ""
        spread = f"{gib(block.low)} to {gib(block.high)}"
        return [f"**{plain(block.title)}**: {gib(total)}{there}, range {spread} ({block.source})", ""]
    if isinstance(block, Bars):
        bars = [(label, words) for label, _, words in block.bars]
        return [f"**{plain(block.title)}** ({block.source})", "", *_table(("", ""), bars, (1,))]
    assert isinstance(block, Curves)  # noqa: S101 (the last of the union)
    return []  # the table of the sweep beside it has the same numbers
