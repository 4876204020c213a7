"""Stack files: read with their mistakes named, written whole, recorded with their comments kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from infra_projects import INFERENCE, MOMENT, STACKS, TRAINING, Project

from infra.new_stack import record_choice
from infra.stack_files import ROOT, project_root, read_stack, stack_names, stack_path, write_text
from sizing.errors import UserError


def test_the_committed_stacks_are_those_of_the_roles() -> None:
    assert tuple(stack_names(ROOT)) == STACKS
    assert {read_stack(name, ROOT).settings.role for name in STACKS} == {"inference", "endpoint", "training", "shared"}


def test_a_stack_without_a_file_offers_those_that_have_one(project: Project) -> None:
    with pytest.raises(UserError, match=r"unknown stack 'shard'; did you mean shared\?"):
        read_stack("shard", project.root)


@pytest.mark.parametrize("name", ["", "1st", "a/b", "a b", "x" * 37, "-x"])
def test_names_that_aws_or_pulumi_would_refuse(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stack name"):
        stack_path(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no keys"),
        ("- a\n- b\n", "holds no keys"),
        ("config: {aws:region: us-east-1\n", "line"),
        ("other: 1\n", "no `config:`"),
        ("config:\n  berth:role: shared\n", "aws:region is missing"),
        ("config:\n  aws:region: mars\n  berth:role: shared\n", "region such as us-east-1"),
        ("config:\n  aws:region: us-east-1\n  role: shared\n", "needs a namespace: berth:role"),
        ("config:\n  aws:region: us-east-1\n  aws:secretKey: x\n", "aws:secretKey"),
        ("config:\n  aws:region: us-east-1\n  berth:role: shared\n  berth:role: training\n", "duplicate|line"),
    ],
)
def test_a_file_that_is_wrong_says_where(project: Project, text: str, says: str) -> None:
    path = project.root / "stacks" / "Pulumi.trial.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_stack("trial", project.root)


def test_a_file_in_another_encoding_is_one_line(project: Project) -> None:
    path = project.root / "stacks" / "Pulumi.trial.yaml"
    path.write_bytes("config:\n  aws:region: 'ü'\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"UTF-8|line"):
        read_stack("trial", project.root)


def test_recording_keeps_comments_and_writes_only_what_was_open(project: Project) -> None:
    asked = {"method": "full", "examples": 10**6, "epochs": 3.0}
    path = project.write("trial", {k: v for k, v in TRAINING.items() if k not in ("instance_type", "zones")} | asked)
    path.write_text(path.read_text(encoding="utf-8") + "  # a comment of the owner\n", encoding="utf-8")
    written = record_choice("trial", project.root, lambda: MOMENT)
    assert written == {
        "instance_type": "p4d.24xlarge",
        "micro_batch_size": 8,
        "zero_stage": 1,
        "zones": ["use1-az1", "use1-az2"],
        "expires_at": "2026-11-25T12:00:00Z",
    }
    text = path.read_text(encoding="utf-8")
    assert "# a comment of the owner" in text
    settings = read_stack("trial", project.root).settings
    assert settings.expiry == datetime(2026, 11, 25, 12, tzinfo=UTC)  # type: ignore[attr-defined]
    assert record_choice("trial", project.root, lambda: MOMENT) == {}
    assert path.read_text(encoding="utf-8") == text


def test_recording_a_shared_stack_changes_nothing(project: Project) -> None:
    assert record_choice("shared", project.root) == {}


def test_the_project_is_found_from_a_folder_below(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project.root / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_root() == project.root


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("old", encoding="utf-8")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file.yaml"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_shared_stack_in_another_region_is_refused(project: Project) -> None:
    project.write("trial", INFERENCE, "eu-west-1")
    from infra.plan import plan_stack

    with pytest.raises(UserError, match=r"eu-west-1.*us-east-1"):
        plan_stack("trial", project.root)


def test_a_shared_stack_that_is_missing_or_is_none_is_refused(project: Project) -> None:
    with pytest.raises(UserError, match=r"no file; `berth new other"):
        project.plan({**INFERENCE, "shared_stack": "organization/berth/other"})
    with pytest.raises(UserError, match="not shared"):
        project.plan({**INFERENCE, "shared_stack": "organization/berth/trial"})
