"""A choice as one JSON document: what `berth size --json` prints and later stages read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sizing.choosing.serving import load_of
from sizing.cost import costs_of
from sizing.hardware.load import Hardware

if TYPE_CHECKING:
    from sizing.choose import Choice
    from sizing.measured.outcome import Outcome


def document(choice: Choice, hardware: Hardware, outcome: Outcome | None = None) -> dict[str, Any]:
    """The keys are the same whether something was chosen or not: `choice`, `throughput`, `costs` and `sagemaker` are
    null where nothing fits, `refused` says why, and `memory` is then that of the largest GPU's dtype. `measured` is
    null where no measurement was given, `leaner_loading` where no other way of loading opens a cheaper machine."""
    chosen, model, wishes = choice.chosen, choice.model, choice.wishes
    costs = costs_of(choice) if chosen is not None else None
    return {
        "model": {
            "name": model.name,
            "params": model.params,
            "active_params": model.active_params,
            "architecture": model.architecture,
            "context_window": model.context_window,
            "licence": model.licence,
            "licence_verdict": model.licence_verdict,
        },
        "workload": choice.workload.to_json(),
        "wishes": {
            "dtype": wishes.dtype,
            "region": wishes.region,
            "pay": wishes.pay,
            "max_monthly_usd": wishes.max_monthly_usd,
            "max_gpus": wishes.max_gpus,
            "loading": wishes.loading,
            "engine": wishes.engine,
        },
        "choice": None if chosen is None else chosen.to_json(),
        "leaner_loading": None if choice.leaner is None else choice.leaner.to_json(),
        "refused": [r.to_json() for r in choice.refused],
        "memory": choice.memory.to_json(),
        "throughput": _throughput(choice),
        "measured": None if outcome is None else outcome.to_json(),
        "costs": None if costs is None else costs.to_json(),
        "sagemaker": None if costs is None else costs.sagemaker.to_json(),
        "catalogue": {
            "kind": hardware.origin.kind,
            "refreshed_at": hardware.origin.refreshed_at or None,
        },
        "notes": list(choice.notes),
    }


def _throughput(choice: Choice) -> dict[str, Any] | None:
    chosen = choice.chosen
    if chosen is None:
        return None
    load = load_of(choice.workload)
    return {
        "engine": choice.wishes.engine,
        "speed": None if chosen.speed is None else chosen.speed.to_json(),
        "largest_batch_speed": None if chosen.bulk is None else chosen.bulk.to_json(),
        "unknown_because": chosen.serving.speed_gap or None,
        "hosts": chosen.serving.hosts,
        "requests_per_s_per_host": chosen.serving.requests_per_s_per_host,
        "peak_requests_per_s": None if load is None else load.peak_per_s,
    }
