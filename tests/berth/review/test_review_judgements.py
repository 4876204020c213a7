"""Judgements on disk, suspicion, agreement, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from berth.review import LABELS
from berth.review.agreement import cohen, wilson
from berth.review.judgements import Journal, Judgement, parse, read_judgements
from berth.review.predictions import read_predictions
from berth.review.suspicion import overlap, repetition, suspicions
from berth.schemas import load
from sizing.errors import UserError
from tests.berth.review.predictions_file import rows, write

Run = Callable[..., Any]


def judged(path: Path, *judgements: Judgement) -> None:
    journal = Journal(path)
    journal.append(judgements)
    journal.close()


def test_the_last_judgement_of_a_place_stands_and_none_takes_it_back(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    judged(path, Judgement("r", "ann", "tuned", "wrong"), Judgement("r", "ann", "base", "wrong"))
    judged(path, Judgement("r", "ann", "tuned", "correct"), Judgement("r", "ann", "base", None))
    (standing,) = read_judgements(path).latest().values()
    assert (standing.answer, standing.label) == ("tuned", "correct")
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


@given(cut=st.integers(1, 60))
def test_a_line_torn_by_a_crash_costs_that_line_only(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "j.jsonl"
    judged(path, Judgement("a", "ann", "tuned", "correct"), Judgement("b", "ann", "tuned", "wrong"))
    path.write_bytes(path.read_bytes()[:-1][:-cut])
    judged(path, Judgement("c", "ann", "tuned", "unsure"))
    read = read_judgements(path)
    assert [j.row for j in read.judgements] == ["a", "c"]
    assert read.damaged == 1


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_comments_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, comments: list[str]) -> None:
    path = tmp_path_factory.mktemp("comments") / "j.jsonl"
    judged(path, *(Judgement(f"r{i}", "ann", "tuned", "unsure", text) for i, text in enumerate(comments)))
    assert [j.comment for j in read_judgements(path).judgements] == comments


@pytest.mark.parametrize(
    "record",
    [
        3,
        {},
        {"row": "r", "reviewer": " ", "answer": "tuned"},
        {"row": "r", "reviewer": "a", "answer": "best"},
        {"row": "r", "reviewer": "a", "answer": "tuned", "label": "great"},
        {"row": "r", "reviewer": "a", "answer": "preference", "label": "correct"},
        {"row": "r", "reviewer": "a", "answer": "tuned", "label": "correct", "comment": 5},
        {"row": "r", "reviewer": "a", "answer": "tuned", "label": "correct", "comment": "x" * 20_001},
        {"row": "r", "reviewer": "a" * 101, "answer": "tuned", "label": "correct"},
        {"row": "r", "reviewer": "a", "answer": "tuned", "label": ["correct"]},
    ],
)
def test_what_is_no_judgement_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(record)


def test_kappa_is_that_of_the_textbook() -> None:
    """Cohen's own kind of table: both yes 20, both no 15, 5 and 10 apart: p_o 0.7, p_e 0.5, kappa 0.4."""
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = cohen(first, second)
    assert found is not None
    assert (found.observed, found.expected) == (0.7, 0.5)
    assert found.kappa == pytest.approx(0.4)


@given(st.lists(st.tuples(st.sampled_from(list(LABELS)), st.sampled_from(list(LABELS))), min_size=1))
def test_kappa_keeps_its_bounds_and_sides(pairs: list[tuple[str, str]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = cohen(first, second), cohen(second, first)
    assert one is not None
    assert one == other
    assert one.kappa is None or -1 <= one.kappa <= 1
    same = cohen(first, first)
    assert same is not None
    assert same.kappa == (None if len(set(first)) == 1 else 1)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_inside_zero_and_one(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    bounds = wilson(successes, trials)
    assert bounds is not None
    assert 0 <= bounds[0] <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= bounds[1] <= 1


def test_wilson_is_that_of_the_tables() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) is None


def test_the_suspicious_come_first_with_their_reasons(tmp_path: Path) -> None:
    found = suspicions(read_predictions(write(tmp_path / "p.jsonl", rows(30))))
    first = sorted(range(30), key=lambda i: -found[i].score)[:3]
    assert set(first) == {3, 5, 7}
    assert found[5].reasons == ("empty answer",)
    assert "repeats itself" in found[7].reasons
    assert any("far from the reference" in reason for reason in found[3].reasons)
    assert found[0].reasons == ()


def test_a_number_that_stands_nowhere_is_a_reason(tmp_path: Path) -> None:
    given_rows = rows(3)
    given_rows[1]["tuned"] += " It costs 4711 euros."
    found = suspicions(read_predictions(write(tmp_path / "p.jsonl", given_rows)))
    assert "numbers from nowhere: 4711" in found[1].reasons


def test_translations_that_share_no_word_with_their_input_are_not_all_suspicious(tmp_path: Path) -> None:
    given_rows = [
        {"input": f"the house is small {i}", "reference": f"das Haus ist klein {i}", "tuned": f"das Haus ist klein {i}"}
        for i in range(9)
    ]
    assert [s.score for s in suspicions(read_predictions(write(tmp_path / "p.jsonl", given_rows)))] == [0.0] * 9


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_overlap_is_symmetric_and_a_share(one: list[str], other: list[str]) -> None:
    assert 0 <= overlap(one, other) == overlap(other, one) <= 1
    assert overlap(one, one) == 1
    assert 0 <= repetition(one) < 1


def test_rows_keep_their_keys_when_the_file_is_shuffled_and_twins_differ(tmp_path: Path) -> None:
    given_rows = rows(4)
    straight = read_predictions(write(tmp_path / "a.jsonl", given_rows))
    back = read_predictions(write(tmp_path / "b.jsonl", given_rows[::-1]))
    assert [r.key for r in straight] == [r.key for r in back][::-1]
    twins = read_predictions(write(tmp_path / "c.jsonl", [given_rows[0], given_rows[0]]))
    assert len({r.key for r in twins}) == 2


def test_what_evaluate_writes_is_read_as_it_is(tmp_path: Path) -> None:
    row = {
        "index": 0, "line": 7, "form": "seq2seq", "input": "a b c", "target": "a", "prediction": "a b",
        "model_tokens": 2, "model_finish_reason": "length", "model_truncated_tokens": 1200, "model_exact": False,
        "model_signs": {"repetition": 0.0}, "model_probability": None, "base_prediction": "c",
        "base_finish_reason": "stop", "base_probability": 0.5,
    }  # fmt: skip
    (found,) = read_predictions(write(tmp_path / "p.jsonl", [row]))
    assert (found.reference, found.base, found.tuned, found.id) == ("a", "c", "a b", "line 7")
    assert found.metrics == {"base_probability": 0.5}
    reasons = suspicions([found])[0].reasons
    assert reasons == ("cut at the limit of tokens", "1,200 tokens of the input did not fit")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "line 2 is no object"),
        ('{"input": "x"}', "needs input, and base or tuned (or prediction); it has input"),
        ('{"input": "x", "tuned": 5}', "tuned is no text but int"),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(rows(1)[0]) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"p\.jsonl") as caught:
        read_predictions(path)
    assert said in str(caught.value)


def test_the_summary_keeps_to_its_schema_and_goes_into_the_report(run_berth: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    keys = [row.key for row in read_predictions(path)]
    validator = Draft202012Validator(load("review summary"))
    empty = json.loads(run_berth("review", "summary", path, "--json").out)
    validator.validate(empty)
    assert empty["rows_judged"] == 0
    said = [("ann", "correct"), ("bob", "correct"), ("eve", "wrong")]
    judged(
        tmp_path / "p.reviews.jsonl",
        *(Judgement(key, who, "tuned", label) for key in keys[:4] for who, label in said),
        Judgement(keys[4], "ann", "tuned", "wrong", "made up"),
        Judgement(keys[4], "bob", "tuned", "correct"),
        Judgement(keys[0], "ann", "preference", "tuned", blind=True),
        Judgement("gone", "ann", "tuned", "correct"),
    )
    ran = run_berth("review", "summary", path, "--json")
    found = json.loads(ran.out)
    validator.validate(found)
    assert found["rows_judged"] == 5
    assert found["answers"]["tuned"]["labels"]["correct"] == 4
    assert found["answers"]["tuned"]["labels"]["disputed"] == 1
    assert found["answers"]["tuned"]["correct"]["share"] == 0.8
    assert found["preference"] == {"base": 0, "tuned": 1, "tie": 0}
    assert found["comments"] == 1
    assert {tuple(pair["reviewers"]): pair["items"] for pair in found["agreement"]} == {
        ("ann", "bob"): 5, ("ann", "eve"): 4, ("bob", "eve"): 4,
    }  # fmt: skip
    assert any("Judgements of 1 rows" in note for note in found["notes"])
    (tmp_path / "s.json").write_text(ran.out, encoding="utf-8")
    text = run_berth("report", "--from", tmp_path / "s.json", "--format", "md").out
    assert "80% (38% to 96%)" in text
    assert "ann and bob" in text


def test_shares_say_what_sample_they_are_of(run_berth: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    key = read_predictions(path)[0].key
    for order, said in (
        ("suspicious", "worse than the whole"), ("random", "a fair sample"), ("picked", "says nothing of the whole"),
    ):  # fmt: skip
        judged(tmp_path / "p.reviews.jsonl", Judgement(key, "ann", "tuned", "correct", order=order))
        assert said in run_berth("review", "summary", path).out


def test_export_joins_rows_and_judgements(run_berth: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    judged(
        tmp_path / "p.reviews.jsonl",
        Judgement(read_predictions(path)[2].key, "ann", "tuned", "correct", "good", at="x"),
    )
    (line,) = run_berth("review", "export", path).out.splitlines()
    row = json.loads(line)
    assert row["id"] == "t2"
    assert row["judgements"] == [
        {"reviewer": "ann", "answer": "tuned", "label": "correct", "comment": "good", "order": "suspicious",
         "blind": False, "at": "x"}
    ]  # fmt: skip
    ran = run_berth("review", "export", path, "--all", "-o", tmp_path / "all.jsonl")
    assert ran.code == 0
    assert len((tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_a_reference_that_some_rows_lack_makes_no_length_odd(tmp_path: Path) -> None:
    given_rows = [
        {
            "input": f"Ticket {i}: " + "the router in this room lost its connection again " * 3,
            "tuned": f"Router {i} down.",
        }
        for i in range(12)
    ]
    for row in given_rows[:4]:
        row["reference"] = row["tuned"]
    found = suspicions(read_predictions(write(tmp_path / "p.jsonl", given_rows)))
    assert not [reason for s in found for reason in s.reasons if "than the others" in reason]
