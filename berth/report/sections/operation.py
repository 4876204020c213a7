"""In operation: what was asked, how it was answered, what it cost, and what its users said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Bars, Block, Fact, Facts, Items, Section
from berth.report.documents import Document
from berth.report.text import number, usd
from sizing.units import gib

UNKNOWN = "unknown"


def section(documents: Mapping[str, Document]) -> Section | None:
    blocks: list[Block] = []
    if "metrics" in documents:
        blocks += _metrics(documents["metrics"].content)
    if "feedback" in documents:
        blocks += _feedback(documents["feedback"].content)
    return Section("operation", "In operation", tuple(blocks)) if blocks else None


def _metrics(content: dict[str, Any]) -> list[Block]:
    seen, cost, advice = content["observed"], content["cost"], content["advice"]
    wish = content["latency_wish_s"]
    facts = [
        Fact(
            "Requests",
            _shown(seen["requests"]),
            "metrics",
            f"{_when(content['since'])} to {_when(content['until'])} UTC",
        ),
        Fact("Half answered within", _seconds(seen["latency"]["p50_s"]), "metrics"),
        Fact("19 of 20 within", _seconds(seen["latency"]["p95_s"]), "metrics", f"{wish:g} s wished" if wish else ""),
        Fact("Errors", _shown(seen["errors"]), "metrics", f"the server's: {_shown(seen['server_errors'])}"),
        Fact("GPU use", _percent(seen["gpu_percent"]), "metrics", f"at most {_percent(seen['gpu_percent_most'])}"),
        Fact("GPU memory at most", _memory(seen), "metrics"),
        Fact(
            "1,000 requests cost",
            UNKNOWN if cost["usd_per_1000_requests"] is None else usd(cost["usd_per_1000_requests"]),
            "metrics",
            _planned(cost),
        ),
    ]
    blocks: list[Block] = [Facts(tuple(facts))]
    said = list(advice["reasons"])
    if advice["kind"] in ("cheaper", "larger"):
        month = "" if advice["usd_per_month"] is None else f", {usd(advice['usd_per_month'])} a month"
        what = "A cheaper choice" if advice["kind"] == "cheaper" else "Too small; better"
        said.insert(0, f"{what} for the work that was seen: {advice['hosts']} × {advice['instance_type']}{month}")
    blocks.append(Items((*said, *content["notes"]), "metrics", "The machine, after what was seen"))
    return blocks


def _feedback(content: dict[str, Any]) -> list[Block]:
    rated, learn = content["ratings"], content["training"]
    facts = [
        Fact("Feedback", f"{content['records']:,}", "feedback", f"since {_when(content['since'])} UTC"),
        Fact("Mean rating", UNKNOWN if rated["mean"] is None else f"{rated['mean']:.1f} of 5", "feedback"),
        Fact("Corrections", f"{content['corrections']:,}", "feedback", f"{content['comments']:,} comments"),
        Fact("To learn from", f"{learn['rows']:,}", "feedback", "corrected, or rated good by all"),
    ]
    blocks: list[Block] = [Facts(tuple(facts))]
    best_first = sorted(rated["counts"].items(), reverse=True)
    counts = tuple((f"{rating} of 5", float(n), f"{n:,}") for rating, n in best_first)
    if any(n for _, n, _ in counts):
        blocks.append(Bars("Ratings", counts, "feedback"))
    return blocks


def _when(moment: str) -> str:
    """An ISO moment in UTC to the minute."""
    return moment[:16].replace("T", " ")


def _planned(cost: dict[str, Any]) -> str:
    if cost["planned_usd_per_1000_requests"] is not None:
        return f"planned: {usd(cost['planned_usd_per_1000_requests'])}"
    return cost["unknown_because"] or ""


def _shown(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f} %"


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{number(value)} s"


def _memory(seen: dict[str, Any]) -> str:
    if seen["gpu_memory_bytes"] is not None:
        return gib(int(seen["gpu_memory_bytes"]))
    return _percent(seen["gpu_memory_percent"])
