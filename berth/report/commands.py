"""The command line that printed a document, put together again from what it says it was asked."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from berth.report.documents import KINDS, Document


def command_of(document: Document) -> str:
    """The command that makes this document again. Options at their default are left out; where a document does not say
    what it was asked, the general form of the command stands."""
    if document.command:
        return document.command
    make = _MAKERS.get(document.kind)
    if make is not None:
        return make(document.content)
    return str(document.content.get("command") or KINDS[document.kind])


def _line(*words: str, **options: Any) -> str:
    parts = [*words]
    for name, value in options.items():
        if value not in (None, ""):
            shown = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
            parts += [f"--{name.replace('_', '-')}", shown.removesuffix(".0")]
    return " ".join(["berth", *map(shlex.quote, parts), "--json"])


def _other_than(default: Any, value: Any) -> Any:
    return None if value == default else value


def _assess(content: dict[str, Any]) -> str:
    from sizing.need.questions import BY_KEY

    given = {}
    for key, value in content["answers"].items():
        if value not in (None, "", [], "unknown", "not-tried") and key in BY_KEY:
            given[BY_KEY[key].flag.removeprefix("--")] = ",".join(value) if isinstance(value, list) else value
    return _line("assess", **given)


def _size(content: dict[str, Any]) -> str:
    load, wishes = content["workload"], content["wishes"]
    by_rate = load["requests_per_day"] is not None
    return _line(
        "size",
        content["model"]["name"],
        task=load["task"],
        input_tokens=load["input_tokens"],
        output_tokens=load["output_tokens"],
        batch=None if by_rate else load["batch"],
        requests_per_day=load["requests_per_day"],
        latency=load["latency_s"],
        peak_factor=_other_than(3.0, load["peak_factor"]),
        hours_per_day=_other_than(24.0, load["hours_per_day"]),
        dtype=_other_than("auto", wishes["dtype"]),
        region=wishes["region"],
        pay=_other_than("on-demand", wishes["pay"]),
        max_monthly=wishes["max_monthly_usd"],
        max_gpus=_other_than(1, wishes["max_gpus"]),
        loading=_other_than("plain", wishes["loading"]),
        engine=_other_than("transformers", wishes["engine"]),
    )


def _training(content: dict[str, Any]) -> str:
    """Lengths that were assumed are left out: given, they would be no assumption."""
    task, wishes = content["task"], content["wishes"]
    assumed = any("assumption: --input-tokens" in note for note in content["notes"])
    return _line(
        "size",
        content["model"]["name"],
        **{"for": "training", "data": task["examples"]},
        input_tokens=None if assumed else task["input_tokens"],
        output_tokens=None if assumed else task["output_tokens"] or None,
        epochs=_other_than(1.0, task["epochs"]),
        global_batch=_other_than(64, task["global_batch"]),
        region=wishes["region"],
        pay=_other_than("on-demand", wishes["pay"]),
        max_hours=wishes["max_hours"],
        max_usd=wishes["max_usd"],
        instance_type=wishes["instance_type"],
    )


def _memory(content: dict[str, Any]) -> str:
    """Of a training estimate the purpose alone is put in: its set-up's names are not those of the options."""
    if content["for"] != "inference":
        return _line("memory", content["model"], **{"for": content["for"]})
    setup, instance = content["setup"], content["instance"]
    return _line(
        "memory",
        content["model"],
        dtype=setup["dtype"],
        batch=_other_than(1, setup["batch"]),
        input_tokens=setup["input_tokens"],
        output_tokens=setup["output_tokens"],
        tensor_parallel=_other_than(1, setup["tensor_parallel"]),
        engine=_other_than("transformers", setup["engine"]),
        attention=_other_than("sdpa", setup["attention"]),
        loading=_other_than("plain", setup["loading"]),
        instance=instance["instance_type"] if instance else None,
    )


def _preview(content: dict[str, Any]) -> str:
    return _line("preview", content["stack"])


def _evaluation(content: dict[str, Any]) -> str:
    base = content["base"] or "none"
    return _line("evaluate", content["model"], "--out", "FOLDER", base=base, part=_other_than("test", content["part"]))


def _review(content: dict[str, Any]) -> str:
    return _line("review", "summary", content["predictions"], judgements=content["judgements"])


def _metrics(content: dict[str, Any]) -> str:
    return _line("metrics", content["stack"], since=content["since"])


def _feedback(content: dict[str, Any]) -> str:
    return _line("feedback", content["stack"], since=content["since"])


_MAKERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "assess": _assess,
    "size": _size,
    "training": _training,
    "memory": _memory,
    "preview": _preview,
    "evaluation": _evaluation,
    "review": _review,
    "metrics": _metrics,
    "feedback": _feedback,
}
