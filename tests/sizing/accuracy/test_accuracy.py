"""The promises about accuracy, kept on every run: published measurements against the estimates."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizing.accuracy.held_out import held_out_results
from sizing.accuracy.inference import inference_results
from sizing.accuracy.points import COLUMNS, points
from sizing.accuracy.report import Section, report, summary
from sizing.errors import UserError


def inference() -> Section:
    results, outside = inference_results()
    return Section("Inference", results, outside, "", 0.12)


def test_inference_is_within_its_target() -> None:
    section = inference()
    s = summary((r.error for r in section.sized), 0.12)
    assert s is not None and s.points >= 85
    assert s.median <= 0.04
    assert s.within >= 0.9
    assert section.false_fits() == []


def test_the_rule_of_thumb_is_worse() -> None:
    section = inference()
    ours = summary((r.error for r in section.sized), 0.12)
    rule = summary((r.rule_of_thumb / r.measured - 1 for r in section.sized), 0.12)
    weights = summary((r.weights_only / r.measured - 1 for r in section.sized), 0.12)
    assert ours is not None and rule is not None and weights is not None
    assert ours.median < rule.median / 5
    assert ours.median < weights.median / 5


def test_rows_that_were_held_out_are_within_the_target() -> None:
    s = summary((r.error for r in held_out_results()), 0.12)
    assert s is not None and s.points == 222
    assert s.median <= 0.04
    assert s.within >= 0.9


def test_the_other_reading_of_qwen3s_page_is_within_the_target_too() -> None:
    """Its figures grow with the prompt as a cache does; taken as the peak of one pass, they are farther away."""
    s = summary((r.error for r in held_out_results(peak_of_one_pass=True)), 0.12)
    own = summary((r.error for r in held_out_results()), 0.12)
    assert s is not None and own is not None
    assert own.median < s.median <= 0.04
    assert s.within >= 0.9


def test_every_row_has_a_result_or_a_reason() -> None:
    results, outside = inference_results()
    rows = [p for p in points() if p.task == "inference"]
    assert len(results) + len(outside) == len(rows)
    assert all(o.reason and "no reader" not in o.reason for o in outside)


def test_the_report_shows_every_group_worst_first() -> None:
    section = inference()
    page = report([section], "accuracy.svg")
    for result in section.sized:
        assert result.group in page
    medians = [
        float(line.split("median error ")[1].split(" %")[0])
        for line in page.splitlines()
        if "points, median error" in line
    ]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing,of,this\n", "the first line must be"),
        (",".join(COLUMNS) + "\ninference,x\n", "line 2: 2 fields, not 13"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "points.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        points(file)


def test_summary_of_no_points_is_none() -> None:
    assert summary([], 0.1) is None
