"""`berth size` as a person meets it: the choice, as text and as JSON, and one line for whatever cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
REFERENCE = ("size", "google/flan-t5-xl", "--dtype", "fp32", "--region", "us-east-1")


def test_the_reference_case_for_people(run_berth: Run) -> None:
    ran = run_berth(*REFERENCE)
    assert (ran.code, ran.err) == (0, "")
    first = ran.out.splitlines()[:4]
    assert first[0] == "google/flan-t5-xl: 2.85B parameters, encoder-decoder, Apache-2.0"
    assert first[2].startswith(
        "g4dn.2xlarge in us-east-1, on-demand: $0.752 an hour, $548.96 a month, $6,587.52 a year"
    )
    for said in (
        "reserved-1y    $0.474   $346.02   $4,152.24",
        "SageMaker endpoint ml.g4dn.2xlarge: 25 % dearer than on demand.",
        "--loading mmap would fit with",
        "Unpriced: savings-1y, savings-3y",
        "Used rarely? A fresh machine answers after",
        "AWS Neuron (7): inf2.xlarge",
        "rule of thumb",
    ):
        assert said in ran.out
    assert ran.out.rstrip().splitlines()[-1].startswith("  berth memory google/flan-t5-xl --for inference --dtype fp32")


def test_a_cheaper_machine_by_leaner_loading_stands_right_under_the_choice(run_berth: Run) -> None:
    ran = run_berth("size", "meta-llama/Llama-3.1-8B")
    lines = ran.out.splitlines()
    assert lines[2].startswith("g6.4xlarge in us-east-1, on-demand")
    assert lines[3].startswith("  Cheaper with --loading mmap: g6.2xlarge (L4, bf16) in us-east-1, on-demand: $713.65")
    said = " ".join(line.strip() for line in lines[3:6])
    assert "$252.29 less; where the weights are safetensors and from_pretrained of transformers" in said
    assert "docs/loading.md" in said
    found = json.loads(run_berth("size", "meta-llama/Llama-3.1-8B", "--json").out)
    leaner = found["leaner_loading"]
    assert (leaner["instance_type"], leaner["loading"], leaner["usd_per_month"]) == ("g6.2xlarge", "mmap", 713.65)
    assert leaner["saves_usd_per_month"] == pytest.approx(found["choice"]["usd_per_month"] - 713.65, abs=0.011)
    taken = run_berth("size", "meta-llama/Llama-3.1-8B", "--loading", "mmap")
    assert taken.out.splitlines()[2].startswith("g6.2xlarge in us-east-1") and "Cheaper with" not in taken.out


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_text_keeps_to_the_width(run_berth: Run, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    ran = run_berth(*REFERENCE, "--requests-per-day", "2000")
    lines = ran.out.splitlines()
    commands = [line for line in lines if line.startswith("  berth ")]
    assert all(len(line) <= int(width) for line in lines if line not in commands)
    assert "…" not in ran.out


def test_json_is_one_document_of_the_agreed_shape(run_berth: Run) -> None:
    ran = run_berth(*REFERENCE, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    choice = found["choice"]
    assert (choice["instance_type"], choice["region"], choice["pay"], choice["dtype"]) == (
        "g4dn.2xlarge",
        "us-east-1",
        "on-demand",
        "fp32",
    )
    assert (choice["usd_per_hour"], choice["usd_per_month"], choice["usd_per_year"]) == (0.752, 548.96, 6587.52)
    assert choice["max_batch"] >= 1
    xlarge = next(r for r in found["refused"] if r["instance_type"] == "g4dn.xlarge")
    assert set(xlarge) == {"instance_type", "reason", "short_bytes"}
    assert xlarge["short_bytes"] > 2**30
    device = found["memory"]["device"]
    assert sum(t["bytes"] for t in device["terms"]) == device["total_bytes"]
    assert found["memory"]["rule_of_thumb"]["total_bytes"] == pytest.approx(2_849_757_184 * 4 * 1.2, abs=1)
    assert found["costs"]["by_pay"]["reserved-1y"]["usd_per_hour"] == 0.474
    assert found["sagemaker"]["difference_percent"] == 25.0


def test_a_reserved_year(run_berth: Run) -> None:
    found = json.loads(run_berth(*REFERENCE, "--pay", "reserved-1y", "--json").out)
    assert (found["choice"]["usd_per_hour"], found["choice"]["usd_per_year"]) == (0.474, 4152.24)


def test_where_nothing_will_do_one_line_names_the_nearest_miss(run_berth: Run) -> None:
    ran = run_berth("size", "meta-llama/Llama-2-70b-hf")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(
        "berth: no machine serves meta-llama/Llama-2-70b-hf as asked; the nearest is g7e.2xlarge: "
    )
    assert "GiB short" in ran.err
    assert "--max-gpus 2 would do" in ran.err


def test_and_with_json_the_refusals_are_printed_all_the_same(run_berth: Run) -> None:
    ran = run_berth("size", "meta-llama/Llama-2-70b-hf", "--json")
    assert ran.code == 2
    found = json.loads(ran.out)
    assert found["choice"] is None
    assert len(found["refused"]) > 50
    assert any(r["short_bytes"] for r in found["refused"])
    assert len(ran.err.splitlines()) == 1


def test_a_load_is_carried_within_its_latency(run_berth: Run) -> None:
    flags = ("--requests-per-day", "100000", "--latency", "8", "--hours-per-day", "12", "--peak-factor", "2")
    found = json.loads(run_berth("size", "google/flan-t5-xl", *flags, "--json").out)
    assert found["throughput"]["hosts"] == found["choice"]["hosts"] >= 1
    carried = found["throughput"]["requests_per_s_per_host"] * found["choice"]["hosts"]
    assert carried >= found["throughput"]["peak_requests_per_s"] == pytest.approx(100_000 / (12 * 3600) * 2)
    assert found["throughput"]["speed"]["latency_s"]["likely"] <= 8
    assert found["costs"]["rare_use"]["ways"]
    said = " ".join(run_berth("size", "google/flan-t5-xl", *flags).out.split())
    assert "100,000 requests a day over 12 hours, 16,667 in the busiest hour (2 × the mean)" in said
    assert f"a host carries up to {found['throughput']['requests_per_s_per_host'] * 3600:,.0f} an hour" in said


def test_without_a_model_the_smallest_that_suits_the_task_is_picked_and_said(run_berth: Run) -> None:
    ran = run_berth("size", "--task", "summarization", "--json")
    found = json.loads(ran.out)
    assert found["model"]["licence_verdict"] == "business-friendly"
    assert found["notes"][0].startswith("picked as the smallest business-friendly model for summarization")
    assert "if it does not do: " in found["notes"][0]
    assert found["workload"]["task"] == "summarization"


def test_a_folder_is_sized_like_a_name(run_berth: Run, tmp_path: Any) -> None:
    from sizing.models.catalogue import load_catalogue

    config = dict(load_catalogue().configs["mistralai/Mistral-7B-v0.1"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_folder = json.loads(run_berth("size", tmp_path, "--dtype", "fp16", "--json").out)
    by_name = json.loads(run_berth("size", "mistralai/Mistral-7B-v0.1", "--dtype", "fp16", "--json").out)
    assert by_folder["memory"]["device"]["total_bytes"] == by_name["memory"]["device"]["total_bytes"]
    assert by_folder["choice"]["max_batch"] == by_name["choice"]["max_batch"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "which model?"),
        (("--task", "dance"), "unknown task 'dance'"),
        (("google/flan-t5-xl", "--task", "chat"), "is encoder-decoder; chat wants decoder-only"),
        (("google-bert/bert-base-uncased", "--task", "summarization"), "summarization wants decoder-only or encoder"),
        (("google/flan-t5-xll",), "google/flan-t5-xl"),
        (("google/flan-t5-xl", "--batch", "0"), "batch is 0"),
        (("google/flan-t5-xl", "--batch", "-3"), "batch is -3"),
        (("google/flan-t5-xl", "--batch", "99999999"), "batch is 99,999,999"),
        (("google/flan-t5-xl", "--batch", "two"), "'two' is not a valid int"),
        (("google/flan-t5-xl", "--batch", "2", "--requests-per-day", "5"), "either --batch or --requests-per-day"),
        (("google/flan-t5-xl", "--peak-factor", "2"), "needs --requests-per-day"),
        (("google/flan-t5-xl", "--requests-per-day", "nan"), "requests-per-day is nan"),
        (("google/flan-t5-xl", "--requests-per-day", "1e30"), "requests-per-day is 1e+30"),
        (("google/flan-t5-xl", "--input-tokens", "0"), "input-tokens is 0"),
        (("google/flan-t5-xl", "--output-tokens", "-1"), "output-tokens is -1"),
        (("google-bert/bert-base-uncased", "--output-tokens", "50"), "it reads a text and writes none"),
        (("google/flan-t5-xl", "--latency", "inf"), "latency is inf"),
        (("google/flan-t5-xl", "--latency", "-1"), "latency is -1"),
        (("google/flan-t5-xl", "--latency", "0.001"), "s for one request, 0.001 s asked"),
        (("google/flan-t5-xl", "--hours-per-day", "25"), "hours-per-day is 25"),
        (("google/flan-t5-xl", "--max-monthly", "-5"), "max-monthly is -5"),
        (("google/flan-t5-xl", "--max-monthly", "1"), "over --max-monthly"),
        (("google/flan-t5-xl", "--max-gpus", "0"), "max-gpus is 0"),
        (("google/flan-t5-xl", "--region", "us-west-9"), "unknown region 'us-west-9'"),
        (("google/flan-t5-xl", "--pay", "cash"), "unknown way of paying 'cash'"),
        (("google/flan-t5-xl", "--dtype", "fp12"), "unknown dtype 'fp12'"),
        (("google/flan-t5-xl", "--loading", "teleport"), "unknown way of loading 'teleport'"),
        (("google/flan-t5-xl", "--engine", "vllm"), "vLLM serves decoder-only models"),
        (("openai-community/gpt2", "--input-tokens", "5000"), "reads at most 1,024 tokens"),
        (("openai/gpt-3.5-turbo",), "openai/gpt-3.5-turbo"),
        (("google/flan-t5-xl", "--dtype", "fp32", "--pay", "savings"), "unpriced: no savings-1y rate is known"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(run_berth: Run, flags: tuple[str, ...], says: str) -> None:
    ran = run_berth("size", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err
