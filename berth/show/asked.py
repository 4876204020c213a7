"""From the flags of `berth size` to a model and a workload."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sizing.errors import UserError, unknown

if TYPE_CHECKING:
    from sizing.choosing.wishes import Wishes
    from sizing.hardware.load import Hardware
    from sizing.models.facts import ModelFacts
    from sizing.workload import Workload

_NEXT_LARGER = 3
_TRIED = 20
"""A larger model is hardly ever faster, cheaper or smaller in memory than twenty that failed before it."""


def check_purpose(purpose: str) -> None:
    """Raise `UserError` for what `PurposeOption` does not allow."""
    if purpose not in ("inference", "training"):
        raise unknown("purpose", purpose, ("inference", "training"), hint="allowed: --for inference, --for training")


def asked_workload(
    model: ModelFacts,
    task: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
    batch: int | None,
    requests_per_day: float | None,
    latency: float | None,
    peak_factor: float | None,
    hours_per_day: float,
) -> Workload:
    """The `Workload` that the flags describe; token counts not given are the task's usual ones."""
    from sizing.models.tasks import task_named
    from sizing.workload import PEAK_FACTOR, Workload, default_tokens

    if batch is not None and requests_per_day is not None:
        raise UserError("give either --batch or --requests-per-day: a load decides the batch itself")
    if peak_factor is not None and requests_per_day is None:
        raise UserError("--peak-factor says how uneven a load is; it needs --requests-per-day")
    name = "" if task is None else task_named(task).name
    given_input, given_output = default_tokens(model, name, input_tokens, output_tokens)
    return Workload(
        input_tokens=given_input,
        output_tokens=given_output,
        batch=1 if batch is None else batch,
        requests_per_day=requests_per_day,
        latency_s=latency,
        hours_per_day=hours_per_day,
        peak_factor=PEAK_FACTOR if peak_factor is None else peak_factor,
        task=name,
    )


def asked_model(
    name: str | None,
    task: str | None,
    workload_of: Callable[[ModelFacts], Workload],
    hardware: Hardware,
    wishes: Wishes,
) -> tuple[ModelFacts, str]:
    """The model named, or the smallest that suits the task and fits a machine; and what to say of the pick."""
    from berth.hub import find_model
    from sizing.models.tasks import suited, task_named

    wanted = None if task is None else task_named(task).name
    if name is None:
        if wanted is None:
            raise UserError("which model? Name one (`berth models` lists them), or give --task for the smallest suited")
        return _pick(wanted, workload_of, hardware, wishes)
    model = find_model(name)
    if wanted is None:
        return model, ""
    suits, why = suited(model, wanted)
    if not suits:
        raise UserError(f"{why}; `berth models --task {wanted}` lists those made for it")
    return model, "" if wanted in model.tasks else why


def _pick(
    task: str, workload_of: Callable[[ModelFacts], Workload], hardware: Hardware, wishes: Wishes
) -> tuple[ModelFacts, str]:
    """The smallest business-friendly catalogue model for `task` that some machine serves as asked."""
    from sizing.choose import choose
    from sizing.models.catalogue import load_catalogue

    catalogue = load_catalogue()
    suited = sorted(
        (
            e
            for e in catalogue.entries.values()
            if e.deployable and e.verdict == "business-friendly" and task in e.tasks
        ),
        key=lambda e: (e.params, e.name),
    )
    for index, entry in enumerate(suited[:_TRIED]):
        model = catalogue[entry.name]
        if choose(model, workload_of(model), hardware, wishes).chosen is not None:
            larger = [e.name for e in suited[index + 1 : index + 1 + _NEXT_LARGER]]
            then = f"; if it does not do: {', '.join(larger)}" if larger else ""
            return (
                model,
                f"picked as the smallest business-friendly model for {task} that a machine serves as asked{then}",
            )
    raise UserError(
        f"none of the {min(len(suited), _TRIED)} smallest business-friendly models for {task} is served as asked; "
        "loosen --latency, --max-monthly or --max-gpus, or name a model"
    )
