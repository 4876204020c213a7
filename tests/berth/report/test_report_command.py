"""`berth report`: recognises its files, names contradictions, says the same in three formats."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.berth.report.report_documents import MODEL, evaluation, measurement

Run = Callable[..., Any]
Made = Callable[..., list[str]]
SUMMARY = {
    "format": "berth-review-summary/1", "predictions": "p.jsonl", "judgements": "p.reviews.jsonl", "rows": 100,
    "rows_judged": 40, "sample": "in random order: a fair sample", "reviewers": ["ann", "bob"],
    "answers": {
        side: {
            "judged": 40,
            "labels": {"correct": 30, "wrong": 5, "hallucinated": 3, "incomplete": 1, "unsafe": 0, "unsure": 1,
                       "disputed": 0},
            "correct": {"share": 0.75, "low": 0.6, "high": 0.86},
        }
        for side in ("base", "tuned")
    },
    "preference": {"base": 3, "tuned": 9, "tie": 2},
    "agreement": [{"reviewers": ["ann", "bob"], "items": 20, "observed": 0.9, "expected": 0.5, "kappa": 0.8}],
    "comments": 2, "notes": [],
}  # fmt: skip


def as_json(run_berth: Run, arguments: list[str]) -> dict[str, Any]:
    ran = run_berth("report", *arguments, "--format", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_one_page_tells_everything_from_need_to_teardown(run_berth: Run, documents: Made) -> None:
    files = documents("assess", "size", "training", measurement=measurement(), evaluation=evaluation(), review=SUMMARY)
    report = as_json(run_berth, files)
    assert [section["id"] for section in report["sections"]] == [
        "need", "model", "memory", "machine", "cost", "training", "measured", "quality", "risks", "teardown",
    ]  # fmt: skip
    assert report["tentative"] == []
    labels = {fact["label"]: fact["value"] for fact in report["glance"]}
    assert labels["Model"] == MODEL
    assert labels["rougeL"] == "0.2 → 0.35"
    assert labels["Correct by eye"] == "75%"
    assert labels["9 of 10 answers within"] == "2.8 s"


def test_every_block_with_numbers_names_a_source_of_the_report(run_berth: Run, documents: Made) -> None:
    report = as_json(run_berth, documents("assess", "size", "training", measurement=measurement()))
    kinds = {source["kind"] for source in report["sources"]}
    named = [fact["source"] for fact in report["glance"]]
    for block in [block for section in report["sections"] for block in section["blocks"]]:
        if block["block"] == "facts":
            named += [fact["source"] for fact in block["facts"]]
        elif block["block"] != "commands":
            named.append(block["source"])
    assert named
    assert set(named) <= kinds


@pytest.mark.parametrize("name", ["assess", "size", "training", "memory"])
def test_the_command_that_a_number_names_makes_the_same_document_again(
    run_berth: Run, documents: Made, name: str
) -> None:
    files = documents(name)
    command = next(s for s in as_json(run_berth, files)["sources"])["command"]
    again = run_berth(*shlex.split(command)[1:])
    assert json.loads(again.out) == json.loads(Path(files[1]).read_text(encoding="utf-8"))


def test_it_is_tentative_until_the_planned_machine_was_measured(run_berth: Run, documents: Made) -> None:
    (why,) = as_json(run_berth, documents("size"))["tentative"]
    assert "nothing has been measured" in why
    cpu = measurement()
    cpu["machine"]["gpus"] = []
    (why,) = as_json(run_berth, documents("size", measurement=cpu))["tentative"]
    assert "another machine (AMD EPYC, 8 cores, no GPU) than the one planned (L4)" in why
    outside = measurement(machine=None, model=None, target="http://host:8080")
    (why,) = as_json(run_berth, documents("size", measurement=outside))["tentative"]
    assert "http://host:8080" in why
    assert as_json(run_berth, documents("size", measurement=measurement()))["tentative"] == []
    (why,) = as_json(run_berth, documents(measurement=measurement()))["tentative"]
    assert "no file says on which machine" in why
    unknown = measurement()
    unknown["machine"]["gpus"][0]["name"] = "NVIDIA X1"
    (why,) = as_json(run_berth, documents("size", measurement=unknown))["tentative"]
    assert "another machine (1 × NVIDIA X1)" in why


def test_contradictions_are_said_with_both_files(run_berth: Run, documents: Made) -> None:
    other = measurement()
    other["machine"]["gpus"][0]["name"] = "Tesla T4"
    other["model"]["name"] = "google/flan-t5-large"
    ran = run_berth("report", *documents("size", measurement=other))
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert "size.json says GPU L4" in ran.err
    assert "measurement.json says T4" in ran.err
    assert "measurement.json says google/flan-t5-large" in ran.err


def test_a_fine_tuned_folder_may_have_a_name_of_its_own(run_berth: Run, documents: Made) -> None:
    tuned = measurement()
    tuned["model"]["name"] = "tickets-tuned"
    files = documents("size", measurement=tuned)
    assert run_berth("report", *files).code == 2
    assert run_berth("report", *files, "--also-called", "tickets-tuned").code == 0


def test_a_stack_on_another_machine_contradicts(run_berth: Run, documents: Made) -> None:
    preview = json.loads(run_berth("preview", "inference-dev", "--json").out)
    ran = run_berth("report", *documents("size", preview=preview))
    assert "size.json says instance_type g6.2xlarge" in ran.err
    assert "preview.json says g4dn.2xlarge" in ran.err
    report = as_json(run_berth, documents(preview=preview))
    (teardown,) = [s for s in report["sections"] if s["id"] == "teardown"]
    assert "inference-dev" in json.dumps(teardown)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "the JSON of none of the commands"),
        ('{"a": 1}', "the JSON of none of the commands"),
        (json.dumps(evaluation(metrics=[{"metric": 5}])), "$.metrics[0]"),
        (json.dumps(measurement(best_concurrency="four")), "$.best_concurrency"),
        ('{"format": "berth-measurement/1"}', "does not keep to its schema"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_file_that_is_none_is_one_line(run_berth: Run, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    ran = run_berth("report", "--from", path)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert said in ran.err
    assert str(path) in ran.err


def test_nothing_two_of_one_kind_and_a_missing_file_are_one_line(run_berth: Run, documents: Made) -> None:
    assert "at least one --from" in run_berth("report").err
    files = documents("assess")
    assert "give one of them" in run_berth("report", *files, *files).err
    assert "cannot be read" in run_berth("report", "--from", "nowhere.json").err
    assert "unknown format" in run_berth("report", *files, "--format", "pdf").err


def test_a_plan_that_nothing_keeps_is_reported_as_such(run_berth: Run, documents: Made) -> None:
    ran = run_berth("size", MODEL, "--max-monthly", "1", "--json")
    report = as_json(run_berth, documents(size=json.loads(ran.out)))
    assert {"label": "Machine", "value": "none fits", "source": "size", "note": ""} in report["glance"]


def test_unpriced_stays_unpriced(run_berth: Run, documents: Made) -> None:
    text = run_berth("report", *documents("size"), "--format", "md").out
    assert "| savings plan, 1 year | unpriced | unpriced | unpriced |" in text


def test_output_goes_to_the_file_whole_and_its_ending_chooses(run_berth: Run, documents: Made, tmp_path: Path) -> None:
    files = documents("size")
    for name, start in (("r.html", "<!doctype html>"), ("r.md", "# google/flan-t5-xl"), ("r.json", "{")):
        ran = run_berth("report", *files, "-o", tmp_path / name)
        assert ran.code == 0, ran.err
        assert ran.out == ""
        assert "Tentative" in ran.err
        assert (tmp_path / name).read_text(encoding="utf-8").lstrip().startswith(start)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert run_berth("report", *files, "-o", tmp_path / "new" / "r.html").code == 0
    assert "cannot be written" in run_berth("report", *files, "-o", tmp_path / "r.html" / "r.html").err


def test_markdown_neutralises_markup_in_names(run_berth: Run, documents: Made) -> None:
    hostile = evaluation("<img src=x>|[a](javascript:b)`")
    text = run_berth("report", *documents(evaluation=hostile), "--format", "md").out
    assert "<img" not in text
    assert "\\|\\[a\\](javascript:b)\\`" in text
