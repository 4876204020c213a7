"""A tiny model of every architecture learns a small real task by the product's own run: unseen rows are right."""

from __future__ import annotations

import datetime
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_runtime.evaluate import Options, evaluate
from model_runtime.load import LoadOptions
from model_runtime.parameters import Sampling
from model_runtime.tiny import build
from model_runtime.training.launch import run
from tests.model_runtime import training_runs as runs

Rows = list[dict[str, Any]]
SEED = 0


def dates() -> Rows:
    """Dates as people write them -> ISO 8601; months in words, days and years in digits that must be copied."""
    draw = random.Random(SEED)
    seen: dict[str, str] = {}
    while len(seen) < 2000:
        day = datetime.date(1970, 1, 1) + datetime.timedelta(days=draw.randrange(25_000))
        written = draw.choice(("%d %B %Y", "%B %d, %Y", "%d.%m.%Y", "%m/%d/%Y", "%b %d %Y"))
        seen[day.strftime(written)] = day.isoformat()
    return [{"input": text, "target": iso} for text, iso in seen.items()]


def sentences() -> list[str]:
    draw = random.Random(SEED)
    seen: set[str] = set()
    while len(seen) < 1400:
        seen.add(" ".join(draw.choice(runs.WORDS) for _ in range(draw.randint(1, 3))))
    return sorted(seen)


def pig_latin() -> Rows:
    return [{"input": f"{s}:", "target": " ".join(runs.pig_latin(word) for word in s.split())} for s in sentences()]


def first_words() -> Rows:
    return [{"text": s, "label": s.split()[0]} for s in sentences()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "task", "epochs", "metric"),
    [
        ("t5", dates, 20.0, "exact_match"),
        ("llama", pig_latin, 26.0, "exact_match"),
        ("bert", first_words, 8.0, "accuracy"),
    ],
)
def test_a_tiny_model_learns_a_real_task(
    tmp_path: Path, kind: str, task: Callable[[], Rows], epochs: float, metric: str
) -> None:
    model = build(kind, tmp_path / "m", hidden_size=64, layers=2, t5_embedding_std=1.0)
    if kind == "t5":  # two layers that see every example a few times need no dropout, and learn in half the steps
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "dropout_rate": 0.0}))
    data = runs.write_rows(tmp_path / "d.jsonl", task())
    chosen = runs.settings(
        tmp_path / "run", model, data, test_share=0.1, micro_batch_size=16, learning_rate=3e-3, epochs=epochs,
        logging_steps=100, evaluations=4, seed=SEED, preflight=True,
    )  # fmt: skip
    started = time.monotonic()
    outcome = run(chosen, say=print)
    assert outcome.kind == "done", outcome
    options = Options(base="none", sampling=Sampling(max_new_tokens=40), load=LoadOptions(device="cpu"))
    report = evaluate(outcome.message, tmp_path / "e", options)
    right = {m["metric"]: m["model"]["value"] for m in report["metrics"]}[metric]
    print(f"{kind}: {right:.1%} of {report['examples']} in {time.monotonic() - started:.0f} s")
    assert report["examples"] >= 100
    assert right >= 0.95
