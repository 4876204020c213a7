"""A stack's bundle and model on their way: written by its settings, uploaded, fetched by its host and from here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from infra_projects import ENDPOINT, INFERENCE, SHARED, TRAINING, Project

from infra.components import endpoint as sagemaker
from infra.host import fetch
from infra.sandbox.aws import Aws
from infra.sandbox.services.s3 import empty_bucket
from infra.stack_files import read_stack
from infra.uploads.content import ENDPOINT_MODEL, HOST_JOURNAL, HOST_MODEL, write_stack_bundle
from infra.uploads.cost import stored_line
from infra.uploads.place import Artifacts, open_artifacts
from infra.uploads.receive import receive, receive_artifact
from infra.uploads.send import model_notes, send_bundle, send_model
from model_runtime.handler.bundle import FEEDBACK
from model_runtime.handler.settings import read_folder
from model_runtime.manifest import check_folder, write_manifest
from sizing.errors import UserError
from sizing.models.resolve import resolve_model
from tests.moto_server import moto_server

BUCKET = "artifacts-of-a-test"
RECORDED = {"method": "lora", "micro_batch_size": 4, "examples": 1000, "expires_at": "", "zero_stage": 0}
SYNC = """
import os, sys
from pathlib import Path
import boto3
bucket, _, prefix = sys.argv[-2].removeprefix("s3://").partition("/")
client = boto3.client("s3", endpoint_url=os.environ["LOCAL_S3"], region_name="us-east-1")
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
    for item in page.get("Contents", []):
        target = Path(sys.argv[-1], item["Key"].removeprefix(prefix + "/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, item["Key"], str(target))
"""


class Up:
    """An engine whose shared stack is up, or is not."""

    def __init__(self, project: Path, outputs: Mapping[str, Any]) -> None:
        self.project, self._outputs = project, outputs

    def outputs(self, stack: str) -> Mapping[str, Any]:
        return self._outputs if stack == "shared" else {}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield endpoint


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    yield client
    keys = [{"Key": item["Key"]} for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    if keys:
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    client.close()


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with what loading needs, and a pickle that it does not."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "model.safetensors").write_bytes(os.urandom(5_000))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


def artifacts_of(project: Project, s3: Any, values: dict[str, Any] = INFERENCE) -> Artifacts:
    project.write("trial", values)
    engine: Any = Up(project.root, {"artifacts_bucket": BUCKET})
    return open_artifacts("trial", project.root, sandbox=False, engine=engine, client=s3)


def uploaded(project: Project, s3: Any, model: Path) -> Artifacts:
    """The stack after its model and bundle have gone up, as its file then says."""
    artifacts = artifacts_of(project, s3)
    send_model(artifacts, model)
    send_bundle(artifacts, write_stack_bundle(artifacts.file, project.root / "b", archive=False))
    return replace(artifacts, file=read_stack("trial", project.root))


def test_a_service_s_bundle_follows_its_settings(project: Project) -> None:
    project.write("trial", {**INFERENCE, "dtype": "int8", "batch": 6, "input_tokens": 300, "output_tokens": 0})
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b")
    assert check_folder(made.bundle.folder) == made.bundle.files
    assert made.bundle.archive is not None
    assert made.bundle.archive.is_file()
    settings = read_folder(made.bundle.folder)
    assert (settings.dtype, settings.quantize, settings.batch_size) == ("auto", "int8", 6)
    assert (settings.max_input_tokens, settings.max_output_tokens) == (300, 1)
    assert (settings.model, settings.model_name) == (HOST_MODEL, "flan-t5-xl")
    again = write_stack_bundle(
        read_stack("trial", project.root), project.root / "b", overrides={"batch_size": 2, "max_batch_delay_ms": None}
    )
    assert read_folder(again.bundle.folder).batch_size == 2
    assert again.bundle.manifest_sha256 != made.bundle.manifest_sha256


def test_the_folder_that_takes_feedback_goes_with_the_bundle_of_a_host_that_takes_it(
    project: Project, s3: Any, model: Path, tmp_path: Path
) -> None:
    project.write("trial", INFERENCE)
    without = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False)
    assert not (without.bundle.folder / FEEDBACK).exists()
    artifacts = artifacts_of(project, s3, {**INFERENCE, "feedback": True})
    send_model(artifacts, model)
    made = write_stack_bundle(artifacts.file, project.root / "b", archive=False)
    send_bundle(artifacts, made)
    assert check_folder(made.bundle.folder) == made.bundle.files
    got = receive(replace(artifacts, file=read_stack("trial", project.root)), project.root / "here").bundle
    assert read_folder(got).model_name == "flan-t5-xl"
    listed = {entry.path for entry in made.bundle.files}
    assert {f"{FEEDBACK}/model.py", f"{FEEDBACK}/serving.properties"} < listed
    properties = (got / FEEDBACK / "serving.properties").read_text(encoding="utf-8")
    assert f"option.journal_dir={HOST_JOURNAL}\n" in properties
    # Alone, as the container mounts it, and with nothing but itself to import from.
    shutil.copytree(got / FEEDBACK, tmp_path / FEEDBACK)
    check = (
        "import runpy, sys; engine = sys.modules['djl_python'] = type(sys)('djl_python'); engine.Output = dict;"
        f"module = runpy.run_path({str(tmp_path / FEEDBACK / 'model.py')!r});"
        "asked = type('Input', (), {'get_properties': lambda self: {'journal_dir': sys.argv[1]}, "
        "'is_empty': lambda self: True})();"
        "assert module['handle'](asked) is None; import model_runtime; print(model_runtime.__file__)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", check, str(tmp_path / "journal")], capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(tmp_path / FEEDBACK / "model_runtime" / "__init__.py")
    assert (tmp_path / "journal").is_dir()


def test_the_weights_are_looked_for_where_they_are_put(project: Project) -> None:
    script = (Path(fetch.__file__).parent / "inference.sh").read_text(encoding="utf-8")
    assert f":{HOST_MODEL}:ro" in script
    assert f"BERTH_MODEL_DIR={HOST_MODEL} " in script
    project.write("trial", ENDPOINT)
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False)
    assert read_folder(made.bundle.folder).model == ENDPOINT_MODEL
    assert f"{sagemaker.WEIGHTS_FOLDER}/{sagemaker.WEIGHTS_CHANNEL}" == ENDPOINT_MODEL


@pytest.mark.parametrize(
    ("instance", "dtype", "gpus", "notes"),
    [
        ("g4dn.12xlarge", "fp16", 1, "uses no more"),
        ("g4dn.12xlarge", "fp32", 1, "uses no more"),
        ("g4dn.2xlarge", "fp32", 1, ""),
    ],
)
def test_a_copy_is_laid_over_no_more_gpus_than_it_needs(
    project: Project, instance: str, dtype: str, gpus: int, notes: str
) -> None:
    project.write("trial", {**INFERENCE, "instance_type": instance, "dtype": dtype})
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False)
    assert read_folder(made.bundle.folder).tensor_parallel_degree == gpus
    assert notes in " ".join(made.notes)


def test_a_large_model_is_laid_over_several_gpus(project: Project) -> None:
    large = {**INFERENCE, "model": "google/flan-t5-xxl", "instance_type": "g4dn.12xlarge", "dtype": "fp16"}
    project.write("trial", large)
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False)
    assert read_folder(made.bundle.folder).tensor_parallel_degree == 2
    project.write("trial", {**large, "dtype": "fp32", "instance_type": "g4dn.2xlarge"})
    assert write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False).notes == ()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({**INFERENCE, "dtype": "gptq-int4"}, "which Berth's handler does not load"),
        ({**INFERENCE, "batch": 300}, "256 together at most"),
        ({**INFERENCE, "dtype": "auto"}, "not yet recorded: dtype; `berth settings trial --record`"),
        (SHARED, "runs no model and has no bundle"),
    ],
)
def test_what_no_machine_could_run_is_refused(project: Project, values: dict[str, Any], says: str) -> None:
    project.write("trial", values)
    with pytest.raises(UserError, match=says):
        write_stack_bundle(read_stack("trial", project.root), project.root / "b")
    assert not (project.root / "b").exists()


def test_a_training_bundle_runs_with_nothing_but_itself(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.write("trial", {**TRAINING, **RECORDED})
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False)
    assert made.kind == "training"
    assert check_folder(made.bundle.folder) == made.bundle.files
    assert json.loads((made.bundle.folder / "finetune.json").read_text())["method"] == "lora"
    carried = {e.path for e in made.bundle.files}
    for package in ("model_runtime", "sizing"):
        data = {
            f"{package}/{p.relative_to(Path(fetch.__file__).parents[2] / package).as_posix()}"
            for p in (Path(fetch.__file__).parents[2] / package).rglob("*")
            if p.is_file() and p.suffix in (".py", ".csv", ".json", ".yaml") and "__pycache__" not in p.parts
        }
        assert data <= carried
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for module in ("finetune", "watchdog", "artifacts"):
        helped = subprocess.run(
            [sys.executable, "-P", "-m", f"model_runtime.{module}", "--help"],
            cwd=elsewhere, capture_output=True, text=True, env={"PYTHONPATH": str(made.bundle.folder)}, check=True,
        )  # fmt: skip
        assert "usage" in helped.stdout
    # The watchdog runs with the system's Python, which has no packages.
    bare = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; import model_runtime.watchdog as w; "
        "assert w.__file__.startswith(sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", bare, str(made.bundle.folder)],
        cwd=elsewhere, env={"PYTHONPATH": str(made.bundle.folder)}, check=True,
    )  # fmt: skip


def host_fetches(
    artifacts: Artifacts, endpoint: str, folder: Path, place: str, sha256: str
) -> subprocess.CompletedProcess[str]:
    """What the host's own script does, with an `aws` command that copies from the local S3."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True, exist_ok=True)
    (bin_ / "sync.py").write_text(SYNC, encoding="utf-8")
    (bin_ / "aws").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{bin_}/sync.py" "$@"\n', encoding="utf-8")
    (bin_ / "aws").chmod(0o755)
    environ = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "LOCAL_S3": endpoint}
    prefix = place.removeprefix(f"s3://{artifacts.bucket}/")
    command = [sys.executable, fetch.__file__, artifacts.bucket, prefix, str(folder / "got"), sha256]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def test_a_host_gets_what_was_uploaded_and_nothing_else(
    project: Project, s3: Any, endpoint: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    artifacts = uploaded(project, s3, model)
    settings = artifacts.settings
    for place, sha256 in (
        (artifacts.bundle_uri, settings.bundle_manifest_sha256),
        (artifacts.model_uri, settings.artifact_manifest_sha256),
    ):
        ran = host_fetches(artifacts, endpoint, tmp_path_factory.mktemp("host"), place, sha256)
        assert ran.returncode == 0, ran.stderr
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="models/")["Contents"]]
    assert {Path(key).name for key in keys} == {"config.json", "model.safetensors", "manifest.json"}
    assert sorted(p.name for p in model.iterdir()) == ["config.json", "model.safetensors", "pytorch_model.bin"]
    (model / "config.json").write_text('{"model_type": "bart"}')
    send_model(artifacts, model)
    ran = host_fetches(
        artifacts, endpoint, tmp_path_factory.mktemp("late"), artifacts.model_uri, settings.artifact_manifest_sha256
    )
    assert ran.returncode == 1
    assert "is not the one that the stack names" in ran.stderr


def test_an_upload_again_sends_what_changed_and_removes_what_is_gone(project: Project, s3: Any, model: Path) -> None:
    artifacts = uploaded(project, s3, model)
    (model / "vocab.txt").write_text("more")
    more = send_model(artifacts, model)
    assert (more.removed, more.files) == (0, 3)
    (model / "vocab.txt").unlink()
    less = send_model(artifacts, model)
    assert (less.removed, less.files) == (1, 2)
    assert less.sent_bytes < 1_000
    assert read_stack("trial", project.root).given["artifact_manifest_sha256"] == less.manifest_sha256


def test_a_tuned_model_is_checked_before_it_goes_up(project: Project, s3: Any, model: Path) -> None:
    write_manifest(model)
    artifacts = artifacts_of(project, s3)
    assert send_model(artifacts, model).files == 3
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json"):
        send_model(artifacts, model)


def test_this_machine_serves_only_what_the_stack_records(project: Project, s3: Any, model: Path) -> None:
    artifacts = uploaded(project, s3, model)
    said: list[str] = []
    got = receive(artifacts, project.root / "here", say=said.append)
    assert read_folder(got.bundle).model_name == "flan-t5-xl"
    assert check_folder(got.model)
    assert len(said) == 2
    (got.bundle / "model_runtime" / "planted.py").write_text("raise SystemExit")
    assert receive(artifacts, project.root / "here") == got
    assert not (got.bundle / "model_runtime" / "planted.py").exists()
    s3.put_object(Bucket=BUCKET, Key="bundles/trial/model.py", Body=b"raise SystemExit")
    with pytest.raises(UserError, match=r"model\.py"):
        receive(artifacts, project.root / "elsewhere")
    other = write_stack_bundle(artifacts.file, project.root / "b", overrides={"batch_size": 3}, archive=False)
    send_bundle(replace(artifacts, file=artifacts_of(project, s3).file), other)  # by somebody with another stack file
    with pytest.raises(UserError, match=r"expected is .*berth bundle trial --upload --model-folder DIR"):
        receive(artifacts, project.root / "here")


def test_an_unrecorded_manifest_is_said_and_a_missing_one_refused(project: Project, s3: Any, model: Path) -> None:
    uploaded(project, s3, model)
    unrecorded = artifacts_of(project, s3)
    said: list[str] = []
    receive(unrecorded, project.root / "here", say=said.append)
    assert [line for line in said if "bundle_manifest_sha256 of stack trial is empty" in line]
    s3.delete_object(Bucket=BUCKET, Key="models/google-flan-t5-xl/manifest.json")
    with pytest.raises(UserError, match="has no manifest"):
        receive(unrecorded, project.root / "here")


def test_the_artifact_of_the_newest_run_is_fetched(project: Project, s3: Any, model: Path, tmp_path: Path) -> None:
    artifacts = artifacts_of(project, s3, {**TRAINING, **RECORDED})
    with pytest.raises(UserError, match="no run of stack trial has left an artifact"):
        receive_artifact(artifacts, tmp_path / "a")
    write_manifest(model)
    for run in ("20261124-100000", "20261124-110000"):
        for path in model.iterdir():
            s3.put_object(Bucket=BUCKET, Key=f"output/trial/{run}/artifact/{path.name}", Body=path.read_bytes())
    s3.put_object(Bucket=BUCKET, Key="output/trial/20261124-120000/artifact/config.json", Body=b"{}")
    assert "/20261124-110000/" in receive_artifact(artifacts, tmp_path / "a")
    assert check_folder(tmp_path / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is there and is no artifact"):
        receive_artifact(artifacts, tmp_path / "mine")


def test_a_bucket_whose_checkpoints_were_deleted_is_emptied_as_well(s3: Any, endpoint: str) -> None:
    """As the sandbox takes it down: its versioning, which is a resource of its own, goes first."""
    name = "berth-emptied"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for key in ("kept", "deleted", "kept"):
        s3.put_object(Bucket=name, Key=key, Body=b"x")
    s3.delete_object(Bucket=name, Key="deleted")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert empty_bucket(Aws(endpoint, "us-east-1"), name) == 4
    s3.delete_bucket(Bucket=name)


def test_without_its_shared_stack_there_is_no_bucket(project: Project) -> None:
    project.write("trial", INFERENCE)
    engine: Any = Up(project.root, {})
    with pytest.raises(UserError, match="which is not up; `berth up shared --sandbox` first"):
        open_artifacts("trial", project.root, sandbox=True, engine=engine, client=None)


def test_a_stand_in_is_said(model: Path) -> None:
    (note,) = model_notes(model, "google/flan-t5-xl", resolve_model)
    assert "is not known" in note
    (model / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        model_notes(model, "google/flan-t5-xl", resolve_model)


def test_what_is_stored_has_its_price_or_none(project: Project, model: Path) -> None:
    project.write("trial", INFERENCE)
    made = write_stack_bundle(read_stack("trial", project.root), project.root / "b", archive=False).bundle
    assert "us-east-1: less than $0.01 a month" in stored_line(made, model, "us-east-1")
    assert stored_line(made, None, "sa-east-1").endswith("sa-east-1: unpriced")
