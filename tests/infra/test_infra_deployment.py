"""`berth deploy`: a service pointed at a fine-tuned model; what is missing, damaged or of another model is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from infra_projects import ENDPOINT, INFERENCE, MOMENT, TRAINING, Project

from berth.schemas import load
from infra.deployment.deploy import Deployment, deploy
from infra.deployment.places import UnreachableError
from infra.stack_files import read_stack
from model_runtime.artifacts import upload
from model_runtime.manifest import sha256_of, write_manifest
from sizing.errors import UserError

ACCOUNT = "111122223333"
BUCKET = f"berth-{ACCOUNT}-us-east-1-artifacts"
T5_XL = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 2048, "d_ff": 5120, "d_kv": 64,
    "num_heads": 32, "num_layers": 24, "num_decoder_layers": 24, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False, "is_encoder_decoder": True,
}  # fmt: skip


def artifact(folder: Path, base: str = "google/flan-t5-xl", **config: Any) -> Path:
    """What a fine-tune hands over, its weights a few bytes."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({**T5_XL, **config}), encoding="utf-8")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    record = {"base": {"model": base}, "method": "lora", "prompt": "Answer: {input}"}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    write_manifest(folder / "model")
    write_manifest(folder)
    return folder


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


def nobody(_region: str) -> tuple[str, Any]:
    raise UnreachableError("Unable to locate credentials")


def trial(project: Project, given: str, client: Any = None, **options: Any) -> Deployment:
    def here(_region: str) -> tuple[str, Any]:
        return ACCOUNT, client

    options.setdefault("reach", nobody if client is None else here)
    return deploy("trial", project.root, given, clock=lambda: MOMENT, **options)


@pytest.mark.parametrize("below", ["", "/artifact", "/artifact/model"])
def test_a_run_its_artifact_or_its_model_may_be_named_and_the_model_is_served(
    project: Project, tmp_path: Path, s3: Any, below: str
) -> None:
    project.write("trial", INFERENCE)
    made = artifact(tmp_path / "a")
    upload(made, f"s3://{BUCKET}/output/tune/artifact", client=s3)
    found = trial(project, f"s3://{BUCKET}/output/tune{below}", s3)
    assert found.recorded == {
        "artifact": "output/tune/artifact/model",
        "artifact_manifest_sha256": sha256_of(made / "model" / "manifest.json"),
    }
    assert found.artifact is not None
    assert (found.artifact.base_model, found.artifact.checked) == ("google/flan-t5-xl", "every byte")
    assert any('"Answer: {input}"' in note for note in found.notes)
    assert trial(project, f"output/tune{below}", s3).recorded == found.recorded, "a prefix of the stack's own bucket"


def test_what_the_next_preview_changes_is_shown_and_comments_stay(project: Project, tmp_path: Path, s3: Any) -> None:
    path = project.write("trial", INFERENCE)
    path.write_text(path.read_text(encoding="utf-8") + "  # ours\n", encoding="utf-8")
    upload(artifact(tmp_path / "a"), f"s3://{BUCKET}/tuned", client=s3)
    found = trial(project, "tuned", s3)
    changes = {a.name: a.change for a in found.resources}
    assert (changes["trial-host-instance"], changes["trial-identity-policy"]) == ("replaces", "changes")
    assert changes["trial-watch-idle"] == "changes", "it watches the instance by its id"
    assert "trial-network-vpc" not in changes
    assert found.lines == [] and found.bill_after.per_month == found.bill_before.per_month
    assert read_stack("trial", project.root).settings.model_dump()["artifact"] == "", "nothing is written yet"
    found.write()
    assert "# ours" in path.read_text(encoding="utf-8")
    again = trial(project, "tuned", s3)
    assert again.same and again.resources == []


def test_undo_brings_back_what_was_there(project: Project, tmp_path: Path, s3: Any) -> None:
    path = project.write("trial", {**INFERENCE, "artifact_manifest_sha256": "a" * 64})
    before = path.read_text(encoding="utf-8")
    upload(artifact(tmp_path / "a"), f"s3://{BUCKET}/tuned", client=s3)
    found = trial(project, "tuned", s3)
    found.write()
    words = shlex.split(found.undo)
    assert words[:5] == ["berth", "deploy", "trial", "--artifact", ""]
    back = trial(project, words[4], manifest_sha256=words[6])
    assert back.artifact is None
    back.write()
    assert path.read_text(encoding="utf-8").split() == before.split()
    assert shlex.split(back.undo)[4] == "tuned/model", "and there again"


def test_an_endpoint_gets_a_new_model(project: Project, tmp_path: Path, s3: Any) -> None:
    project.write("trial", ENDPOINT)
    upload(artifact(tmp_path / "a"), f"s3://{BUCKET}/tuned", client=s3)
    changes = {a.type.rsplit(":", 1)[-1]: a.change for a in trial(project, "tuned", s3).resources}
    assert (changes["Model"], changes["EndpointConfiguration"], changes["Endpoint"]) == (
        "replaces", "replaces", "changes",
    )  # fmt: skip


def test_a_group_gets_the_next_version_of_its_template(project: Project, tmp_path: Path) -> None:
    project.write("trial", {**INFERENCE, "replicas": 2})
    changes = {a.name: a.inputs for a in trial(project, str(artifact(tmp_path / "a"))).resources}
    assert changes["trial-group-template"] == ("userData",)
    assert changes["trial-group-hosts"] == ("launchTemplate.id",)


def test_a_local_folder_gives_its_hash_and_says_how_it_gets_there(project: Project, tmp_path: Path) -> None:
    project.write("trial", INFERENCE)
    made = artifact(tmp_path / "a")
    found = trial(project, str(made))
    sha = sha256_of(made / "model" / "manifest.json")
    assert found.recorded == {"artifact": f"models/trial-{sha[:12]}", "artifact_manifest_sha256": sha}
    assert found.next_steps[0] == f"berth bundle trial --upload --model-folder {made}/model"
    assert trial(project, str(made), prefix="models/ours").recorded["artifact"] == "models/ours"


def test_without_aws_an_artifact_must_be_stated(project: Project) -> None:
    project.write("trial", INFERENCE)
    with pytest.raises(UserError, match=r"cannot be verified here: Unable to locate credentials\. Give --manifest-sha"):
        trial(project, "tuned")
    found = trial(project, "tuned", manifest_sha256="b" * 64)
    assert found.recorded == {"artifact": "tuned", "artifact_manifest_sha256": "b" * 64}
    assert found.artifact is not None and found.artifact.checked == "nothing"
    assert "not verified here" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "model" / "model.safetensors").write_bytes(b"damaged"), "differs from the SHA-256"),
        (lambda f: (f / "model" / "model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "model" / "manifest.json").unlink(), "is incomplete"),
        (lambda f: (f / "model" / "config.json").unlink(), "holds no model"),
    ],
)
def test_what_is_missing_or_damaged_is_refused(
    project: Project, tmp_path: Path, change: Callable[[Path], Any], said: str
) -> None:
    project.write("trial", INFERENCE)
    made = artifact(tmp_path / "a")
    change(made)
    with pytest.raises(UserError, match=said):
        trial(project, str(made))


@pytest.mark.parametrize(
    ("base", "config", "said"),
    [
        ("google/flan-t5-large", {}, "was made from google/flan-t5-large"),
        ("google/flan-t5-xl", {"model_type": "llama"}, "is of the type llama"),
        ("google/flan-t5-xl", {"d_model": 1024}, "48 layers of width 1,024, google/flan-t5-xl has 48 of 2,048"),
    ],
)
def test_an_artifact_of_another_model_is_refused(
    project: Project, tmp_path: Path, base: str, config: dict[str, Any], said: str
) -> None:
    project.write("trial", INFERENCE)
    with pytest.raises(UserError, match=said):
        trial(project, str(artifact(tmp_path / "a", base, **config)))


def test_what_cannot_be_deployed_is_refused(project: Project, tmp_path: Path, s3: Any) -> None:
    made = artifact(tmp_path / "a")
    project.write("trial", TRAINING)
    with pytest.raises(UserError, match="only inference and endpoint stacks serve a model"):
        trial(project, str(made))
    project.write("trial", INFERENCE)
    with pytest.raises(UserError, match=r"other is not the artifact bucket .* aws s3 sync"):
        trial(project, "s3://other/tuned", s3)
    with pytest.raises(UserError, match="is not the artifact bucket"):
        trial(project, f"s3://berth-{ACCOUNT}-eu-west-1-artifacts/tuned", manifest_sha256="c" * 64)
    with pytest.raises(UserError, match="names a whole bucket"):
        trial(project, f"s3://{BUCKET}", s3)
    with pytest.raises(UserError, match="holds no model"):
        trial(project, "tuned", s3)
    with pytest.raises(UserError, match="it is another artifact"):
        trial(project, str(made), manifest_sha256="d" * 64)
    with pytest.raises(UserError, match="64 digits"):
        trial(project, str(made), manifest_sha256="abc")
    s3.delete_bucket(Bucket=BUCKET)
    with pytest.raises(UserError, match="there is no bucket"):
        trial(project, "tuned", s3)


def test_the_command_asks_before_it_writes(project: Project, tmp_path: Path, run_berth: Callable[..., Any]) -> None:
    from jsonschema import Draft202012Validator

    path = project.write("trial", INFERENCE)
    before = path.read_text(encoding="utf-8")
    made = str(artifact(tmp_path / "a"))
    asked = run_berth("deploy", "trial", "--artifact", made)
    assert asked.code == 2 and "--yes" in asked.err and path.read_text(encoding="utf-8") == before
    shown = run_berth("deploy", "trial", "--artifact", made, "--json")
    document = json.loads(shown.out)
    Draft202012Validator(load("deploy")).validate(document)
    assert document["recorded"] is False and path.read_text(encoding="utf-8") == before
    done = run_berth("deploy", "trial", "--artifact", made, "--yes")
    assert done.code == 0 and "Undo\n  berth deploy trial --artifact ''" in done.out
    assert document["settings"]["artifact"] in path.read_text(encoding="utf-8")
    back = json.loads(run_berth("deploy", "trial", "--artifact", "", "--yes", "--json").out)
    Draft202012Validator(load("deploy")).validate(back)
    assert back["recorded"] is True and path.read_text(encoding="utf-8").split() == before.split()
