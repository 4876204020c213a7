"""`berth data`: what a person is told about a data set, on screen and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from berth.schemas import load
from model_runtime.data.lengths import histogram, percentile
from model_runtime.data.personal import personal

Run = Callable[..., Any]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def pairs(count: int) -> list[dict[str, str]]:
    return [{"input": f"What is {i} plus {i}?", "target": f"{i + i}"} for i in range(count)]


def document(ran: Any, command: str = "data check") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    Draft202012Validator(load(command)).validate(found)
    return found


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe+x@example.co.uk today", ("e-mail",)),
        ("an @mention and a@b are none", ()),
        ("card 4111 1111 1111 1111, please", ("card number",)),
        ("order 4111 1111 1111 1112, please", ()),
        ("0000 0000 0000 0000", ()),
        ("call +49 30 1234567 or (030) 1234567", ("phone",)),
        ("call 415-555-2671", ("phone",)),
        ("in 1999 there were 1,234,567 of 3.14159 at 10.0.0.1 on 2024-05-06", ()),
        ("DE89 3704 0044 0532 0130 00 is an account", ("IBAN",)),
        ("DE89 3704 0044 0532 0130 01 is none", ()),
        ("SSN 536-22-1234", ("US social security number",)),
        ("nothing here", ()),
    ],
)
def test_what_looks_like_personal_data(text: str, kinds: tuple[str, ...]) -> None:
    assert personal(text) == kinds


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=200), st.one_of(st.none(), st.integers(1, 900)))
def test_a_histogram_counts_every_row_once(values: list[int], window: int | None) -> None:
    bins = histogram(values, window)
    assert sum(b["count"] for b in bins) == len(values)
    if window is not None:
        assert bins[-1]["count"] == sum(v > window for v in values)
    assert all(b["to"] + 1 == after["from"] for b, after in pairwise(bins))


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile(list(range(1, 101)), q) for q in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert percentile([7], 0.5) == 7


def test_a_clean_set_with_the_models_own_tokenizer(run_berth: Run, tiny: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [*pairs(40), {"input": "long " * 200, "target": "x"}])
    ran = run_berth("data", "check", path, "--model", tiny("t5"), "--json")
    found = document(ran)
    assert (ran.code, ran.err, found["errors"], found["warnings"]) == (0, "", 0, 0)
    assert found["tokens"]["exact"]
    assert found["tokens"]["window"] == 128
    assert (found["tokens"]["cut"], found["tokens"]["cut_percent"]) == (1, 2.44)
    assert found["parts"] == {"train": 35, "validation": 2, "test": 4}
    shown = run_berth("data", "check", path, "--model", tiny("t5"))
    assert "1 rows (2.44 %) would be cut at 128 tokens" in shown.out
    assert "Nothing wrong was found" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 200


def test_a_decoder_only_model_counts_prompt_and_answer_together(run_berth: Run, tiny: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [*pairs(9), {"input": "a b " * 31, "target": "c d " * 35}])
    found = document(run_berth("data", "check", path, "--model", tiny("llama"), "--json"))["tokens"]
    assert found["shared_window"]
    assert found["input"]["longest"] <= 128 < found["sequence"]["longest"]
    assert found["cut"] == 1


def test_everything_that_can_be_wrong_is_said_with_lines(run_berth: Run, tmp_path: Path) -> None:
    rows: list[Any] = [
        *pairs(20), {"input": "what IS 3 plus 3", "target": "6"}, {"input": "What is 4 plus 4?", "target": "9"},
        {"input": "mail jane@example.com", "target": "ok"}, {"input": "", "target": "x"}, "{",
    ]  # fmt: skip
    path = write(tmp_path / "train.jsonl", rows)
    test = write(
        tmp_path / "held.jsonl", [{"input": "What is 2 plus 2?", "target": "4"}, {"input": "n", "target": "o"}]
    )
    ran = run_berth("data", "check", path, "--test", test, "--json")
    found = document(ran)
    assert ran.code == 3
    assert found["errors"] == 2
    assert [(p["kind"], p["lines"]) for p in found["files"][0]["problems"]] == [("empty", [24]), ("json", [25])]
    assert found["duplicates"] == [{"part": "all", "rows": 1, "pairs": [{"line": 21, "first_line": 4}]}]
    assert found["conflicts"] == [{"part": "all", "groups": 1, "lines": [[5, 22]]}]
    assert found["leaks"][-1]["part"] == "test"
    assert found["leaks"][-1]["pairs"] == [{"line": 1, "train_line": 3}]
    assert [(p["kind"], p["lines"]) for p in found["personal"]] == [("e-mail", [23])]
    assert not found["tokens"]["exact"]
    assert "an assumption" in found["tokens"]["how"]
    shown = run_berth("data", "check", path, "--test", test).out
    assert "jane" not in shown, "the data itself is not repeated"
    for words in ("(line 24): line 24 input is empty", "(line 25)", "(line 21)", "5 and 22", "e-mail (line 23)"):
        assert words in shown


def test_classes_and_their_balance(run_berth: Run, tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "rare" if i < 4 else "usual"} for i in range(60)]
    found = document(run_berth("data", "check", write(tmp_path / "d.jsonl", rows), "--json"))
    assert [(c["label"], c["rows"]) for c in found["labels"]["classes"]] == [("usual", 56), ("rare", 4)]
    assert found["labels"]["rare"] == ["rare"]


def test_a_split_is_kept_and_used(run_berth: Run, tmp_path: Path) -> None:
    path, split = write(tmp_path / "d.jsonl", pairs(30)), tmp_path / "split.json"
    made = run_berth("data", "split", path, "--out", split, "--test-share", "0.5", "--json")
    assert document(made, "data split")["parts"] == {"train": 13, "validation": 2, "test": 15}
    assert document(run_berth("data", "check", path, "--split", split, "--json"))["parts"]["test"] == 15
    again = run_berth("data", "split", path, "--out", split)
    assert (again.code, again.out) == (2, "")
    assert "is there" in again.err
    path.write_text(path.read_text() + json.dumps({"input": "q", "target": "a"}) + "\n")
    assert "the data changed since" in run_berth("data", "check", path, "--split", split).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], "is no file here"),
        (["d.jsonl", "--form", "poem"], "form is 'poem'"),
        (["d.jsonl", "--form", "chat"], "no row can be used"),
        (["d.jsonl", "--column", "x"], "not NAME=COLUMN"),
        (["d.jsonl", "--context-window", "0"], "must be 1 or more"),
        (["d.jsonl", "--model", "no/such-model-anywhere"], "no/such-model-anywhere"),
        (["d.jsonl", "--test-share", "1"], "must be 0 or above and below 1"),
        (["d.jsonl", "--split", "none.json"], "is no file"),
    ],
)
def test_a_mistake_is_one_line(
    run_berth: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    write(tmp_path / "d.jsonl", pairs(9))
    monkeypatch.chdir(tmp_path)
    ran = run_berth("data", "check", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert says in ran.err


def test_checking_needs_no_torch(tmp_path: Path, tiny: Any) -> None:
    path = write(tmp_path / "d.jsonl", pairs(9))
    program = (
        "import sys\nfrom berth.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'boto3') if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "data", "check", str(path), "--model", str(tiny("bert")), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert json.loads(ran.stdout)["tokens"]["exact"]
