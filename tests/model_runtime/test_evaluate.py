"""Evaluation: metrics that agree with their definitions, honest intervals, and predictions that a person can read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from sacrebleu.metrics import BLEU, CHRF

from berth.schemas import load as schema
from model_runtime.data.examples import Example
from model_runtime.evaluation.bootstrap import compare
from model_runtime.evaluation.predict import target_losses
from model_runtime.evaluation.scores import label_scores, mean_score, perplexity_score, text_scores, token_f1
from model_runtime.evaluation.signs import signs, summary
from model_runtime.load import LoadOptions, load
from model_runtime.manifest import sha256_of
from tests.model_runtime import training_runs as runs

SAID = ["the ship leaves at dawn", "a refund", "tide and harbour", ""]
WANTED = ["the ship leaves at dawn", "a refund within two hours", "the tide", "boat"]


def test_metrics_of_text_are_those_of_their_libraries() -> None:
    found = {s.name: s.result for s in text_scores(SAID, WANTED)}
    assert found["exact_match"] == 0.25
    assert found["token_f1"] == pytest.approx((1 + 2 * 1 / 5 + 2 * 1 / 4 + 0) / 4)
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(SAID, [WANTED]).score)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(SAID, [WANTED]).score)
    assert found["rouge1"] == pytest.approx((1 + 2 * 2 / 7 + 2 * 1 / 5 + 0) / 4)
    assert set(found) == {"exact_match", "token_f1", "rouge1", "rouge2", "rouge_l", "bleu", "chrf"}


def test_rouge_reads_other_scripts() -> None:
    found = {s.name: s.result for s in text_scores(["корабль уходит"], ["корабль уходит"])}
    assert found["rouge_l"] == 1.0


@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_in_bounds(a: str, b: str) -> None:
    assert token_f1(a, b) == pytest.approx(token_f1(b, a))
    assert 0 <= token_f1(a, b) <= 1
    assert token_f1(a, a) == 1


def test_labels_count_each_class_alike() -> None:
    found = {s.name: s.result for s in label_scores(["a", "a", "a", "a"], ["a", "a", "a", "b"])}
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 * 3 / 7 + 0) / 2)
    perfect = {s.name: s.result for s in label_scores(["a", "b", "c"], ["a", "b", "c"])}
    assert perfect == {"accuracy": 1.0, "macro_f1": 1.0}


def test_intervals_are_those_of_the_bootstrap() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(0.5, 0.1, 400)
    found = compare(mean_score("m", values.tolist()), draws=2000).model
    half = 1.96 * values.std() / math.sqrt(len(values))  # the normal approximation of a mean's interval
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert compare(mean_score("m", [0.25] * 9)).model.low == 0.25


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    draw = np.random.default_rng(2)
    base = draw.normal(0.5, 0.3, 100)
    found = compare(mean_score("m", (base + 0.05).tolist()), mean_score("m", base.tolist()))
    assert found.base is not None
    assert found.difference is not None
    assert found.model.low < found.base.high, "the intervals overlap"
    assert found.difference.low == pytest.approx(0.05)
    assert found.verdict == "better"
    worse = compare(perplexity_score([(2.0, 1)] * 9), perplexity_score([(1.0, 1)] * 9))
    assert worse.verdict == "worse"
    noise = compare(mean_score("m", draw.normal(0, 1, 50).tolist()), mean_score("m", draw.normal(0, 1, 50).tolist()))
    assert noise.verdict == "no clear difference"
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(mean_score("m", [1.0]), mean_score("m", [1.0, 2.0]))


def test_signs_of_repetition_and_invention() -> None:
    again = signs("the ship sails on the ship sails on the ship sails on", "the ship sails", "ship", "length")
    assert again["repetition"] > 0.5
    assert again["cut"]
    made_up = signs("the captain paid 400 dollars", "the ship left in 1912", "it left", "stop")
    assert made_up["novel_numbers"] == ["400"]
    assert made_up["novel_words"] == 1.0
    plain = signs("ship left 1912", "the ship left in 1912", "the ship left", "stop")
    assert (plain["novel_numbers"], plain["novel_words"], plain["repetition"]) == ([], 0.0, 0.0)
    assert summary([again, plain])["repetitive_percent"] == 50.0


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_perplexity_is_that_of_one_example_after_another(tiny: Any, kind: str) -> None:
    loaded = load(str(tiny(kind)), LoadOptions(device="cpu"))
    examples = [Example(i, "seq2seq", f"the ship {'at dawn ' * i}", f"leaves {'harbour ' * i}") for i in range(1, 5)]
    together = target_losses(loaded, examples, batch_size=4)
    alone = [target_losses(loaded, [e])[0] for e in examples]
    assert [n for _, n in together] == [n for _, n in alone]
    assert [x for x, _ in together] == pytest.approx([x for x, _ in alone], rel=1e-4)
    if kind == "llama":
        one = loaded.tokenizer("the ship at dawn ")["input_ids"]
        answer = [*loaded.tokenizer("leaves harbour ", add_special_tokens=False)["input_ids"], 1]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[*one, *answer]])).logits[0].log_softmax(-1)
        wanted = -sum(float(logits[len(one) - 1 + i, t]) for i, t in enumerate(answer))
        assert alone[0] == (pytest.approx(wanted, rel=1e-4), len(answer))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from model_runtime.tiny import build

    folder = tmp_path_factory.mktemp("run")
    model = build("t5", folder / "base")
    data = runs.pairs(folder / "d.jsonl")
    chosen = runs.settings(folder / "out", model, data, epochs=1.0, test_share=0.2, prompt="pig: {input}")
    return Path(runs.train(chosen).message)


def test_an_artifact_is_evaluated_beside_its_base_on_the_rows_it_never_saw(
    run_berth: Callable[..., Any], artifact: Path, tmp_path: Path
) -> None:
    ran = run_berth(
        "evaluate", artifact, "--out", tmp_path / "e", "--output-tokens", "12", "--device", "cpu", "--parquet", "--json"
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    Draft202012Validator(schema("evaluate")).validate(report)
    assert report == json.loads((tmp_path / "e" / "evaluation.json").read_text())
    names = [m["metric"] for m in report["metrics"]]
    assert names == ["exact_match", "token_f1", "rouge1", "rouge2", "rouge_l", "bleu", "chrf", "perplexity"]
    assert all(m["base"] is not None and m["verdict"] for m in report["metrics"])
    assert report["prompt"] == "pig: {input}"
    rows = [json.loads(line) for line in (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == report["examples"] == 8
    split = json.loads((artifact / "split.json").read_text())
    held = [n for first, last in split["lines"]["test"] for n in range(first, last + 1)]
    assert [row["line"] for row in rows] == held
    assert {"input", "target", "prediction", "base_prediction", "model_signs", "model_exact"} <= rows[0].keys()
    assert (tmp_path / "e" / "predictions.parquet").stat().st_size > 0
    shown = run_berth("evaluate", artifact, "-o", tmp_path / "f", "--output-tokens", "12", "--device", "cpu")
    assert "perplexity" in shown.out
    assert "Read the answers" in shown.out
    assert sha256_of(tmp_path / "f" / "predictions.jsonl") == sha256_of(tmp_path / "e" / "predictions.jsonl")


def test_a_classifier_and_plain_text_are_evaluated_by_their_own_metrics(
    run_berth: Callable[..., Any], tiny: Any, tmp_path: Path
) -> None:
    rows = [{"text": f"{w} {i}", "label": ["negative", "neutral", "positive"][i % 3]} for i, w in enumerate(runs.WORDS)]
    labelled = runs.write_rows(tmp_path / "c.jsonl", rows)
    more = ("--data", labelled, "--test", labelled, "--device", "cpu", "--json")
    found = json.loads(run_berth("evaluate", tiny("bert"), "-o", tmp_path / "c", *more).out)
    Draft202012Validator(schema("evaluate")).validate(found)
    assert [m["metric"] for m in found["metrics"]] == ["accuracy", "macro_f1"]
    assert found["base"] is None
    text = runs.write_rows(tmp_path / "t.jsonl", [{"text": f"{w} and {w}"} for w in runs.WORDS])
    more = ("--data", text, "--test", text, "--device", "cpu", "--json", "--base", tiny("llama"))
    found = json.loads(run_berth("evaluate", tiny("llama"), "-o", tmp_path / "t", *more).out)
    Draft202012Validator(schema("evaluate")).validate(found)
    assert [m["metric"] for m in found["metrics"]] == ["perplexity"]
    assert found["metrics"][0]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["metrics"][0]["verdict"] == "no clear difference"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--data", "none.jsonl"), "is no file here"),
        ((), "does not say what it was trained with"),
        (("--data", "d.jsonl", "--part", "dev"), "the data has no dev part"),
        (("--data", "d.jsonl", "--base", "nowhere"), "'nowhere' is no folder"),
    ],
)
def test_a_mistake_is_one_line(
    run_berth: Callable[..., Any], tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: Any, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runs.pairs(tmp_path / "d.jsonl")
    ran = run_berth("evaluate", tiny("t5"), "--out", tmp_path / "e", "--output-tokens", "2", *more)
    assert ran.code == 2
    assert says in ran.err.splitlines()[-1]
    assert "answers" not in ran.err  # said before a model has worked for it
    assert not (tmp_path / "e").exists()


def test_a_place_that_cannot_be_written_is_said_before_a_model_is_loaded(
    run_berth: Callable[..., Any], tiny: Any, tmp_path: Path
) -> None:
    data = runs.pairs(tmp_path / "d.jsonl")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    ran = run_berth("evaluate", tiny("t5"), "--out", tmp_path / "file" / "e", "--data", data)
    assert ran.code == 2
    assert ran.err.endswith(f"cannot be written: {tmp_path / 'file'} is no folder\n")
    assert "loading" not in ran.err
