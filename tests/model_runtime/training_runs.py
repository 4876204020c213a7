"""Runs for the tests of fine-tuning: a small real task, and processes copied from one, so that torch is loaded once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.training.launch import Nodes
from model_runtime.training.metrics import FILE, read_metrics
from model_runtime.training.outcome import Outcome, write_outcome
from model_runtime.training.plan import RunPlan, plan_of, planned_settings
from model_runtime.training.settings import FinetuneSettings

WORDS = ("ship", "harbour", "dawn", "tide", "customer", "refund", "agent", "garden", "house", "berth", "week", "night")


def pig_latin(word: str) -> str:
    head = next((i for i, c in enumerate(word) if c in "aeiou"), 0)
    return f"{word[head:]}{word[:head]}ay"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(path: Path, count: int = 40, seed: int = 0) -> Path:
    """`input`: a few English words, `target`: the same in pig-latin."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        words = [draw.choice(WORDS) for _ in range(1 + i % 3)]
        rows.append({"input": f"{' '.join(words)} {i}", "target": " ".join(pig_latin(w) for w in words)})
    return write_rows(path, rows)


def settings(folder: Path, model: Path, data: Path, **rest: Any) -> FinetuneSettings:
    given: dict[str, Any] = {
        "model": str(model), "data": str(data), "output": str(folder), "device": "cpu", "epochs": 2.0,
        "micro_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3, "preflight": False, "test_share": 0.0,
    }  # fmt: skip
    return FinetuneSettings(**{**given, **rest})


def train(chosen: FinetuneSettings, *, preflight: bool = False) -> Outcome:
    """The run in this process."""
    from model_runtime.training.run import work

    Path(chosen.output).mkdir(parents=True, exist_ok=True)
    plan = plan_of(chosen)
    chosen, _ = planned_settings(chosen, plan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of torch, transformers and accelerate about each other
        return work(chosen, plan, preflight=preflight)


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(folder / FILE) if line["kind"] == "train"}


# Processes are copies of a server that has loaded the libraries and done nothing: torch is loaded once, and none is a
# copy of a process in which autograd has run, whose threads would be missing (torch refuses to go on in such a copy).
_COPIES = multiprocessing.get_context("forkserver")
_COPIES.set_forkserver_preload(["model_runtime.training.run", "transformers.trainer_seq2seq", "accelerate", "peft"])


def _work(environment: dict[str, str], chosen: FinetuneSettings, plan: RunPlan | None, preflight: bool) -> None:
    """The run in a process of its own, with the tests' `environment`; its words are kept from the terminal."""
    from model_runtime.training.run import work

    os.environ.clear()
    os.environ.update(environment)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if plan is None:
        train(chosen, preflight=preflight)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work(chosen, plan, preflight=preflight)
        except ModelError as error:
            write_outcome(Path(chosen.output), Outcome("refused", str(error)))


def begin(chosen: FinetuneSettings, plan: RunPlan | None = None, *, preflight: bool = False) -> BaseProcess:
    process = _COPIES.Process(target=_work, args=(dict(os.environ), chosen, plan, preflight))
    process.start()
    return process


def copied(chosen: FinetuneSettings, plan: RunPlan, nodes: Nodes, preflight: bool) -> None:
    """A `Start` for the launcher: one process."""
    process = begin(chosen, plan, preflight=preflight)
    process.join(120)
    assert process.exitcode is not None, "the process did not end"


def signal_at(chosen: FinetuneSettings, step: int, number: int = signal.SIGKILL) -> None:
    """Begin (or go on with) the run and signal its process once it has logged `step`; wait for its end."""
    folder = Path(chosen.output)
    process = begin(chosen)
    until = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < until:
        there = losses(folder) if (folder / FILE).is_file() else {}
        if there and max(there) >= step:
            break
        time.sleep(0.002)
    assert process.is_alive(), f"the run ended before its step {step}"
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode is not None, "the process did not end"
