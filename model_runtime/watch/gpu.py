"""How busy the GPUs are, by nvidia-smi."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model_runtime.watch.command import run

QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
Busy = Callable[[], "float | None"]
"""Percent of the busiest GPU; None where it is not known."""


def parse(text: str) -> float | None:
    """The busiest GPU of nvidia-smi's lines; None where a line is no number (`[N/A]`, `[Unknown Error]`)."""
    try:
        found = [float(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        return None
    return max(found) if found else None


def nvidia_smi(command: Sequence[str] = QUERY, timeout_s: float = 5.0) -> Busy:
    """Reads nvidia-smi; a GPU that has fallen off its bus hangs it, which counts as not known."""

    def busy() -> float | None:
        ran = run(command, timeout_s)
        return parse(ran.out) if ran.well else None

    return busy
