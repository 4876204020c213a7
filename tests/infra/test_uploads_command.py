"""`berth bundle STACK --upload`, `berth fetch` and `berth serve STACK`, as a person meets them, on a local AWS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from infra_projects import INFERENCE, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.stack_files import read_stack
from model_runtime.manifest import check_folder
from model_runtime.tiny import build

Run = Callable[..., Any]


@pytest.fixture
def local(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, run_berth: Run
) -> Iterator[Project]:
    """A project whose shared stack is up on a local AWS of its own, which is ended whatever happens."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BERTH_CACHE_DIR", str(cache))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without a pulumi CLI
    project.write("trial", INFERENCE)
    ran = run_berth("up", "shared", "--sandbox", "--yes")
    assert ran.code == 0, ran.err
    yield project
    server.stop(cache / "sandbox")


def document(command: str, ran: Any) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    Draft202012Validator(load(command)).validate(found)
    return found


def bucket() -> tuple[Any, str]:
    found = server.find(server.sandbox_dir())
    assert found is not None
    aws = Aws(found.endpoint, "us-east-1")
    return aws.client("s3"), f"berth-{aws.account}-us-east-1-artifacts"


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Looks like a model to everything that does not load it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "model.safetensors").write_bytes(os.urandom(5_000))
    return folder


def test_up_it_goes_and_down_it_comes_and_the_person_s_file_stays(local: Project, run_berth: Run, model: Path) -> None:
    before = (local.root / "stacks" / "Pulumi.trial.yaml").read_text()
    made = document("bundle", run_berth("bundle", "trial", "--upload", "--sandbox", "--model-folder", model, "--json"))
    assert [entry["what"] for entry in made["uploads"]] == ["model", "bundle"]
    assert (made["kind"], made["stack"], made["folder"]) == (
        "serving",
        "trial",
        str(local.root / "build" / "bundles" / "trial"),
    )
    assert "is not known" in made["notes"][0]
    assert (local.root / "stacks" / "Pulumi.trial.yaml").read_text() == before
    (copy,) = server.sandbox_dir().glob("runs/*/project")
    assert read_stack("trial", copy).given["bundle_manifest_sha256"] == made["manifest_sha256"]
    shown = run_berth("bundle", "trial", "--upload", "--sandbox", "--no-archive")
    assert "0 of them sent" in shown.out
    assert "recorded in the sandbox's copy of the stack file" in shown.out
    got = document("fetch", run_berth("fetch", "trial", "--sandbox", "-o", local.root / "here", "--json"))
    assert got["model"] == str(local.root / "here")
    assert check_folder(local.root / "here")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trail",), "unknown stack or folder 'trail'"),
        (("trial", "--model-folder", "m"), "--model-folder need --upload"),
        (("trial", "--include-weights"), "--model-folder uploads a model"),
        (("google/flan-t5-xl", "-o", "b", "--upload"), "are for a stack, and google/flan-t5-xl is none"),
        (("google/flan-t5-xl",), "Give --out DIR"),
        (("trial", "--upload", "--sandbox"), "the sandbox does not run"),
        (("shared",), "has the role shared"),
    ],
)
def test_a_mistake_is_told_in_one_line(run_berth: Run, project: Project, arguments: tuple[str, ...], says: str) -> None:
    project.write("trial", INFERENCE)
    ran = run_berth("bundle", *arguments)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert says in ran.err


def test_a_word_that_is_stack_and_folder_is_asked_about(run_berth: Run, project: Project) -> None:
    project.write("trial", INFERENCE)
    (project.root / "trial").mkdir()
    for command in (("bundle", "trial"), ("serve", "trial")):
        ran = run_berth(*command)
        assert (ran.code, "write ./trial for the folder" in ran.err) == (2, True)


@pytest.mark.slow
def test_what_was_uploaded_is_served_and_what_was_changed_is_not(
    local: Project, run_berth: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny = build("t5", tmp_path_factory.mktemp("tiny") / "t5")
    ran = run_berth("bundle", "trial", "--upload", "--sandbox", "--model-folder", tiny, "--batch-size", 3)
    assert ran.code == 0, ran.err
    assert "stands in for it" in " ".join(ran.out.split())
    serve = [sys.executable, "-m", "berth", "serve", "trial", "--sandbox", "--port", "0"]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(serve, cwd=local.root, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if "ready " in line:
                break
        text = "".join(said)
        assert text.count("all as manifest") == 2, text
        assert "batches of 3" in text
        url = text.rsplit("its start: ", 1)[1].split(" ", 1)[0]
        assert "generated_text" in httpx.post(f"{url}/invocations", json={"inputs": "The ship"}, timeout=60).json()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    s3, name = bucket()
    s3.put_object(Bucket=name, Key="bundles/trial/model.py", Body=b"raise SystemExit")
    shutil.rmtree(server.sandbox_dir().parent / "served")  # what was fetched before is whole, and is served again
    refused = subprocess.run(
        serve, cwd=local.root, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert refused.returncode == 2
    assert "model.py" in refused.stderr
    assert "berth bundle trial --upload --sandbox" in refused.stderr
