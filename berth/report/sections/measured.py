"""What `berth verify` measured: latency, throughput, largest batch, and the estimate beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Block, Curve, Curves, Fact, Facts, Items, Section, Table, Text
from berth.report.documents import Document
from berth.report.text import number, percent, seconds
from sizing.units import GIB, MIB


def machine_name(content: Mapping[str, Any]) -> str:
    """The machine of a measurement in words; what stands behind a URL is not known."""
    machine = content["machine"]
    if machine is None:
        return f"not known: {content['target']} was measured from outside"
    gpus = machine["gpus"]
    if not gpus:
        return f"{machine['cpu']}, {machine['cores']} cores, no GPU"
    return f"{len(gpus)} × {gpus[0]['name']}"


def section(documents: Mapping[str, Document]) -> Section | None:
    if "measurement" not in documents:
        return None
    content = documents["measurement"].content
    model, largest = content["model"], content["largest_batch"]
    facts = [
        Fact("Measured on", machine_name(content), "measurement", content["measured_at"]),
        Fact("Measured", model["name"] if model else content["target"], "measurement", model["dtype"] if model else ""),
        Fact("Prompts", f"{content['workload']['prompts']}", "measurement", _workload(content["workload"])),
    ]
    if largest is not None:
        facts.append(Fact("Largest batch", f"{largest['batch']:,}", "measurement", largest["why"]))
    start = content["start_up"]
    if start is not None:
        facts.append(Fact("From start to first token", *_start(start)))
    blocks: list[Block] = [Facts(tuple(facts)), *_curves(content["sweep"]), _sweep(content["sweep"])]
    arrivals = content["open_loop"]
    if arrivals["latency_s"]:
        latency = arrivals["latency_s"]
        said = f"p50 {latency['p50']:.3g} s, p90 {latency['p90']:.3g} s, p99 {latency['p99']:.3g} s"
        rate = f"{arrivals['rate_per_s']:.3g} requests a second at random times"
        blocks.append(Facts((Fact("Under arrivals", said, "measurement", rate),)))
    blocks += _beside(documents)
    if content["verdicts"]:
        blocks.append(Items(tuple(content["verdicts"]), "measurement", "So"))
    return Section("measured", "Measured", tuple(blocks))


def _start(start: Mapping[str, Any]) -> tuple[str, str, str]:
    """The whole of a start, where it stands, and how often it was measured (once, before measurements held more)."""
    if "total_s" not in start:
        once = sum(value for value in start.values() if value is not None)
        return f"{once:.3g} s", "measurement", "a fresh process"
    whole, times = start["total_s"], len(start["starts"])
    apart = f"{times} fresh processes: {whole['min']:.3g} to {whole['max']:.3g} s" if times > 1 else "a fresh process"
    return f"{whole['median']:.3g} s", "measurement", apart


def _workload(workload: Mapping[str, Any]) -> str:
    made = "made up by verify, not the team's own" if workload["source"] == "made" else f"from {workload['source']}"
    return f"{made}; {workload['output_tokens']} tokens an answer"


def _curves(sweep: list[dict[str, Any]]) -> list[Block]:
    def points(key: str) -> tuple[tuple[float, float], ...]:
        return tuple((step["concurrency"], step[key]["median"]) for step in sweep if step[key] is not None)

    latency = [Curve(name, points(f"latency_s_{name}")) for name in ("p50", "p90", "p99")]
    return [
        Curves("Seconds to a whole answer", "clients at once", "s", tuple(latency), "measurement"),
        Curves(
            "Tokens a second, all clients together",
            "clients at once",
            "tokens/s",
            (Curve("output tokens/s", points("output_tokens_per_s")),),
            "measurement",
        ),
    ]


def _sweep(sweep: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (
            f"{step['concurrency']}",
            number(step["output_tokens_per_s"]["median"]),
            f"±{step['output_tokens_per_s']['relative'] / 2:.0%}",
            number(step["requests_per_s"]["median"]),
            *(seconds(step[f"latency_s_{p}"]) for p in ("p50", "p90", "p99")),
            seconds(step["first_token_s_p50"]),
            f"{step['failed']}",
        )
        for step in sweep
    )
    columns = ("Clients", "Tokens/s", "Spread", "Requests/s", "p50 s", "p90 s", "p99 s", "First token s", "Failed")
    caption = "Latency and throughput, median of the runs"
    return Table(columns, rows, "measurement", caption, tuple(range(len(columns))), detail=True)


def _beside(documents: Mapping[str, Document]) -> list[Block]:
    """The estimate beside the measurement: memory term by term, and speed where sizing promised one."""
    content = documents["measurement"].content
    memory = content["memory"]
    blocks: list[Block] = []
    if memory is not None:
        large = max((term["measured_bytes"] for term in memory["terms"]), default=0) >= GIB
        unit, scale = ("GiB", GIB) if large else ("MiB", MIB)
        rows = tuple(
            (
                term["name"],
                f"{term['measured_bytes'] / scale:,.3f}",
                "–" if term["estimated_bytes"] is None else f"{term['estimated_bytes'] / scale:,.3f}",
                "–" if term["difference"] is None else percent(term["difference"]),
            )
            for term in memory["terms"]
        )
        caption = f"Memory at batch {memory['batch']}, {unit} ({memory['metric']})"
        blocks.append(Table(("Term", "Measured", "Estimated", "Difference"), rows, "measurement", caption, (1, 2, 3)))
        if content["machine"] and not content["machine"]["gpus"]:
            blocks.append(Text("On a CPU the peak is a bound and no check of the estimate.", "measurement"))
    speed = documents["size"].content["throughput"] if "size" in documents else None
    speed = speed and speed["speed"]
    if speed and content["machine"] and content["machine"]["gpus"]:
        step = next((s for s in content["sweep"] if s["concurrency"] == speed["batch"]), None)
        if step is not None:
            rows = (
                (
                    "Seconds to an answer",
                    seconds(step["latency_s_p50"]),
                    f"{speed['latency_s']['likely']:.3g}",
                    f"{speed['latency_s']['low']:.3g} to {speed['latency_s']['high']:.3g}",
                ),
                (
                    "Output tokens a second",
                    number(step["output_tokens_per_s"]["median"]),
                    number(speed["output_tokens_per_s"]["likely"]),
                    f"{number(speed['output_tokens_per_s']['low'])} to {number(speed['output_tokens_per_s']['high'])}",
                ),
            )
            caption = f"Speed at {speed['batch']} at once; the token counts of both must be alike to compare"
            blocks.append(Table(("", "Measured", "Estimated", "Range"), rows, "measurement", caption, (1, 2, 3)))
    return blocks
