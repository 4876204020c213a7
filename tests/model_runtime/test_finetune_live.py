"""What a run tells while it goes: the formulas of its figures, CloudWatch's lines, tensorboard's files, the curve."""

from __future__ import annotations

import json
import struct
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.errors import ModelError
from model_runtime.training import metrics
from model_runtime.training.metrics import FILE, Log, Meter, cloudwatch, loss_curve, read_metrics
from model_runtime.training.run import check_tensorboard
from tests.model_runtime import training_runs as runs

positive = st.floats(1e-3, 1e6)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(folder: Path, clock: Clock, **of: Any) -> tuple[Log, list[dict[str, float]]]:
    emitted: list[dict[str, float]] = []
    given_of = {"processes": 1, "usd_per_hour": 0.0, "peak": None, **of}
    log = Log(folder, say=lambda _: None, emit=emitted.append, clock=clock, started=clock(), **given_of)
    log.begin(0)
    return log, emitted


@given(
    seconds=st.floats(0.01, 1e5), processes=st.integers(1, 64), tokens=st.integers(1, 10**9), flops=st.floats(1, 1e18),
    usd=positive, peak=st.floats(1e9, 1e16), steps=st.integers(1, 50), more=st.integers(1, 1000),
)  # fmt: skip
def test_rate_mfu_dollars_and_time_left_are_what_they_are_called(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, processes: int, tokens: int, flops: float, usd: float,
    peak: float, steps: int, more: int,
) -> None:  # fmt: skip
    """Tokens of all processes a second; one process's operations ÷ (time × its peak), Chowdhery et al. 2022; money by
    the hour; the remaining steps at the pace of the last."""
    folder, clock = tmp_path_factory.mktemp("log"), Clock()
    log, emitted = told(folder, clock, processes=processes, usd_per_hour=usd, peak=peak)
    clock.now += seconds
    meter = Meter(tokens=tokens, flops=flops)
    log.train(steps, steps + more, {"loss": 1.0, "learning_rate": 0.1}, meter, 7)
    line = read_metrics(folder / FILE)[-1]
    assert line["tokens_per_s"] == pytest.approx(tokens * processes / seconds, rel=1e-4, abs=0.051)
    assert line["mfu"] == pytest.approx(flops / (seconds * peak), rel=1e-4, abs=5.1e-5)
    assert line["usd"] == pytest.approx(usd * seconds / 3600, rel=1e-4, abs=5.1e-5)
    assert line["left_s"] == pytest.approx(more * seconds / steps, rel=1e-4, abs=0.051)
    assert line["step_s"] == pytest.approx(seconds / steps, rel=1e-4, abs=5.1e-5)
    assert emitted[-1]["Mfu"] == pytest.approx(100 * flops / (seconds * peak), rel=1e-6)


def test_a_rate_is_of_the_steps_since_the_last_line_without_the_time_of_an_evaluation(tmp_path: Path) -> None:
    clock = Clock()
    log, _ = told(tmp_path, clock)
    clock.now += 10
    log.train(5, 20, {"loss": 1.0, "learning_rate": 0.1}, Meter(tokens=1000), 7)
    clock.now += 500
    log.evaluation(5, 20, 2.0, None)
    clock.now += 4
    log.train(10, 20, {"loss": 1.0, "learning_rate": 0.1}, Meter(tokens=3000), 7)
    line = read_metrics(tmp_path / FILE)[-1]
    assert (line["tokens_per_s"], line["step_s"], line["left_s"]) == (500.0, 0.8, 8.0)
    assert line["elapsed_s"] == 514.0, "but it is paid for"
    assert (line["mfu"], line["usd"]) == (None, None), "what is not known is null"


def test_cloudwatch_gets_lines_in_its_embedded_format(tmp_path: Path) -> None:
    emit = cloudwatch(str(tmp_path / "emf.log"), "Berth", "flan-t5-base", "trial")
    emit({"Loss": 1.5, "TokensPerSecond": 320.0, "Mfu": 41.0, "Usd": 0.2})
    emit({"EvalLoss": 1.25})
    first, second = (json.loads(line) for line in (tmp_path / "emf.log").read_text().splitlines())
    (directive,) = first["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Berth", [["Stack"]])
    assert {m["Name"]: m["Unit"] for m in directive["Metrics"]} == {
        "Loss": "None", "TokensPerSecond": "Count/Second", "Mfu": "Percent", "Usd": "None",
    }  # fmt: skip
    assert (first["Stack"], first["Loss"], first["Mfu"]) == ("trial", 1.5, 41.0)
    assert isinstance(first["_aws"]["Timestamp"], int)
    assert second["EvalLoss"] == 1.25
    alone = cloudwatch(str(tmp_path / "b.log"), "Berth", "flan-t5-base", "")
    alone({"Loss": 1.0})
    line = json.loads((tmp_path / "b.log").read_text())
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Model"]]
    cloudwatch("off", "Berth", "m", "")({"Loss": 1.0})


@given(st.lists(st.floats(0, 20), max_size=400), st.integers(1, 50))
def test_a_curve_has_at_most_so_many_points_and_keeps_the_mean(losses: list[float], most: int) -> None:
    lines = [{"kind": "train", "step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    curve = loss_curve([*lines, {"kind": "eval", "step": 3, "loss": 0.5}], most)
    assert len(curve["train"]) <= most
    assert curve["validation"] == [[3, 0.5]]
    steps = [step for step, _ in curve["train"]]
    assert steps == sorted(set(steps))
    if losses:
        assert steps[-1] == len(losses)
        sizes = [b - a for a, b in zip([0, *steps[:-1]], steps, strict=True)]
        total = sum(size * loss for size, (_, loss) in zip(sizes, curve["train"], strict=True))
        assert total == pytest.approx(sum(losses), rel=1e-4, abs=1e-3)


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_loaded() -> None:
    with pytest.raises(ModelError, match="pip install tensorboard"):
        check_tensorboard(SimpleNamespace(tensorboard=True), find=lambda _: None)
    check_tensorboard(SimpleNamespace(tensorboard=False), find=lambda _: None)
    check_tensorboard(SimpleNamespace(tensorboard=True), find=lambda name: name == "tensorboard")


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_files_hold_the_losses(tiny: Any, tmp_path: Path) -> None:
    """Records of an event file: length, its checksum, bytes, their checksum (TensorFlow's TFRecord)."""
    chosen = runs.settings(tmp_path / "r", tiny("llama"), runs.pairs(tmp_path / "d.jsonl", 16), tensorboard=True)
    assert runs.train(chosen).kind == "done"
    (events,) = (tmp_path / "r" / "tensorboard").rglob("events.out.tfevents.*")
    data, at, records = events.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        records.append(data[at + 12 : at + 12 + size])
        at += 12 + size + 4
    assert sum(b"train/loss" in record for record in records) == len(runs.losses(tmp_path / "r"))


def test_the_units_are_those_that_cloudwatch_knows() -> None:
    """Units of MetricDatum, Amazon CloudWatch API reference."""
    assert set(metrics._UNITS.values()) <= {"None", "Percent", "Count/Second", "Count", "Seconds", "Bytes"}
