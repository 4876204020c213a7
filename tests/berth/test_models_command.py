"""`berth models`: the table and its filters, one model in full, JSON, and mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizing.models.catalogue import load_catalogue

CATALOGUE = load_catalogue()


def listed(run_berth: Callable[..., Any], *arguments: str) -> list[dict[str, Any]]:
    ran = run_berth("models", *arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    models: list[dict[str, Any]] = json.loads(ran.out)["models"]
    return models


def test_the_table_holds_every_model_smallest_first(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("models")

    assert (ran.code, ran.err) == (0, "")
    rows = [line for line in ran.out.splitlines() if "/" in line]
    assert len(rows) == len(CATALOGUE)
    assert rows[0].startswith("albert/albert-base-v2 ")
    assert rows[-1].split()[:2] == ["openai/gpt-3.5-turbo", "unknown"]
    assert max(map(len, ran.out.splitlines())) <= 100

    sizes = [m["params"] for m in listed(run_berth)]
    assert sizes[:-1] == sorted(sizes[:-1])
    assert sizes[-1] is None


def test_names_are_never_cut_however_narrow(run_berth: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    out = run_berth("models", "--max-params", "200M").out

    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "keeps"),
    [
        (("--task", "translation"), lambda m: "translation" in m["tasks"]),
        (("--task", "question-answering"), lambda m: "qa" in m["tasks"]),
        (("--licence", "business"), lambda m: m["licence_verdict"] == "business-friendly"),
        (("--license", "non-commercial"), lambda m: m["licence_verdict"] == "non-commercial"),
        (("--min-context", "128K"), lambda m: m["context_window"] >= 131_072),
        (("--max-params", "3B"), lambda m: m["params"] is not None and m["params"] <= 3e9),
        (("--architecture", "encoder-decoder"), lambda m: m["architecture"] == "encoder-decoder"),
        (
            ("--task", "code", "--licence", "business", "--max-params", "8e9"),
            lambda m: "code" in m["tasks"] and m["licence_verdict"] == "business-friendly" and m["params"] < 8e9,
        ),
    ],
)
def test_filters_keep_what_they_say_and_all_of_it(
    arguments: tuple[str, ...], keeps: Callable[[dict[str, Any]], bool], run_berth: Callable[..., Any]
) -> None:
    kept = [m["name"] for m in listed(run_berth, *arguments)]

    assert kept
    assert kept == [m["name"] for m in listed(run_berth) if keeps(m)]


def test_a_task_explains_its_architectures(run_berth: Callable[..., Any]) -> None:
    out = run_berth("models", "--task", "sentiment").out

    assert "sentiment wants encoder-only or encoder-decoder: a label needs no decoder" in " ".join(out.split())


def test_nothing_that_passes_is_said(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("models", "--task", "code", "--max-params", "1M")

    assert ran.code == 0
    assert "No model passes." in ran.out
    assert listed(run_berth, "--task", "code", "--max-params", "1M") == []


def test_what_fits_a_machine_is_what_size_would_serve_there(run_berth: Callable[..., Any]) -> None:
    fitting = {m["name"]: m["fit"] for m in listed(run_berth, "--fits", "g4dn.2xlarge", "--architecture", "encoder-d")}

    assert fitting["google/flan-t5-xl"]["dtype"] == "fp32"
    assert "google/flan-t5-xxl" not in fitting
    for fit in fitting.values():
        assert 0 < fit["device_bytes"] <= fit["gpu_memory_bytes"]
    larger = {m["name"] for m in listed(run_berth, "--fits", "g5.12xlarge", "--architecture", "encoder-d")}
    assert set(fitting) < larger
    assert "google/flan-t5-xxl" in larger


def test_one_model_in_full(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("models", "flan-t5-xl")

    assert (ran.code, ran.err) == (0, "")
    text = " ".join(ran.out.split())
    for said in (
        "google/flan-t5-xl",
        "2,849,757,184 (2.85B)",
        "transformers' class: 2,783,959,040. transformers 5 ties the output layer",
        "encoder: 24 layers, hidden size 2,048, 32 heads of 64, gated gelu MLP of 5,120",
        "512 tokens",
        "Apache-2.0: business-friendly",
        "https://huggingface.co/google/flan-t5-xl",
        "Next: berth size google/flan-t5-xl",
    ):
        assert said in text


def test_one_model_as_json_holds_its_tensors(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("models", "mixtral", "--json")
    document = json.loads(ran.out)

    assert document["name"] == "mistralai/Mixtral-8x7B-v0.1"
    assert (document["params"], document["active_params"]) == (46_702_792_704, 12_879_925_248)
    assert document["decoder"]["kv_heads"] == 8
    assert document["decoder"]["experts"] == 8
    numels = [t["count"] * _product(t["shape"]) for t in document["tensors"] if t["tied_to"] is None]
    assert sum(numels) == document["params"]


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def test_a_closed_model_is_shown_but_has_no_next_step(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("models", "chatgpt")

    assert ran.code == 0
    assert "unknown: not published" in ran.out
    assert "4,096 tokens" in ran.out
    assert "proprietary: closed" in ran.out
    assert "Next:" not in ran.out
    assert json.loads(run_berth("models", "chatgpt", "--json").out)["params"] is None


def test_a_folder_is_shown_as_well(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(dict(CATALOGUE.configs["openai-community/gpt2"])))

    ran = run_berth("models", tmp_path)

    assert ran.code == 0
    assert "124,439,808 (124M)" in ran.out
    assert "unknown; read it where the model comes from" in ran.out
    assert f"Next: berth size {tmp_path}" in "".join(ran.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "poetry"), "unknown task 'poetry'; known: chat, classification, code"),
        (("--licence", "free"), "unknown licence 'free'; known: business-friendly, closed"),
        (("--architecture", "encoder"), "unknown architecture 'encoder'; did you mean decoder-only, encoder-decoder"),
        (("--max-params", "-3B"), "max-params is '-3B'; it must be a number of parameters above 0"),
        (("--max-params", "nan"), "max-params is 'nan'"),
        (("--max-params", "1e99"), "max-params is '1e99'"),
        (("--min-context", "0"), "min-context is '0'; it must be a number of tokens of at least 1"),
        (("--min-context", "lots"), "min-context is 'lots'"),
        (("--fits", "g4dn.huge"), "unknown instance type 'g4dn.huge'"),
        (("flan-t5-xll",), "unknown model 'flan-t5-xll': it is not in the catalogue; did you mean google/flan-t5-xl"),
        (("flan-t5-xl", "--task", "qa"), "'flan-t5-xl' is one model; the filters are for the table"),
        (("./nowhere",), "'./nowhere': no such folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], said: str, run_berth: Callable[..., Any]
) -> None:
    ran = run_berth("models", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith(f"berth: {said}")
