"""`berth assess` as a person meets it: asked, by flags, by an answers file, and with mistakes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizing.need.questions import TASKS

SUPPORT_TICKETS = {
    "task": "summarization",
    "rule": "no",
    "data_may_leave": "no",
    "smaller_model": "not-good-enough",
    "examples": 3000,
    "languages": ["en", "de"],
    "requests_per_day": 5000,
    "latency_seconds": 5,
}


@pytest.fixture
def answers_file(tmp_path: Path) -> Path:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(SUPPORT_TICKETS))
    return path


def test_an_answers_file_gives_a_verdict_with_reasons_and_the_next_command(
    run_berth: Callable[..., Any], answers_file: Path
) -> None:
    ran = run_berth("assess", "--answers", answers_file)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("llm: ")
    assert "--smaller-model not-good-enough: " in ran.out
    assert "\n    berth models --task summarization --licence business\n" in ran.out


def test_json_is_one_document_and_nothing_else(run_berth: Callable[..., Any], answers_file: Path) -> None:
    ran = run_berth("assess", "--answers", answers_file, "--json")

    document = json.loads(ran.out)
    assert list(document) == ["verdict", "summary", "reasons", "next", "answers"]
    assert document["verdict"] == "llm"
    assert document["answers"] == SUPPORT_TICKETS | {"managed_service": "not-tried"}
    assert ran.err == ""


def test_answers_by_file_by_flags_and_by_stdin_are_judged_alike(
    run_berth: Callable[..., Any], answers_file: Path
) -> None:
    flags = ["--task", "summarization", "--rule", "no", "--data-may-leave", "no", "--smaller-model", "not-good-enough"]
    flags += ["--examples", "3000", "--languages", "en,de", "--requests-per-day", "5000", "--latency", "5", "--json"]
    by_file = run_berth("assess", "--answers", answers_file, "--json")
    by_stdin = run_berth("assess", "--answers", "-", "--json", stdin=answers_file.read_text())
    assert run_berth("assess", *flags).out == by_file.out == by_stdin.out


def test_a_flag_wins_over_the_file(run_berth: Callable[..., Any], answers_file: Path) -> None:
    ran = run_berth("assess", "--answers", answers_file, "--rule", "yes", "--json")
    assert json.loads(ran.out)["verdict"] == "rule"


def test_without_answers_it_asks_on_stderr_and_asks_again_after_a_slip(run_berth: Callable[..., Any]) -> None:
    lines = ["sumarization", "summarization", "no", "no", "", "not-good-enough", "3000", "en,de", "5000", "5"]
    ran = run_berth("assess", stdin="\n".join(lines) + "\n")

    assert ran.code == 0
    assert ran.out.startswith("llm: ")
    assert ran.err.count("What should be done with the text?") == 2
    assert "task is 'sumarization'; allowed: summarization" in ran.err
    assert "Within how many seconds" not in ran.out


def test_a_choice_may_be_shortened_when_asked(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("assess", stdin="trans\ntransl\ny\n")
    assert ran.out.startswith("rule: ")
    assert "task is 'trans'; allowed: " in ran.err, "it could be translation or transcription"
    assert "--task translation" in ran.out


def test_it_stops_asking_once_nothing_can_change_the_verdict(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("assess", stdin="sentiment\nyes\n")
    assert ran.code == 0
    assert ran.out.startswith("rule: ")


@pytest.mark.parametrize("smaller_model", ["not-tried", "not-good-enough"])
@pytest.mark.parametrize("task", [t.name for t in TASKS.values() if t.catalogue])
def test_the_next_commands_run_as_they_stand(run_berth: Callable[..., Any], task: str, smaller_model: str) -> None:
    ran = run_berth(
        "assess", "--task", task, "--smaller-model", smaller_model, "--data-may-leave", "no", "--examples", "500",
        "--requests-per-day", "500", "--latency", "30", "--json",
    )  # fmt: skip
    models: list[str] = []
    for step in json.loads(ran.out)["next"]:
        line = step["command"] if step["ready"] else step["command"].replace("MODEL", models[0])
        assert step["ready"] == ("MODEL" not in step["command"])
        followed = run_berth(*shlex.split(line)[1:], "--json")
        assert followed.code == 0, f"{line}: {followed.err}"
        if line.startswith("berth models"):
            models = [model["name"] for model in json.loads(followed.out)["models"]]
            assert models, f"{line} finds no model"


def test_a_stdin_that_ends_early_is_an_error_that_names_the_other_ways(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("assess", stdin="summarization\n")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.splitlines()[-1].startswith("berth: no more answers on stdin; give them as flags")


def test_json_asks_nothing(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("assess", "--json", stdin="summarization\n")
    assert (ran.code, ran.out) == (2, "")
    assert "--task" in ran.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no JSON"),
        (b'{"task": "qa"', "is no JSON"),
        (b"[1, 2]", "must hold one JSON object"),
        (b'"qa"', "must hold one JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"task": "\xff"}', "is not UTF-8"),
        (b'{"task": "qa", "task": "chat"}', "task stands there more than once"),
        (
            b'{"task": "qa", "langauges": "en"}',
            "unknown question 'langauges'; did you mean languages, managed_service?",
        ),
        (b'{"task": "qa", "examples": NaN}', "examples is nan"),
        (b'{"task": "qa", "examples": -5}', "examples is -5"),
        (b'{"task": {"name": "qa"}}', "task is {'name': 'qa'}"),
        (b"{}", "task is missing"),
        (b'{"task": "qa", "examples": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"task": "qa", "examples": 1e999}', "examples is inf"),
        (b" " * (1 << 21), "over 1 MiB"),
    ],
)
def test_a_bad_answers_file_is_one_line_and_exit_code_2(
    run_berth: Callable[..., Any], tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(content)
    ran = run_berth("assess", "--answers", path)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err


def test_an_answers_file_that_is_not_there_or_a_folder(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        ran = run_berth("assess", "--answers", path)
        assert ran.code == 2
        assert ran.err.startswith(f"berth: answers file {path} cannot be read: ")
        assert len(ran.err.splitlines()) == 1
