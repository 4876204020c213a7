"""What is asked of a service: token counts, a batch or a load, the latency wished, the hours of a day it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sizing.errors import UserError
from sizing.models.facts import ModelFacts

TASK_TOKENS: dict[str, tuple[int, int]] = {
    "summarization": (1024, 128),
    "translation": (256, 256),
    "qa": (512, 64),
    "classification": (256, 4),
    "sentiment": (128, 2),
    "chat": (1024, 256),
    "code": (512, 256),
}
"""Input and output tokens taken for a task when none are given: Berth's assumption, to be replaced by one's own counts.
A page of English is about 500 words, 670 tokens (3/4 of a word a token)."""
ANY_TASK_TOKENS = (512, 128)
PEAK_FACTOR = 3.0
"""Busiest hour over the mean of the hours served, when none is given: Berth's assumption. Measure your own."""
_LARGEST = {
    "requests-per-day": 1e10,
    "latency": 86_400.0,
    "hours-per-day": 24.0,
    "peak-factor": 1_000.0,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Token counts are per request. Either a `batch` is served, or `requests_per_day` arrive."""

    input_tokens: int = ANY_TASK_TOKENS[0]
    output_tokens: int = ANY_TASK_TOKENS[1]
    batch: int = 1
    requests_per_day: float | None = None
    latency_s: float | None = None
    """Seconds within which 9 of 10 requests of the busiest hour must be answered whole."""
    hours_per_day: float = 24.0
    """Hours of a day in which the service runs (and requests arrive)."""
    peak_factor: float = PEAK_FACTOR
    task: str = ""

    def __post_init__(self) -> None:
        for name, least in (("input_tokens", 1), ("output_tokens", 0), ("batch", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name.replace('_', '-')} is {value}; it must be a whole number of at least {least}")
        for name, largest in _LARGEST.items():
            field = "latency_s" if name == "latency" else name.replace("-", "_")
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and 0 < value <= largest):
                raise UserError(f"{name} is {value:g}; it must be above 0 and at most {largest:,.0f}")
        if self.peak_factor < 1:
            raise UserError(
                f"peak-factor is {self.peak_factor:g}; the busiest hour cannot be below the mean: at least 1"
            )

    @property
    def requests_per_month(self) -> float | None:
        return None if self.requests_per_day is None else self.requests_per_day * 365.0 / 12.0

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task or None,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "batch": self.batch if self.requests_per_day is None else None,
            "requests_per_day": self.requests_per_day,
            "latency_s": self.latency_s,
            "hours_per_day": self.hours_per_day,
            "peak_factor": self.peak_factor if self.requests_per_day is not None else None,
        }


def default_tokens(model: ModelFacts, task: str, given_input: int | None, given_output: int | None) -> tuple[int, int]:
    """Input and output tokens: those given, else the task's, cut to the model's context window.

    Raises `UserError` where output is asked of a model that writes none.
    """
    if given_output and not model.generates:
        raise UserError(
            f"output-tokens is {given_output:,}, but {model.name} is {model.architecture}: it reads a text and writes "
            "none; leave --output-tokens out"
        )
    task_input, task_output = TASK_TOKENS.get(task, ANY_TASK_TOKENS)
    output = given_output if given_output is not None else (task_output if model.generates else 0)
    if given_input is not None:
        return given_input, output
    window = model.context_window
    if window is None:
        return task_input, output
    room = window - output if model.encoder is None else window
    return max(1, min(task_input, room)), output


def check_context(model: ModelFacts, workload: Workload) -> str:
    """Empty, or a warning that the request goes beyond what the model was trained on.

    Raises `UserError` where the model cannot run it at all: learned or sinusoidal positions end with the window.
    """
    window = model.context_window
    if window is None:
        return ""
    if not model.generates:
        asked, what = workload.input_tokens, "input tokens"
    elif model.encoder is None:
        asked, what = workload.input_tokens + workload.output_tokens, "input and output tokens together"
    else:
        asked, what = max(workload.input_tokens, workload.output_tokens), "tokens in one direction"
    if asked <= window:
        return ""
    if model.main.position in ("learned", "sinusoidal"):
        raise UserError(
            f"{model.name} reads at most {window:,} tokens; {asked:,} {what} were asked for; "
            "shorten --input-tokens or pick a model with a longer context (`berth models --min-context`)"
        )
    return (
        f"{asked:,} {what} go beyond the {window:,} that the model was trained on; "
        "it runs, but do not rely on its quality"
    )
