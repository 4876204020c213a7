"""Quality: base against fine-tuned, by metric and by eye."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Bars, Block, Fact, Facts, Items, Section, Table
from berth.report.documents import Document
from berth.report.text import number
from berth.review.summary import labels_used

_SIDES = (("base", "Base"), ("model", "Fine-tuned"))


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "evaluation" in documents:
        blocks += _metrics(documents["evaluation"].content)
    if "review" in documents:
        blocks += _review(documents["review"].content)
    return Section("quality", "Quality, base against fine-tuned", tuple(blocks)) if blocks else None


def _metrics(content: dict[str, Any]) -> list[Block]:
    """Metrics with their intervals, and how many answers bear signs that a person should read them."""
    level = f"{content['bootstrap']['level_percent']:g} % intervals"
    rows = tuple(
        (
            m["metric"],
            *(_interval(m[side]) for side in ("base", "model")),
            _interval(m["difference"]),
            m["verdict"] or "",
        )
        for m in content["metrics"]
    )
    facts = [
        Fact("Evaluated", content["model"], "evaluation", f"beside {content['base']}" if content["base"] else ""),
        Fact("Examples", f"{content['examples']:,}", "evaluation", f"of the {content['part']} part"),
    ]
    blocks: list[Block] = [
        Facts(tuple(facts)),
        Table(
            ("Metric", "Base", "Fine-tuned", "Difference", "So"),
            rows,
            "evaluation",
            f"Metrics on the test set ({level})",
            (1, 2, 3),
        ),
    ]
    if content["signs"]:
        sides = [(name, content["signs"][side]) for side, name in _SIDES if side in content["signs"]]
        names = ("repetitive", "cut", "novel_numbers")
        said = ("repeat themselves", "cut at the limit", "numbers that the input lacks")
        signs = tuple(
            (label, *(f"{found[f'{name}_percent']:g} %" for _, found in sides))
            for name, label in zip(names, said, strict=True)
        )
        columns = ("Answers with", *(name for name, _ in sides))
        right = tuple(range(1, len(columns)))
        blocks.append(Table(columns, signs, "evaluation", "Signs that an answer should be read", right))
    return blocks


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "–"
    if found["low"] is None or found["high"] is None:
        return number(found["value"])
    return f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"


def _review(summary: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [
        Facts(
            (
                Fact("Answers read", f"{summary['rows_judged']:,} of {summary['rows']:,}", "review", summary["sample"]),
                Fact("Reviewers", f"{len(summary['reviewers'])}", "review", ", ".join(summary["reviewers"])),
            )
        )
    ]
    rows = []
    labels = labels_used(summary["answers"])
    for answer in ("base", "tuned"):
        found = summary["answers"][answer]
        if not found["judged"]:
            continue
        share = found["correct"]
        shown = "–" if share["share"] is None else f"{share['share']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
        counts = (f"{found['labels'][label]}" for label in labels)
        rows.append(("fine-tuned" if answer == "tuned" else "base", f"{found['judged']}", shown, *counts))
    if rows:
        columns = ("Answers of", "Judged", "Correct (95 %)", *labels)
        blocks.append(
            Table(columns, tuple(rows), "review", "By eye; a tie between reviewers is disputed",
                  tuple(range(1, len(columns))))
        )  # fmt: skip
    preference = summary["preference"]
    if sum(preference.values()):
        names = {"base": "base preferred", "tuned": "fine-tuned preferred", "tie": "no difference"}
        blocks.append(
            Bars("Side by side, names hidden", tuple((names[k], n, f"{n}") for k, n in preference.items()), "review")
        )
    agree = summary["agreement"]
    if agree:
        blocks.append(
            Table(
                ("Reviewers", "Both judged", "Agree", "Cohen's κ"),
                tuple(
                    (
                        " and ".join(pair["reviewers"]),
                        f"{pair['items']}",
                        f"{pair['observed']:.0%}",
                        "not defined" if pair["kappa"] is None else f"{pair['kappa']:.2f}",
                    )
                    for pair in agree
                ),
                "review",
                "Agreement between reviewers",
                (1, 2, 3),
            )
        )
    if summary["notes"]:
        blocks.append(Items(tuple(summary["notes"]), "review"))
    return blocks
