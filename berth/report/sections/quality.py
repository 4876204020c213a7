"""Quality: base against fine-tuned, by metric and by eye."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Bars, Block, Fact, Facts, Items, Section, Table
from berth.report.documents import Document
from berth.report.text import number


def value_of(entry: Any) -> float | None:
    """The number of a metric, which stands alone or as `value` beside its interval."""
    return entry.get("value") if isinstance(entry, Mapping) else entry


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "evaluation" in documents:
        metrics = documents["evaluation"].content["metrics"]
        base, tuned = metrics.get("base") or {}, metrics.get("tuned") or {}
        rows = []
        for name in dict.fromkeys((*base, *tuned)):
            before, after = value_of(base.get(name)), value_of(tuned.get(name))
            change = "–" if before is None or after is None else f"{after - before:+.3g}"
            rows.append((name, *("–" if v is None else number(v) for v in (before, after)), change))
        caption = "Metrics on the test set"
        blocks.append(Table(("Metric", "Base", "Fine-tuned", "Change"), tuple(rows), "evaluation", caption, (1, 2, 3)))
    if "review" in documents:
        blocks += _review(documents["review"].content)
    return Section("quality", "Quality, base against fine-tuned", tuple(blocks)) if blocks else None


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
    for answer in ("base", "tuned"):
        found = summary["answers"][answer]
        if not found["judged"]:
            continue
        share = found["correct"]
        shown = "–" if share["share"] is None else f"{share['share']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
        counts = (f"{found['labels'][label]}" for label in found["labels"])
        rows.append(("fine-tuned" if answer == "tuned" else "base", f"{found['judged']}", shown, *counts))
    if rows:
        labels = tuple(summary["answers"]["tuned"]["labels"])
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
