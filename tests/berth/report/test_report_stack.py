"""`berth report STACK`: what a stack file alone tells, what its runs left, and which file goes before which."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from berth.report.gpus import gpu_of, same_gpu, short_gpu
from infra.stack_files import render_project, render_stack
from tests.berth.report.report_documents import MODEL, evaluation, measurement
from tests.berth.report.test_report_command import SUMMARY

Run = Callable[..., Any]
INFERENCE = {
    "role": "inference", "owner": "tests", "budget_per_month": 100_000, "alarm_email": "tests@example.com",
    "model": MODEL, "instance_type": "g4dn.2xlarge", "dtype": "fp32", "zones": ["use1-az1"],
}  # fmt: skip
A100_40, A100_80 = 42_298_834_944, 85_100_000_000


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stack(latency_ms=…)`: a project in the current folder with the stack `trial`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(render_project(), encoding="utf-8")

    def write(**changes: Any) -> None:
        values = {k: v for k, v in {**INFERENCE, **changes}.items() if v is not None}
        for name, given in (("trial", values), ("shared", {"role": "shared", "owner": "t", "budget_per_month": 50})):
            path = tmp_path / "stacks" / f"Pulumi.{name}.yaml"
            path.write_text(render_stack("us-east-1", given, {}), encoding="utf-8")

    return write


@pytest.fixture
def left(tmp_path: Path) -> Callable[..., Path]:
    """`left("verify.json", document)`: a file in reports/trial/."""

    def write(name: str, document: Any, age: float = 0.0) -> Path:
        path = tmp_path / "reports" / "trial" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), encoding="utf-8")
        moment = path.stat().st_mtime - age
        os.utime(path, (moment, moment))
        return path

    return write


def on_t4(**changes: Any) -> dict[str, Any]:
    found = measurement(**changes)
    found["machine"]["gpus"] = [{"name": "Tesla T4", "memory_bytes": 15_655_829_504, "compute_capability": 7.5}]
    found["model"] |= {"dtype": "fp32", "name": "trial"}
    return found


def as_json(ran: Any) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def glance(report: dict[str, Any]) -> dict[str, str]:
    return {fact["label"]: fact["value"] for fact in report["glance"]}


def test_a_stack_file_alone_gives_model_memory_machine_cost_and_end(run_berth: Run, stack: Any) -> None:
    stack()
    report = as_json(run_berth("report", "trial", "--format", "json"))
    assert {"model", "memory", "machine", "cost", "risks", "teardown"} <= {s["id"] for s in report["sections"]}
    assert glance(report)["Machine"] == "1 × g4dn.2xlarge"
    assert "nothing has been measured" in report["tentative"][0]
    bill = json.loads(run_berth("preview", "trial", "--json").out)["bill"]
    assert glance(report)["A month"] == f"${bill['usd_per_month']:,.2f}"
    assert {source["kind"] for source in report["sources"]} == {"size", "preview"}


def test_the_command_of_sizing_s_numbers_prints_them(run_berth: Run, stack: Any) -> None:
    stack(schedule="Mon-Fri 08:00-18:00 Europe/Berlin")
    report = as_json(run_berth("report", "trial", "--format", "json"))
    (command,) = [source["command"] for source in report["sources"] if source["kind"] == "size"]
    sized = json.loads(run_berth(*shlex.split(command)[1:]).out)
    assert sized["choice"]["instance_type"] == "g4dn.2xlarge"
    assert any(f["value"] == f"${sized['costs']['by_pay']['on-demand']['usd_per_1000_requests']:,.2f}"
               for f in report["glance"])  # fmt: skip


def test_a_stack_that_maps_its_weights_is_sized_that_way(run_berth: Run, stack: Any) -> None:
    """16 GiB hold the model then; counted the plain way the machine would be refused."""
    stack(instance_type="g4dn.xlarge", loading="mmap")
    report = as_json(run_berth("report", "trial", "--format", "json"))
    assert glance(report)["Machine"] == "1 × g4dn.xlarge"
    (command,) = [source["command"] for source in report["sources"] if source["kind"] == "size"]
    assert "--loading mmap" in command
    assert json.loads(run_berth(*shlex.split(command)[1:]).out)["choice"]["instance_type"] == "g4dn.xlarge"


def test_a_machine_that_sizing_would_not_choose_is_reported_with_what_it_would(run_berth: Run, stack: Any) -> None:
    stack(instance_type="g5.2xlarge")
    report = as_json(run_berth("report", "trial", "--format", "json"))
    assert glance(report)["Machine"] == "1 × g5.2xlarge"
    (machine,) = [s for s in report["sections"] if s["id"] == "machine"]
    assert "the stack records g5.2xlarge" in json.dumps(machine)
    assert "g4dn.2xlarge" in json.dumps(machine)


def test_what_runs_left_is_found_and_the_newest_counts(run_berth: Run, stack: Any, left: Any, tmp_path: Path) -> None:
    stack()
    left("run-1/evaluation.json", evaluation("rougeL", examples=100), age=3600)
    left("run-2/evaluation.json", evaluation("rougeL", examples=900))
    left("review.json", SUMMARY)
    left("verify.json", on_t4())
    left("config.json", {"model_type": "t5"})
    left("damaged.json", {"format": "berth-measurement/1"})
    left("gone.json", {}).unlink()
    (tmp_path / "reports" / "trial" / "gone.json").symlink_to("nowhere")
    ran = run_berth("report", "trial", "--format", "json")
    report = as_json(ran)
    assert report["tentative"] == []
    assert '"value": "900"' in json.dumps(report)
    assert "passed over, a newer one is there: " in ran.err
    assert "damaged.json looks like what `berth verify" in ran.err
    assert "config.json" not in ran.err
    named = {source["kind"]: source["path"] for source in report["sources"]}
    assert named["evaluation"].endswith("run-2/evaluation.json")


def test_a_file_that_is_given_goes_before_those_that_are_found(
    run_berth: Run, stack: Any, left: Any, tmp_path: Path
) -> None:
    stack()
    left("evaluation.json", evaluation("rougeL", examples=100))
    given = tmp_path / "own.json"
    given.write_text(json.dumps(evaluation("rougeL", examples=42)), encoding="utf-8")
    report = as_json(run_berth("report", "trial", "--from", given, "--format", "json"))
    assert '"value": "42"' in json.dumps(report)


def test_a_measurement_at_the_stack_s_own_address_makes_it_firm(run_berth: Run, stack: Any, left: Any) -> None:
    stack()
    behind = {
        "name": "trial", "role": "inference", "region": "us-east-1", "address": "http://host", "model": MODEL,
        "dtype": "fp32", "instance_type": "g4dn.2xlarge", "batch": 1, "estimate": None,
    }  # fmt: skip
    outside = measurement(machine=None, model=None, target="http://host", stack=behind)
    left("verify.json", outside)
    report = as_json(run_berth("report", "trial", "--format", "json"))
    assert report["tentative"] == []
    assert "An answer takes, as estimated" not in glance(report)
    inside = {**outside, "target": "http://x", "stack": {**behind, "stand_in": True}}
    left("verify.json", inside)
    report = as_json(run_berth("report", "trial", "--format", "json"))
    (why,) = report["tentative"]
    assert "a stand-in at http://host was measured in the sandbox" in why
    notes = {fact["label"]: fact["note"] for fact in report["glance"]}
    assert "not shown to be the machine planned" in notes["9 of 10 answers within"]
    assert "batch of 1" in notes["An answer takes, as estimated"]
    assert "never idle" in notes["1,000 requests"]
    left("verify.json", measurement(machine=None, model=None, stack={**behind, "name": "other"}))
    ran = run_berth("report", "trial")
    assert ran.code == 2
    assert "verify.json says other" in ran.err


def test_operation_and_feedback_have_their_section(run_berth: Run, stack: Any, left: Any) -> None:
    stack()
    nothing = {"p50_s": None, "p95_s": None}
    observed = {
        "hours": 24.0, "requests": 5000, "requests_per_s": 0.06, "busiest_hour_requests": 600, "peak_factor": 2.9,
        "latency": {"p50_s": 0.9, "p95_s": 2.5}, "queue_time": nothing, "first_token": nothing,
        "balancer_latency": nothing, "errors": 3, "server_errors": 1, "truncations": None, "memory_splits": None,
        "input_tokens_per_request": 200.0, "output_tokens_per_request": 50.0, "batch": 1.2, "gpu_percent": 31.0,
        "gpu_percent_most": 88.0, "gpu_memory_bytes": 13_000_000_000, "gpu_memory_percent": None, "host_hours": 24.0,
        "stood_hours": 24.0,
    }  # fmt: skip
    left("metrics.json", {
        "format": "berth-metrics/1", "stack": "trial", "role": "inference", "model": MODEL, "dtype": "fp32",
        "region": "us-east-1", "since": "2026-11-20T00:00:00+00:00", "until": "2026-11-21T00:00:00+00:00",
        "machines": {"instance_type": "g4dn.2xlarge", "planned": 1, "instances": [], "endpoint": None},
        "observed": observed, "gpu_memory_bytes_there": 16_106_127_360,
        "limits": {"input_tokens": 512, "output_tokens": 128}, "latency_wish_s": 5.0, "planned_requests_per_day": None,
        "cost": {"usd_spent": 19.8, "usd_per_1000_requests": 3.96, "planned_usd_per_1000_requests": None,
                 "unpriced": [], "unknown_because": None},
        "advice": {"kind": "cheaper", "reasons": ["$50.00 less a month"], "workload": None,
                   "instance_type": "g4dn.xlarge", "hosts": 1, "usd_per_month": 380.0, "now_usd_per_month": 430.0,
                   "capacity_requests_per_s": 0.2},
        "notes": [],
    })  # fmt: skip
    left("feedback.json", {
        "format": "berth-feedback/1", "stack": "trial", "region": "us-east-1", "since": "2026-11-20T00:00:00+00:00",
        "records": 3, "objects": 1, "bad_lines": 0, "bad": [],
        "requests": {"sources": ["s3://b/p/"], "known": 3, "bad_lines": 0, "bad": []},
        "answers": {"of": "base", "joined": 3, "unmatched": 0, "several_texts": 0},
        "ratings": {"counts": {"1": 0, "2": 1, "3": 0, "4": 0, "5": 2}, "mean": 4.0}, "corrections": 1, "comments": 0,
        "training": {"form": "seq2seq", "rows": 3, "corrected": 1, "good": 2, "duplicates": 0, "left_out": 0,
                     "conversations": 0},
        "files": {"predictions": None, "training_data": None, "review": None},
    })  # fmt: skip
    text = run_berth("report", "trial", "--format", "md").out
    for said in ("## In operation", "5,000", "2.5 s", "31 %", "$3.96", "1 × g4dn.xlarge", "4.0 of 5"):
        assert said in text
    assert "berth metrics trial --since 2026-11-20T00:00:00+00:00 --json" in text


def test_what_lies_in_the_bucket_is_fetched(run_berth: Run, stack: Any, tmp_path: Path) -> None:
    from moto import mock_aws

    stack()
    with mock_aws():
        account = boto3.client("sts").get_caller_identity()["Account"]
        s3, name = boto3.client("s3", region_name="us-east-1"), f"berth-{account}-us-east-1-artifacts"
        missing = run_berth("report", "trial", "--fetch")
        assert missing.code == 2
        assert "does not exist" in missing.err
        s3.create_bucket(Bucket=name)
        for key, body in {
            "output/trial/run-7/evaluation.json": json.dumps(evaluation()),
            "output/trial/run-7/artifact/config.json": '{"model_type": "t5"}',
            "output/trial/feedback/x.json": json.dumps(evaluation(examples=1)),
            "output/trial/broken.json": "{",
            "output/other/evaluation.json": json.dumps(evaluation(examples=2)),
        }.items():
            s3.put_object(Bucket=name, Key=key, Body=body.encode())
        ran = run_berth("report", "trial", "--fetch", "--format", "json")
    report = as_json(ran)
    assert "1 documents came into" in ran.err
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.json")] == [
        "reports/trial/run-7/evaluation.json"
    ]
    assert '"value": "200"' in json.dumps(report)


def test_a_training_stack_tells_its_run_and_how_it_went(run_berth: Run, stack: Any, left: Any) -> None:
    stack(role="training", instance_type="p4d.24xlarge", dtype="bf16", dataset="datasets/t", time_to_live="24h",
          method="full", examples=100_000)  # fmt: skip
    left("training.json", {
        "format": "berth-training/1", "finished_at": "2026-11-20T10:00:00+00:00", "base": {"model": MODEL},
        "method": "full", "precision": "bf16", "plan": {"processes": 8, "nodes": 1, "global_batch": 64},
        "data": {"parts": {"train": 90_000, "test": 500}},
        "result": {"steps": 1407, "epochs": 1.0, "last_loss": 1.25, "best_validation_loss": 1.31},
    })  # fmt: skip
    report = as_json(run_berth("report", "trial", "--format", "json"))
    assert {"training", "run"} <= {s["id"] for s in report["sections"]}
    assert "At worst" in glance(report)
    assert "A fine-tune" in glance(report)
    assert "1,407" in json.dumps(report)


def test_what_is_wrong_is_one_line(run_berth: Run, stack: Any) -> None:
    stack()
    for arguments, said in (
        (("trail",), "unknown stack 'trail'; did you mean trial?"),
        (("--fetch",), "name it: berth report STACK"),
        (("trial", "--fetch", "--sandbox"), "the sandbox does not run"),
    ):
        ran = run_berth("report", *arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert said in ran.err


def test_the_sizes_of_one_gpu_are_told_apart() -> None:
    assert short_gpu("NVIDIA A100-SXM4-40GB", A100_40) == gpu_of("p4d.24xlarge") == "A100 40 GB"
    assert short_gpu("NVIDIA A100-SXM4-80GB", A100_80) == gpu_of("p4de.24xlarge") == "A100 80 GB"
    assert short_gpu("NVIDIA A100 80GB PCIe") == "A100 80 GB"
    assert short_gpu("NVIDIA A100") == "A100"
    assert short_gpu("NVIDIA A100", 7) == "A100"
    assert short_gpu("NVIDIA A10G", 23_000_000_000) == "A10G"
    assert same_gpu("A100", "A100 80 GB")
    assert not same_gpu("A100 40 GB", "A100 80 GB")
    assert not same_gpu("A10G", "A100")


def test_a_measurement_on_the_other_size_is_a_contradiction(run_berth: Run, stack: Any, left: Any) -> None:
    stack(instance_type="p4d.24xlarge", dtype="bf16")
    other = measurement()
    other["machine"]["gpus"] = [{"name": "NVIDIA A100-SXM4-80GB", "memory_bytes": A100_80, "compute_capability": 8.0}]
    left("verify.json", other)
    ran = run_berth("report", "trial")
    assert ran.code == 2
    assert "says GPU A100 40 GB" in ran.err
    other["machine"]["gpus"] = [{"name": "NVIDIA A100-SXM4-40GB", "memory_bytes": A100_40, "compute_capability": 8.0}]
    left("verify.json", other)
    assert as_json(run_berth("report", "trial", "--format", "json"))["tentative"] == []
