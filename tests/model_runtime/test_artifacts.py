"""Artifacts: whole or said not to be, uploaded with the manifest last, through failures, and thinned out safely."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.artifacts import Uploader, delete_folder, delete_prefix, main, to_keep, upload, verify
from model_runtime.errors import ModelError
from model_runtime.manifest import NAME, write_manifest

BUCKET = "artifacts-of-a-test"
MIB = 1 << 20


@pytest.fixture
def s3() -> Iterator[Any]:
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "artifact"
    (made / "model").mkdir(parents=True)
    (made / "model" / "model.safetensors").write_bytes(os.urandom(11 * MIB))
    (made / "metrics.jsonl").write_text('{"step": 1}\n')
    write_manifest(made)
    return made


class Watched:
    """A client that notes keys in the order in which they are stored and fails as often as it is told to."""

    def __init__(self, client: Any, fail: int = 0, on: str = "safetensors") -> None:
        self._client, self.fail, self.on = client, fail, on
        self.keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def upload_file(self, path: str, bucket: str, key: str, **rest: Any) -> None:
        if self.fail and self.on in key:
            self.fail -= 1
            raise EndpointConnectionError(endpoint_url="https://s3.test")
        self._client.upload_file(path, bucket, key, **rest)
        self.keys.append(key)


def test_a_whole_folder_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(str(folder))
    assert (found.whole, found.files) == (True, 2)
    assert main(["verify", str(folder)]) == 0
    assert "whole; 2 files" in capsys.readouterr().out
    assert main(["verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["whole"] is True


def test_everything_that_is_wrong_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    (folder / "metrics.jsonl").unlink()
    (folder / "stray.txt").write_text("x")
    assert verify(str(folder)).problems == (
        "metrics.jsonl is missing",
        "model/model.safetensors differs from the SHA-256 in the manifest",
        "stray.txt is not in the manifest",
    )
    assert verify(str(folder), sizes_only=True).problems == (
        "metrics.jsonl is missing",
        "stray.txt is not in the manifest",
    )
    weights.write_bytes(b"short")
    assert any("has 5 bytes" in p for p in verify(str(folder)).problems)
    assert main(["verify", str(folder)]) == 3
    (folder / NAME).unlink()
    assert "written last" in verify(str(folder)).problems[0]
    assert main(["verify", str(folder / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_an_upload_goes_in_parts_with_the_manifest_last_and_verifies(s3: Any, folder: Path) -> None:
    client = Watched(s3)
    uri = f"s3://{BUCKET}/runs/1"
    sent = upload(folder, uri, client=client, part_bytes=5 * MIB)
    assert client.keys[-1] == f"runs/1/{NAME}"
    assert sent > 11 * MIB
    etag = s3.head_object(Bucket=BUCKET, Key="runs/1/model/model.safetensors")["ETag"]
    assert etag.strip('"').endswith("-3"), "three parts"
    assert verify(uri, client=s3).whole
    assert upload(folder, uri, client=client) == 0, "what is there is not sent again"
    s3.put_object(Bucket=BUCKET, Key="runs/1/model/model.safetensors", Body=b"x" * 11 * MIB)
    found = verify(uri, client=s3)
    assert found.problems == ("model/model.safetensors differs from the SHA-256 in the manifest",)
    assert verify(uri, client=s3, sizes_only=True).whole
    with pytest.raises(ModelError, match="holds no files"):
        verify(f"s3://{BUCKET}/none", client=s3)
    with pytest.raises(ModelError, match="cannot be read"):
        verify("s3://no-such-bucket-at-all/x", client=s3)


def test_an_upload_outlasts_failures_and_gives_up_in_the_end(s3: Any, folder: Path) -> None:
    waits: list[float] = []
    upload(folder, f"s3://{BUCKET}/a", client=Watched(s3, fail=3), wait=waits.append)
    assert waits == [2.0, 4.0, 8.0]
    assert verify(f"s3://{BUCKET}/a", client=s3).whole
    with pytest.raises(ModelError, match="was not taken, 5 times"):
        upload(folder, f"s3://{BUCKET}/b", client=Watched(s3, fail=99), wait=waits.append)
    assert not verify(f"s3://{BUCKET}/b", client=s3).whole, "without its manifest it is incomplete"


def test_a_folder_without_a_manifest_is_not_uploaded(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="incomplete"):
        upload(tmp_path, f"s3://{BUCKET}/x", client=s3)


def test_the_background_uploader_goes_on_after_a_failure(s3: Any, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").write_text("a")
    write_manifest(other)
    said: list[str] = []
    uploader = Uploader(client=Watched(s3, fail=5), say=said.append, wait=lambda _: None)
    uploader.put(folder, f"s3://{BUCKET}/one")
    uploader.put(other, f"s3://{BUCKET}/two")
    assert uploader.close(60)
    assert list(uploader.failures) == [folder]
    assert verify(f"s3://{BUCKET}/two", client=s3).whole
    assert any("was not taken" in line for line in said)


def test_a_folder_is_deleted_only_after_its_upload(s3: Any, folder: Path) -> None:
    held = threading.Event()

    class Slow(Watched):
        def upload_file(self, *given: Any, **rest: Any) -> None:
            assert held.wait(30)
            super().upload_file(*given, **rest)

    uploader = Uploader(client=Slow(s3))
    uploader.put(folder, f"s3://{BUCKET}/one")
    uploader.delete(folder, "")
    assert uploader.is_pending(folder)
    assert folder.is_dir()
    held.set()
    assert uploader.close(60)
    assert not uploader.is_pending(folder)
    assert not folder.exists()
    assert verify(f"s3://{BUCKET}/one", client=s3).whole


def test_the_manifest_is_deleted_first(s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{BUCKET}/runs/2"
    upload(folder, uri, client=s3)

    class Interrupted(Watched):
        def delete_objects(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "SlowDown"}}, "DeleteObjects")

    with pytest.raises(ModelError, match="cannot be deleted"):
        delete_prefix(uri, client=Interrupted(s3))
    assert not verify(uri, client=s3).whole
    assert delete_prefix(uri, client=s3) == 2
    with pytest.raises(ModelError, match="whole bucket"):
        delete_prefix(f"s3://{BUCKET}", client=s3)

    def broken(_: Any) -> None:
        raise PermissionError("held")

    monkeypatch.setattr("shutil.rmtree", broken)
    with pytest.raises(PermissionError):
        delete_folder(folder)
    assert not verify(str(folder)).whole


@given(steps=st.sets(st.integers(1, 100), max_size=20), keep=st.integers(0, 5), data=st.data())
def test_the_newest_and_the_best_stay(steps: set[int], keep: int, data: Any) -> None:
    best = data.draw(st.one_of(st.none(), st.sampled_from(sorted(steps)))) if steps else None
    kept = to_keep(steps, keep, best)
    assert kept <= steps
    assert len(kept) <= keep + 1
    assert best is None or best in kept
    assert not steps or not keep or max(steps) in kept
