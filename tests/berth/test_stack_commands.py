"""`berth new`, `berth settings`, `berth preview` as a person uses them, in a project of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Keys
from infra.stack_files import render_project

Run = Callable[..., Any]
REFERENCE = ("new", "trial", "--role", "inference", "--model", "google/flan-t5-xl", "--dtype", "fp32", "--owner", "me")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_berth: Run) -> Path:
    """A project with a shared stack, which is the current folder."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(render_project(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run_berth("new", "shared", "--role", "shared", "--owner", "me", "--budget", "50").code == 0
    return tmp_path


def test_a_new_stack_records_the_reference_choice(root: Path, run_berth: Run) -> None:
    ran = run_berth(*REFERENCE)
    assert ran.code == 0, ran.err
    text = (root / "stacks" / "Pulumi.trial.yaml").read_text(encoding="utf-8")
    assert "berth:instance_type: g4dn.2xlarge" in text and "berth:dtype: fp32" in text
    assert "# Sizing's choice for google/flan-t5-xl" in text
    assert "use1-az1" in text
    assert "Next: berth preview trial" in ran.out


def test_the_default_budget_lets_the_plan_pass(root: Path, run_berth: Run) -> None:
    assert run_berth(*REFERENCE, "--email", "me@example.com").code == 0
    document = json.loads(run_berth("preview", "trial", "--json").out)
    month, budget = document["bill"]["usd_per_month"], document["bill"]["budget_per_month"]
    assert month < budget <= month * 1.2 + 10
    assert document["violations"] == []


def test_an_existing_file_is_kept_unless_it_is_forced(root: Path, run_berth: Run) -> None:
    path = root / "stacks" / "Pulumi.trial.yaml"
    path.write_text("mine", encoding="utf-8")
    ran = run_berth(*REFERENCE)
    assert ran.code == 2 and "--force" in ran.err and path.read_text(encoding="utf-8") == "mine"
    assert run_berth(*REFERENCE, "--force").code == 0
    assert "google/flan-t5-xl" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--role", "server", "--model", "google/flan-t5-xl"), "role is 'server'"),
        (("--role", "inference"), "model: is missing"),
        (("--role", "inference", "--model", "google/flan-t5-xxxl"), "unknown model"),
        (("--role", "inference", "--model", "google/flan-t5-xl", "--region", "us-east-9"), "unknown region"),
        (
            ("--role", "inference", "--model", "google/flan-t5-xl", "--instance-type", "g4dn.3xlarge"),
            "unknown instance",
        ),
        (("--role", "inference", "--model", "google/flan-t5-xl", "--ttl", "soon"), "time_to_live"),
        (("--role", "inference", "--model", "google/flan-t5-xl", "--pay", "credit"), "way of paying"),
        (("--role", "inference", "--model", "bigscience/bloom", "--dtype", "fp32"), "no instance type serves"),
        (
            ("--role", "endpoint", "--model", "google/flan-t5-xl", "--region", "eu-central-1"),
            "no SageMaker hosting rate is known in eu-central-1",
        ),
        (("--role", "training", "--model", "google/flan-t5-xl"), "examples: is missing"),
        (("--role", "shared", "--model", "google/flan-t5-xl"), "a shared stack has none"),
    ],
)
def test_a_stack_that_cannot_be_is_one_line_and_no_file(
    root: Path, run_berth: Run, arguments: tuple[str, ...], says: str
) -> None:
    ran = run_berth("new", "trial", "--owner", "me", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1 and says in ran.err
    assert not (root / "stacks" / "Pulumi.trial.yaml").exists()


def test_best_takes_the_cheapest_steady_way_of_paying(root: Path, run_berth: Run) -> None:
    ran = run_berth(*REFERENCE, "--pay", "best", "--budget", "900", "--json")
    settings = json.loads(ran.out)["settings"]
    assert settings["purchase"] == "reserved-3y" and settings["instance_type"] == "g4dn.2xlarge"


def test_an_endpoint_takes_a_type_that_sagemaker_hosts(root: Path, run_berth: Run) -> None:
    ran = run_berth(
        "new",
        "ep",
        "--role",
        "endpoint",
        "--model",
        "google/flan-t5-base",
        "--owner",
        "me",
        "--budget",
        "900",
        "--json",
    )
    assert ran.code == 0, ran.err
    document = json.loads(run_berth("preview", "ep", "--json").out)
    assert document["bill"]["unpriced"] == []


def test_what_is_left_open_is_recorded_once(root: Path, run_berth: Run) -> None:
    made = run_berth(
        "new", "ft", "--role", "training", "--model", "google/flan-t5-xl", "--data", "20k", "--dataset", "d/x",
        "--owner", "me",
    )  # fmt: skip
    assert made.code == 0, made.err
    recorded = json.loads(run_berth("settings", "ft", "--record", "--json").out)["recorded"]
    assert set(recorded) == {"expires_at"}
    assert json.loads(run_berth("settings", "ft", "--record", "--json").out)["recorded"] == {}
    assert "Everything was recorded already" in run_berth("settings", "ft", "--record").out


def test_settings_explains_every_key(root: Path, run_berth: Run) -> None:
    rows = json.loads(run_berth("settings", "--json").out)
    assert [r["key"] for r in rows] == [f"berth:{key}" for key in Keys.all()]
    shown = run_berth("settings", "--role", "training").out
    assert "capacity_block_id" in shown and "callers" not in shown
    run_berth(*REFERENCE)
    own = run_berth("settings", "trial").out
    assert "use1-az1, use1-az2" in own and "['" not in own and "False" not in own
    assert run_berth("settings", "--role", "trainer").code == 2
    assert run_berth("settings", "--record").code == 2


def test_a_preview_for_people_has_resources_bill_and_verdict(root: Path, run_berth: Run) -> None:
    run_berth(*REFERENCE, "--email", "me@example.com")
    ran = run_berth("preview", "trial")
    assert ran.code == 0, ran.err
    for text in ("host-instance", "g4dn.2xlarge (on-demand)", "$0.7520", "Sum", "All policies pass.", "Depends on use"):
        assert text in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 100
    assert "host-group-https" not in run_berth("preview", "trial", "--no-resources").out


def test_new_says_what_policies_would_refuse(root: Path, run_berth: Run) -> None:
    """A machine that cannot hold the model, nobody who is told: said when the file is written, not at `up`."""
    ran = run_berth(*REFERENCE, "--instance-type", "g4dn.xlarge", "--budget", "900")
    assert ran.code == 0, ran.err
    assert "policy machine-too-small refuses" in ran.out and "9.90 GiB short" in ran.out
    assert "policy gpu-without-guard refuses" in ran.out and "alarm_email" in ran.out
    assert "over-budget" not in ran.out
    fine = run_berth(*REFERENCE, "--email", "me@example.com", "--force", "--json")
    assert not [note for note in json.loads(fine.out)["notes"] if note.startswith("policy")]


def test_new_records_the_way_of_loading_and_takes_the_machine_that_it_opens(root: Path, run_berth: Run) -> None:
    """The plain way is the default, names what the leaner one would save, and is not written down."""
    llama = ("--role", "inference", "--model", "meta-llama/Llama-3.1-8B", "--email", "me@example.com")
    plain = run_berth("new", "plain", *llama)
    assert "berth:instance_type: g6.4xlarge" in plain.out and "berth:loading" not in plain.out
    assert "Note: Cheaper with --loading mmap: g6.2xlarge" in plain.out
    mapped = run_berth("new", "mapped", *llama, "--loading", "mmap")
    assert "berth:instance_type: g6.2xlarge" in mapped.out and "berth:loading: mmap" in mapped.out
    assert "Cheaper" not in mapped.out and "policy" not in mapped.out
    ran = run_berth("preview", "mapped", "--offline", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["violations"] == []
    wrong = run_berth("new", "wrong", *llama, "--loading", "mapped")
    assert (wrong.code, "loading: input should be 'plain' or 'mmap'" in wrong.err) == (2, True)


def test_a_plan_that_a_policy_refuses_ends_with_3(root: Path, run_berth: Run) -> None:
    run_berth(*REFERENCE, "--budget", "100")
    ran = run_berth("preview", "trial")
    assert ran.code == 3 and "over-budget" in ran.out and "gpu-without-guard" in ran.out
    document = json.loads(run_berth("preview", "trial", "--json").out)
    assert {v["rule"] for v in document["violations"]} == {"over-budget", "gpu-without-guard"}


def test_the_json_has_every_resource_with_inputs_parent_and_options(root: Path, run_berth: Run) -> None:
    run_berth(*REFERENCE)
    document = json.loads(run_berth("preview", "trial", "--json").out)
    for resource in document["resources"]:
        assert set(resource) == {"urn", "type", "name", "parent", "inputs", "options", "custom"}
    machine = next(r for r in document["resources"] if r["type"] == "aws:ec2/instance:Instance")
    assert machine["parent"].endswith("InferenceHost::trial-host") and machine["options"]["ignore_changes"] == ["ami"]
    assert all(line["source"] for line in document["bill"]["lines"] if line["status"] == "priced")


def test_the_page_holds_the_bill_and_escapes_what_it_shows(root: Path, run_berth: Run) -> None:
    run_berth(*REFERENCE[:-1], "<script>alert(1)</script>")
    page = root / "preview.html"
    ran = run_berth("preview", "trial", "--html", str(page))
    assert ran.code in (0, 3), ran.err
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "g4dn.2xlarge (on-demand)" in text
    assert "<script" not in text and "http://" not in text.replace("http://trial.berth.internal", "")


def test_the_page_fits_a_phone(root: Path, run_berth: Run, show: Any) -> None:
    run_berth(*REFERENCE, "--email", "me@example.com", "--schedule", "Mon-Fri 08:00-18:00 Europe/Berlin")
    assert run_berth("preview", "trial", "--html", "p.html").code == 0
    browser = show(root / "p.html", 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    bill = browser.find_element("tag name", "table")
    assert bill.size["width"] <= 390 and "$163.38" in bill.text and "$548.96" in bill.text


def test_a_usage_file_counts_in_the_preview(root: Path, run_berth: Run) -> None:
    run_berth(*REFERENCE)
    (root / "usage.yaml").write_text("log_gb: 10\n", encoding="utf-8")
    plain = json.loads(run_berth("preview", "trial", "--json").out)["bill"]["usd_per_month"]
    used = json.loads(run_berth("preview", "trial", "--usage", "usage.yaml", "--json").out)["bill"]["usd_per_month"]
    assert used == pytest.approx(plain + 5.0)
    assert run_berth("preview", "trial", "--usage", "nowhere.yaml").code == 2


@pytest.mark.parametrize("arguments", [("preview", "nowhere"), ("settings", "nowhere"), ("preview", "../etc/passwd")])
def test_a_stack_that_is_not_there_is_one_line(root: Path, run_berth: Run, arguments: tuple[str, ...]) -> None:
    ran = run_berth(*arguments)
    assert ran.code == 2 and len(ran.err.splitlines()) == 1 and "Traceback" not in ran.err
