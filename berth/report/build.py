"""From documents to a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berth.report.blocks import Fact, Facts, Report, Section, Source
from berth.report.commands import command_of
from berth.report.documents import KINDS, Document
from berth.report.gpus import gpu_of, same_gpu, short_gpu
from berth.report.sections import (
    cost,
    machine,
    measured,
    memory,
    model,
    need,
    operation,
    quality,
    risks,
    run,
    teardown,
    training,
)
from berth.report.sections.measured import machine_name
from berth.report.text import likely, number, pay_name, usd

_SECTIONS = (
    need, model, memory, machine, cost, training, run, measured, quality, operation, risks, teardown,
)  # fmt: skip
_LACKS = {
    "assess": "whether a language model is needed at all",
    "size": "machine and cost of serving",
    "training": "the cost of the fine-tune",
    "preview": "the bill of the stack",
    "measurement": "anything measured",
    "evaluation": "metrics of base and fine-tuned answers",
    "review": "answers judged by eye",
    "metrics": "what the stack did in operation",
    "feedback": "what its users said",
}
_HEADLINE = ("accuracy", "rouge_l")
"""The metric that stands on top; without any of them the first."""


def build(documents: Mapping[str, Document], title: str = "") -> Report:
    """The report of `documents` (kind -> document, as `documents.gather` returns them)."""
    sections: list[Section] = [made for part in _SECTIONS if (made := part.section(documents)) is not None]
    found = model.of(documents)
    return Report(
        title or (f"{found[0]['name']}: can it do the job, and at what cost?" if found else "Berth report"),
        tuple(tentative(documents)),
        Facts(tuple(_glance(documents))),
        tuple(sections),
        tuple(Source(kind, d.path, command_of(d), _dated(d.content)) for kind, d in documents.items()),
        tuple(f"{lacks}: {KINDS[kind]}" for kind, lacks in _LACKS.items() if kind not in documents),
    )


def _dated(content: Mapping[str, Any]) -> str:
    return str(content.get("measured_at") or content.get("made_at") or "")


def tentative(documents: Mapping[str, Document]) -> list[str]:
    """Why the report's figures are estimates still; empty where the planned kind of machine has been measured."""
    if "measurement" not in documents:
        return ["nothing has been measured: every speed and size is an estimate until `berth verify` has run"]
    content = documents["measurement"].content
    planned = _planned_gpu(documents)
    if stack := content.get("stack"):
        if stack.get("stand_in"):
            return [f"a stand-in at {stack['address']} was measured in the sandbox, not the machine planned"]
        if stack["instance_type"] == _planned_type(documents):
            return []
        return [f"the measurement is of {stack['instance_type']}, not of the machine planned"]
    if content["machine"] is None:
        return [f"the measurement is of {content['target']} from outside: which machine answered is not known"]
    if planned is None:
        return ["no file says on which machine it is to run, so that what was measured may be another"]
    gpus = content["machine"]["gpus"]
    seen = short_gpu(gpus[0]["name"], gpus[0]["memory_bytes"]) if gpus else ""
    if not (bool(planned) == bool(seen) and same_gpu(planned, seen)):
        wanted = planned or "no GPU"
        return [f"the measurement is of another machine ({machine_name(content)}) than the one planned ({wanted})"]
    return []


def _planned_gpu(documents: Mapping[str, Document]) -> str | None:
    """The GPU that serving is planned on, empty for none; None where no file has a plan."""
    choice = documents["size"].content["choice"] if "size" in documents else None
    if choice is not None:
        return (gpu_of(choice["instance_type"]) or str(choice["gpu"] or "")) if choice["gpus"] else ""
    planned = _planned_type(documents)
    return gpu_of(planned) if planned else None


def _planned_type(documents: Mapping[str, Document]) -> str:
    """The instance type that serving is planned on; empty where no file has a plan."""
    choice = documents["size"].content["choice"] if "size" in documents else None
    if choice is not None:
        return str(choice["instance_type"])
    return str(documents["preview"].content["settings"].get("instance_type") or "") if "preview" in documents else ""


def _glance(documents: Mapping[str, Document]) -> list[Fact]:
    facts = []
    if "assess" in documents:
        verdict = documents["assess"].content["verdict"]
        facts.append(Fact("A language model is", need.VERDICTS.get(verdict, verdict), "assess"))
    found = model.of(documents)
    if found is not None:
        facts.append(Fact("Model", found[0]["name"], found[1], found[0]["licence"] or "licence not known"))
    if "size" in documents:
        content = documents["size"].content
        choice, costs = content["choice"], content["costs"]
        if choice is None:
            facts.append(Fact("Machine", "none fits", "size"))
        else:
            facts.append(Fact("Machine", f"{choice['hosts']} × {choice['instance_type']}", "size", choice["region"]))
            if "preview" not in documents:
                facts.append(Fact("A month", usd(choice["usd_per_month"]), "size", pay_name(choice["pay"])))
            line = costs["by_pay"].get(choice["pay"]) if costs else None
            if line and line["usd_per_1000_requests"] is not None:
                basis = costs["per_request_basis"] or ""
                facts.append(Fact("1,000 requests", usd(line["usd_per_1000_requests"]), "size", basis))
        speed = (content["throughput"] or {}).get("speed") if choice is not None else None
        if speed and tentative(documents):
            answer = likely(speed["latency_s"], " s")
            facts.append(Fact("An answer takes, as estimated", answer, "size", f"batch of {speed['batch']}"))
    if "preview" in documents:
        content = documents["preview"].content
        bill, worst = content["bill"], content["bill"]["worst_case"]
        if content["role"] == "training":
            facts.append(Fact("At worst", usd(worst["usd"]), "preview", f"the stack {content['stack']}, to its expiry"))
        else:
            facts.append(Fact("A month", usd(bill["usd_per_month"]), "preview", f"the stack {content['stack']}"))
    plan = documents["training"].content["plan"] if "training" in documents else None
    if plan is not None:
        facts.append(Fact("A fine-tune", usd(plan["usd"]["likely"]), "training", plan["instance_type"]))
    if "measurement" in documents:
        content = documents["measurement"].content
        best = next((s for s in content["sweep"] if s["concurrency"] == content["best_concurrency"]), None)
        if best is not None and best["latency_s_p90"] is not None:
            latency = f"{best['latency_s_p90']['median']:.3g} s"
            clients = f"{best['concurrency']} clients"
            note = f"{clients}; not shown to be the machine planned" if tentative(documents) else clients
            facts.append(Fact("9 of 10 answers within", latency, "measurement", note))
    if "evaluation" in documents and documents["evaluation"].content["metrics"]:
        metrics = {m["metric"]: m for m in documents["evaluation"].content["metrics"]}
        first = next((metrics[name] for name in _HEADLINE if name in metrics), next(iter(metrics.values())))
        sides = [first[side]["value"] for side in ("base", "model") if first[side] is not None]
        shown = [number(value) for value in sides if value is not None]
        if shown:
            note = "base → fine-tuned" if len(shown) > 1 else ""
            facts.append(Fact(first["metric"], " → ".join(shown), "evaluation", note))
    if "review" in documents:
        content = documents["review"].content
        share = content["answers"]["tuned"]["correct"]["share"]
        if share is not None:
            facts.append(Fact("Correct by eye", f"{share:.0%}", "review", f"fine-tuned; {content['sample']}"))
    return facts
