"""A training plan as one JSON document: what `berth size --for training --json` prints and later stages read."""

from __future__ import annotations

from typing import Any

from sizing.hardware.load import Hardware
from sizing.training_plan.configuration import configuration
from sizing.training_plan.costs import cost_lines
from sizing.training_plan.plan import Plan, TrainingPlan


def document(found: TrainingPlan, hardware: Hardware) -> dict[str, Any]:
    """The keys are the same whether a plan was found or not: `plan`, `memory`, `configuration` and `costs` are null
    where nothing keeps the limits, and `refused` says why."""
    plan, model = found.recommended, found.model
    return {
        "model": {
            "name": model.name,
            "params": model.params,
            "architecture": model.architecture,
            "context_window": model.context_window,
            "licence": model.licence,
            "licence_verdict": model.licence_verdict,
        },
        "task": found.task.to_json(),
        "wishes": found.wishes.to_json(),
        "plan": None if plan is None else plan.to_json(),
        "front": [p.summary() | {"within_limits": p.within(found.wishes)} for p in found.front],
        "by_method": {
            method: {"plan": None, "why_not": best}
            if isinstance(best, str)
            else {"plan": best.summary(), "why_not": None}
            for method, best in found.by_method.items()
        },
        "several_gpus": None if found.several_gpus is None else found.several_gpus.summary(),
        "refused": [r.to_json() for r in found.refused],
        "memory": None if plan is None else plan.memory.to_json(),
        "configuration": None if plan is None else configuration(model, found.task, plan),
        "costs": None if plan is None else costs_json(plan, hardware),
        "catalogue": {"kind": hardware.origin.kind, "refreshed_at": hardware.origin.refreshed_at or None},
        "notes": list(found.notes),
    }


def costs_json(plan: Plan, hardware: Hardware) -> dict[str, Any]:
    lines = cost_lines(plan, hardware)
    return {
        "currency": "USD",
        "of": "machines only: storage, data transfer and taxes come on top",
        "by_pay": {line.pay: line.to_json() for line in lines if line.usd is not None},
        "unpriced": [line.pay for line in lines if line.usd is None],
    }
