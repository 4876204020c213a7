"""The loss curve of a fine-tune in its report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from berth.report.blocks import Curves
from berth.report.documents import read
from berth.report.sections.run import section


def record(**more: Any) -> dict[str, Any]:
    return {
        "format": "berth-training/1", "finished_at": "2026-11-20T10:00:00+00:00",
        "base": {"model": "google/flan-t5-base"}, "method": "full", "precision": "bf16",
        "plan": {"processes": 8, "nodes": 1, "global_batch": 64}, "data": {"parts": {"train": 90_000}},
        "result": {"steps": 1000, "epochs": 1.0, "last_loss": 0.4, "best_validation_loss": 0.5}, **more,
    }  # fmt: skip


CURVE = {
    "train": [[n * 20, round(0.3 + 3 * math.exp(-n / 8), 4)] for n in range(1, 51)],
    "validation": [[n * 250, round(0.5 + 2 * math.exp(-n), 4)] for n in range(1, 5)],
}


def drawn(path: Path, content: dict[str, Any]) -> list[Curves]:
    path.write_text(json.dumps(content))
    made = section({"run": read(path)})
    assert made is not None
    return [block for block in made.blocks if isinstance(block, Curves)]


def test_training_and_validation_losses_are_drawn_by_step(tmp_path: Path) -> None:
    (chart,) = drawn(tmp_path / "training.json", record(curve=CURVE))
    assert [(curve.label, len(curve.points)) for curve in chart.curves] == [("Training", 50), ("Validation", 4)]
    assert chart.curves[1].points[0] == (250.0, 1.2358)


def test_a_record_without_a_curve_or_with_one_point_has_no_chart(tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.json", record()) == []
    assert drawn(tmp_path / "b.json", record(curve={"train": [[1, 2.0]], "validation": []})) == []


def test_the_page_holds_the_chart(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(record(curve=CURVE)))
    ran = run_berth("report", "--from", tmp_path / "training.json", "--output", tmp_path / "report.html")
    assert ran.code == 0, ran.err
    page = (tmp_path / "report.html").read_text()
    assert "Loss (cross entropy) by step" in page
    assert page.count('<polyline class="line') == 2
