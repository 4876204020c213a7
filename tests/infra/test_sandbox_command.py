"""`berth sandbox`: one local AWS for a person, ended with what is in it, and truthful about what is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cli import needs_cli
from infra_projects import SHARED, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra.sandbox import server
from infra.sandbox.aws import Aws
from sizing.errors import UserError

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, whose local AWS is ended whatever happens."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BERTH_CACHE_DIR", str(cache))
    yield cache / "sandbox"
    server.stop(cache / "sandbox")


def document(command: str, ran: Any, code: int = 0) -> dict[str, Any]:
    assert (ran.code, ran.err) == (code, "")
    found: dict[str, Any] = json.loads(ran.out)
    Draft202012Validator(load(command)).validate(found)
    return found


def test_up_status_drift_down_and_nothing_left(run_berth: Run, project: Project, folder: Path) -> None:
    assert document("sandbox status", run_berth("sandbox", "status", "--json"))["server"] is None
    made = document("sandbox up", run_berth("sandbox", "up", "--no-engine", "shared", "--json"))
    assert made["made"] == ["shared"]
    bucket = made["outputs"]["artifacts_bucket"]
    assert {"id": f"arn:aws:s3:::{bucket}", "stack": "shared"} in made["tagged"]
    again = run_berth("sandbox", "up", "--no-engine", "shared")
    assert again.code == 0
    assert again.out.startswith("shared is up since ")
    aws = Aws(made["server"]["endpoint"], "us-east-1")
    aws.client("ecr").delete_repository(repositoryName="berth/shared")
    aws.client("sns").create_topic(Name="stray", Tags=[{"Key": "project", "Value": "berth"}])
    status = document("sandbox status", run_berth("sandbox", "status", "--json"))
    assert [g["name"] for g in status["stacks"][0]["gone"]] == ["shared-images", "shared-images-lifecycle"]
    stray = f"arn:aws:sns:us-east-1:{aws.account}:stray"
    assert status["orphans"] == [{"id": stray, "stack": ""}]
    assert f"Belongs to no stack: {stray}" in run_berth("sandbox", "status").out.replace("\n", "")
    left = document("sandbox down", run_berth("sandbox", "down", "--json"), code=3)
    assert left["tagged"] == [{"id": stray, "stack": ""}]
    assert left["server_ended"] is False
    aws.client("sns").delete_topic(TopicArn=stray)
    down = run_berth("sandbox", "down")
    assert down.code == 0
    assert down.out.endswith("Listed by the tags project=berth: nothing is left. The local AWS has ended.\n")
    assert server.find(folder) is None


def test_an_empty_one_is_started_once_and_ended_by_force(run_berth: Run, folder: Path) -> None:
    first = document("sandbox up", run_berth("sandbox", "up", "--empty", "--json"))["server"]
    assert first["endpoint"].startswith("http://127.0.0.1:")
    assert document("sandbox up", run_berth("sandbox", "up", "--empty", "--json"))["server"] == first
    assert "No stack is in it." in run_berth("sandbox", "status").out
    refused = run_berth("sandbox", "down", "shared", "--force")
    assert (refused.code, refused.out) == (2, "")
    assert document("sandbox down", run_berth("sandbox", "down", "--force", "--json"))["server_ended"] is True
    assert document("sandbox down", run_berth("sandbox", "down", "--json"))["server_ended"] is False


def test_a_stale_pid_file_hits_no_other_process(folder: Path) -> None:
    """The pid is this test's own: it would not survive a `stop` that believed the file."""
    with server.locked(folder):
        told = {"pid": os.getpid(), "port": 9, "run": "gone", "since": ""}
        (folder / "server.json").write_text(json.dumps(told), encoding="utf-8")
        assert server.find(folder) is None
        assert server.stop(folder) is False
        (folder / "server.json").write_text("{", encoding="utf-8")
        assert server.find(folder) is None


def test_two_commands_at_once_are_told_apart(folder: Path) -> None:
    with (
        server.locked(folder),
        pytest.raises(UserError, match="another `berth sandbox` command"),
        server.locked(folder),
    ):
        raise AssertionError


def test_moto_that_does_not_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise RuntimeError('broken installation')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with server.locked(folder), pytest.raises(UserError, match="did not start: RuntimeError: broken installation"):
        server.start(folder)
    assert server.find(folder) is None


def test_an_unknown_stack_is_one_line(run_berth: Run, project: Project, folder: Path) -> None:
    ran = run_berth("sandbox", "up", "--no-engine", "shraed")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("berth: unknown stack 'shraed'; did you mean shared")
    assert server.find(folder) is None


@pytest.mark.engine
@pytest.mark.slow
@needs_cli
def test_through_the_engine_a_change_is_made_in_place_and_nothing_is_left(
    run_berth: Run, project: Project, folder: Path
) -> None:
    made = document("sandbox up", run_berth("sandbox", "up", "shared", "--json"))
    assert made["made"] == ["shared"]
    assert made["engine"].startswith("pulumi")
    project.write("shared", {**SHARED, "log_retention_days": 90})
    changed = run_berth("sandbox", "up", "shared")
    assert "shared: 3 to update, 19 stay" in changed.out
    status = document("sandbox status", run_berth("sandbox", "status", "--json"))
    assert [(s["name"], s["gone"]) for s in status["stacks"]] == [("shared", [])]
    assert status["orphans"] == []
    refused = run_berth("sandbox", "up", "shared", "--no-engine")
    assert (refused.code, "by Pulumi's engine" in refused.err) == (2, True)
    down = document("sandbox down", run_berth("sandbox", "down", "--json"))
    assert (down["left"], down["tagged"], down["server_ended"]) == ([], [], True)
