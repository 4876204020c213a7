"""What `berth preview` learns from a CLI, and what it says where the CLI cannot tell: always one line, never a hang."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from infra_projects import SHARED, Project

from infra.engine_preview import Ran, Run, Standing, cli, standing
from infra.preview import preview_stack

BUCKET = {
    "urn": "urn:pulumi:shared::berth::aws:s3/bucket:Bucket::old-logs", "type": "aws:s3/bucket:Bucket", "custom": True,
    "inputs": {"bucket": "old-logs"},
}  # fmt: skip
KEY = {
    "urn": "urn:pulumi:shared::berth::aws:kms/key:Key::old-key", "type": "aws:kms/key:Key", "custom": True,
    "inputs": {},
}  # fmt: skip
STACK = {"urn": "urn:pulumi:shared::berth::pulumi:pulumi:Stack::berth-shared", "type": "pulumi:pulumi:Stack"}
STATE = json.dumps({"version": 3, "deployment": {"resources": [STACK, BUCKET, KEY]}})


def answering(**answers: Ran) -> tuple[Run, list[Sequence[str]]]:
    """A CLI that answers by its first argument; and what it was asked."""
    asked: list[Sequence[str]] = []

    def run(arguments: Sequence[str], _seconds: float) -> Ran:
        asked.append(arguments)
        return answers["export" if arguments[0] == "stack" else arguments[0]]

    return run, asked


def preview_of(*steps: dict[str, Any]) -> Ran:
    return Ran(0, json.dumps({"steps": list(steps)}), "")


def test_the_engines_preview_is_taken_where_there_is_a_state(project: Project) -> None:
    steps = ({"op": "same", "urn": STACK["urn"], "oldState": STACK, "newState": STACK},
             {"op": "delete", "urn": KEY["urn"], "oldState": KEY})  # fmt: skip
    run, asked = answering(export=Ran(0, STATE, ""), preview=preview_of(*steps))
    found = preview_stack("shared", project.root, look=lambda name: standing(name, run))
    assert [r.name for r in found.plan.resources] == []
    assert found.changes is not None
    assert [(c.line.resource, float(c.per_month)) for c in found.changes] == [("old-key", -1.0)]
    assert found.to_json()["compared"] == "pulumi's own preview, against the state"
    assert asked == [["stack", "export", "--stack", "shared"], ["preview", "--json", "--stack", "shared"]]


def test_where_the_engine_cannot_preview_the_offline_plan_is_compared_with_the_state(project: Project) -> None:
    told = {"diagnostics": [{"severity": "error", "message": "error: no AWS credentials\n"}], "steps": []}
    run, _ = answering(export=Ran(0, STATE, ""), preview=Ran(255, json.dumps(told), ""))
    found = preview_stack("shared", project.root, look=lambda name: standing(name, run))
    assert found.compared == "the offline plan against the state; pulumi cannot preview: no AWS credentials"
    assert found.changes is not None
    changes = {c.line.resource: float(c.per_month) for c in found.changes}
    assert changes["old-key"] == -1.0
    assert changes["shared-storage-key"] == 1.0


@pytest.mark.parametrize(
    ("export", "said"),
    [
        (Ran(255, "", "error: no stack named 'shared' found"), "pulumi has no state of shared yet"),
        (Ran(0, '{"deployment": {"resources": null}}', ""), "the state of shared is empty"),
        (Ran(255, "", "error: PULUMI_ACCESS_TOKEN must be set"), "not logged in: `pulumi login --local` keeps"),
        (Ran(255, "", "error: passphrase must be set with"), "will do: export PULUMI_CONFIG_PASSPHRASE="),
        (Ran(None, "", ""), "cannot read the state: it did not answer within 30 s"),
        (Ran(0, "[]", ""), "pulumi's state is not as expected"),
    ],
    ids=["no stack", "empty", "not logged in", "no passphrase", "silent", "another format"],
)  # fmt: skip
def test_what_is_not_known_is_one_line_and_the_plan_stands_alone(export: Ran, said: str) -> None:
    run, _ = answering(export=export)
    found = standing("shared", run)
    assert found == Standing(said=found.said)
    assert found.said.startswith("planned offline, against nothing: ")
    assert said in found.said


@pytest.fixture
def fake_cli(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment whose `pulumi` is a script."""

    def make(script: str) -> dict[str, str]:
        program = tmp_path / "bin" / "pulumi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return {**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin"}

    return make


def test_a_cli_that_asks_or_hangs_is_ended_with_what_it_started(
    tmp_path: Path, fake_cli: Callable[[str], dict[str, str]]
) -> None:
    run = cli(tmp_path, fake_cli(f'read answer && exit 9\nsleep 600 &\necho $! > "{tmp_path}/child"\nwait'))
    assert run is not None
    assert run(["stack", "export"], 1.0) == Ran(None, "", "")
    child = (tmp_path / "child").read_text(encoding="utf-8").strip()
    living = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert living.strip() == "" or living.startswith("Z")


def test_a_cli_is_told_to_ask_nothing_and_to_fetch_nothing(
    tmp_path: Path, fake_cli: Callable[[str], dict[str, str]]
) -> None:
    run = cli(tmp_path, fake_cli('echo "$@ $PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION $PULUMI_SKIP_UPDATE_CHECK"'))
    assert run is not None
    assert run(["stack", "export"], 20.0).out == f"stack export --non-interactive --cwd {tmp_path} true true\n"


def test_offline_and_without_a_cli(run_berth: Callable[..., Any], project: Project, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(project.root))
    project.write("shared", SHARED)
    assert "Compared: planned offline, against nothing: no pulumi CLI" in run_berth("preview", "shared").out
    ran = run_berth("preview", "shared", "--offline", "--json")
    assert json.loads(ran.out)["compared"] is None
