"""Every committed stack passes checkov's AWS checks; what is accepted stands in one file with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from infra_projects import INFERENCE, STACKS, TRAINING, Project, committed

from infra.policy.terraform import TYPES, snake, to_terraform
from infra.stack_files import ROOT, load_yaml, plain

EXCEPTIONS = ROOT / "infra" / "policy" / "checkov_exceptions.yaml"
CHECKOV = os.environ.get("CHECKOV") or shutil.which("checkov") or str(ROOT / ".venv-checkov" / "bin" / "checkov")


@pytest.mark.parametrize("name", STACKS)
def test_every_resource_is_exported(name: str) -> None:
    plan = committed(name)
    text = to_terraform(plan)
    aws = [r for r in plan.resources if r.type.startswith("aws:")]
    assert text.count('\nresource "') + text.startswith('resource "') == len(aws)
    assert {r.type for r in aws} <= set(TYPES)


def test_references_stand_for_ids_and_templates_are_escaped() -> None:
    text = to_terraform(committed("inference-dev"))
    assert "subnet_id = aws_subnet.inference-dev-network-private-use1-az1.id" in text
    assert "iam_instance_profile = aws_iam_instance_profile.inference-dev-identity-profile.name" in text
    assert 'http_tokens = "required"' in text
    assert "$${aws:InstanceId}" in text
    assert snake("applyServerSideEncryptionByDefault") == "apply_server_side_encryption_by_default"


def test_every_exception_names_resources_and_a_reason() -> None:
    for check, entry in plain(load_yaml(EXCEPTIONS)).items():
        assert check.startswith("CKV"), check
        assert set(entry) == {"resources", "reason"} and entry["resources"] and len(entry["reason"]) > 40, check


def checked(folder: Path, texts: dict[str, str]) -> dict[str, Any]:
    if not Path(CHECKOV).is_file():
        pytest.skip("checkov is not installed; `make security` installs it and runs this test")
    for name, text in texts.items():
        (folder / name).mkdir()
        (folder / name / "main.tf").write_text(text, encoding="utf-8")
    command = [CHECKOV, "-d", str(folder), "--framework", "terraform", "--skip-download", "-o", "json", "--compact"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    document = json.loads(ran.stdout)
    assert document["summary"]["parsing_errors"] == 0, ran.stderr
    return document


@pytest.mark.slow
def test_the_committed_stacks_pass_checkov_but_for_the_accepted_exceptions(tmp_path: Path) -> None:
    document = checked(tmp_path, {name: to_terraform(committed(name)) for name in STACKS})
    assert document["summary"]["resource_count"] >= sum(
        r.type.startswith("aws:") for name in STACKS for r in committed(name).resources
    )
    exceptions, used, wrong = plain(load_yaml(EXCEPTIONS)), set(), []
    for failure in document["results"]["failed_checks"]:
        check, resource = failure["check_id"], failure["resource"].split(".", 1)[1]
        patterns = exceptions.get(check, {}).get("resources", [])
        if any(fnmatch(resource, pattern) for pattern in patterns):
            used.add(check)
        else:
            wrong.append(f"{check} {failure['resource']}: {failure['check_name']}")
    assert wrong == []
    assert set(exceptions) - used == set(), "exceptions that nothing needs any more"


@pytest.mark.slow
def test_checkov_sees_what_the_rules_see(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A control: with the precautions taken out, the export fails the checks that it passes."""
    text = to_terraform(project.plan(INFERENCE))
    text = text.replace('http_tokens = "required"', 'http_tokens = "optional"').replace(
        "encrypted = true", "encrypted = false"
    )
    training = to_terraform(project.plan({**TRAINING, "nodes": 2}))
    document = checked(tmp_path_factory.mktemp("tf"), {"bad": text, "training": training})
    failed = {(f["check_id"], f["file_path"].split("/")[1]) for f in document["results"]["failed_checks"]}
    assert {("CKV_AWS_79", "bad"), ("CKV_AWS_8", "bad")} <= failed
    assert not {("CKV_AWS_79", "training"), ("CKV_AWS_8", "training")} & failed
