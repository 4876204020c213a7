"""Fetching from S3 (moto's server): whole files only, checked, resumed after a cut, never outside the folder."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_runtime.errors import ModelError
from model_runtime.fetch import fetch_s3, split_s3, wanted_files
from model_runtime.load import LoadOptions, load
from model_runtime.manifest import NAME, check_folder, entries_of, sha256_of, write_manifest
from tests.moto_server import moto_server

BUCKET = "models-of-a-test"
PART = 1000


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with moto_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()


class Counted:
    """A real client that notes the ranges it is asked for, and fails from the `cut`-th on."""

    def __init__(self, client: Any, cut: int | None = None) -> None:
        self._client, self.cut, self.ranges = client, cut, list[str]()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_object(self, **arguments: Any) -> Any:
        if "Range" in arguments:
            with self._lock:
                if self.cut is not None and len(self.ranges) >= self.cut:
                    raise KeyboardInterrupt
                self.ranges.append(arguments["Range"])
        return self._client.get_object(**arguments)


def upload(client: Any, folder: Path, prefix: str) -> str:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(10_500))
    (folder / "sub" / "tokenizer.json").write_bytes(os.urandom(1234))
    (folder / "empty.txt").write_bytes(b"")
    write_manifest(folder)
    return folder


def test_a_prefix_arrives_whole_and_checked(s3: Any, model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    got = fetch_s3(
        upload(s3, model, "whole"), tmp_path / "t", client=s3, part_bytes=PART, progress=lambda *at: seen.append(at)
    )
    assert entries_of(got.folder) == entries_of(model)
    assert (got.files, got.total_bytes, got.downloaded_bytes, got.verified) == (3, 11_734, 11_734, True)
    assert seen[-1] == (11_734, 11_734)
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)
    assert not list((tmp_path / "t").rglob("*.part*"))


def test_after_a_cut_only_what_is_missing_is_fetched(s3: Any, model: Path, tmp_path: Path) -> None:
    uri, target = upload(s3, model, "cut"), tmp_path / "t"
    cut = Counted(s3, cut=7)
    with pytest.raises(KeyboardInterrupt):
        fetch_s3(uri, target, client=cut, part_bytes=PART, workers=1)
    assert not (target / "model.safetensors").exists(), "a file has its name only when it is whole"
    again = Counted(s3)
    got = fetch_s3(uri, target, client=again, part_bytes=PART, workers=4)
    assert set(again.ranges) & set(cut.ranges) <= {"bytes=0-999", "bytes=1000-1233"}  # of another file
    assert got.resumed_bytes == 7 * PART
    assert entries_of(target) == entries_of(model)
    third = Counted(s3)
    assert fetch_s3(uri, target, client=third, part_bytes=PART).downloaded_bytes == 0
    assert third.ranges == []


def test_a_file_damaged_on_disk_is_fetched_again(s3: Any, model: Path, tmp_path: Path) -> None:
    uri, target = upload(s3, model, "damaged"), tmp_path / "t"
    fetch_s3(uri, target, client=s3)
    whole = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(b"x" + whole[1:])
    got = fetch_s3(uri, target, client=s3)
    assert got.downloaded_bytes == 10_500
    assert (target / "model.safetensors").read_bytes() == whole


def test_an_upload_that_is_not_what_the_manifest_says_is_refused(s3: Any, model: Path, tmp_path: Path) -> None:
    uri = upload(s3, model, "forged")
    s3.put_object(Bucket=BUCKET, Key="forged/model.safetensors", Body=os.urandom(10_500))
    with pytest.raises(ModelError, match="upload is damaged or was changed"):
        fetch_s3(uri, tmp_path / "t", client=s3, part_bytes=PART)
    assert not (tmp_path / "t" / "model.safetensors").exists()
    s3.put_object(Bucket=BUCKET, Key="forged/model.safetensors", Body=b"short")
    with pytest.raises(ModelError, match="has 5 bytes where 10,500 are expected"):
        fetch_s3(uri, tmp_path / "t", client=s3)


def test_an_object_that_changes_between_ranges_is_noticed(s3: Any, model: Path, tmp_path: Path) -> None:
    uri = upload(s3, model, "changing")

    class Changing(Counted):
        def get_object(self, **arguments: Any) -> Any:
            if len(self.ranges) == 3:
                s3.put_object(Bucket=BUCKET, Key="changing/model.safetensors", Body=os.urandom(10_500))
            return super().get_object(**arguments)

    with pytest.raises(ModelError, match=r"changed while it was fetched|upload is damaged"):
        fetch_s3(uri, tmp_path / "t", client=Changing(s3), part_bytes=PART, workers=1)


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
def test_a_manifest_cannot_write_outside_the_folder(s3: Any, tmp_path: Path, path: str) -> None:
    prefix = f"hostile-{abs(hash(path))}"
    document = {"format": "berth-manifest/1", "files": [{"path": path, "size": 1, "sha256": ""}]}
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{NAME}", Body=json.dumps(document).encode())
    with pytest.raises(ModelError, match="leads out of the folder"):
        fetch_s3(f"s3://{BUCKET}/{prefix}", tmp_path / "t", client=s3)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"format": "other/1"}', b'{"format": "berth-manifest/1", "files": 3}'])
def test_a_broken_manifest_is_told_in_one_line(s3: Any, tmp_path: Path, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key=f"broken/{NAME}", Body=body)
    with pytest.raises(ModelError, match=r"is no manifest|format is"):
        fetch_s3(f"s3://{BUCKET}/broken", tmp_path / "t", client=s3)


@pytest.mark.parametrize(
    ("uri", "says"),
    [(f"s3://{BUCKET}/nothing-here", "holds no files"), ("s3://no-such-bucket-at-all/x", "cannot be read")],
)
def test_a_prefix_that_is_not_there(s3: Any, tmp_path: Path, uri: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        fetch_s3(uri, tmp_path / "t", client=s3)


def test_without_a_manifest_the_safetensors_come_and_the_pickles_stay(s3: Any, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"):
        s3.put_object(Bucket=BUCKET, Key=f"plain/{name}", Body=name.encode())
    got = fetch_s3(f"s3://{BUCKET}/plain/", tmp_path / "t", client=s3)
    assert sorted(p.name for p in got.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not got.verified


def test_a_model_loads_straight_from_s3(s3: Any, tiny: Any, tmp_path: Path) -> None:
    uri = upload(s3, tiny("llama"), "tiny-llama")
    loaded = load(uri, LoadOptions(device="cpu"), cache=tmp_path, client=s3)
    assert loaded.architecture == "decoder-only"
    assert loaded.folder.parent == tmp_path


def test_locations() -> None:
    assert split_s3("s3://bucket") == ("bucket", "")
    assert split_s3("s3://bucket/a/b/") == ("bucket", "a/b/")
    with pytest.raises(ModelError, match="no S3 location"):
        split_s3("https://bucket/a")
    assert wanted_files(["a.bin", "b.json"]) == {"a.bin", "b.json"}


def test_a_folder_is_held_against_its_manifest(model: Path) -> None:
    assert len(check_folder(model)) == 3
    (model / "empty.txt").write_bytes(b"1")
    with pytest.raises(ModelError, match="has 1 bytes"):
        check_folder(model)
    (model / "empty.txt").unlink()
    with pytest.raises(ModelError, match="is missing"):
        check_folder(model)


def test_only_the_manifest_that_is_expected_is_followed(s3: Any, model: Path, tmp_path: Path) -> None:
    uri, own = upload(s3, model, "expected"), sha256_of(model / NAME)
    got = fetch_s3(uri, tmp_path / "t", client=s3, manifest_sha256=own)
    assert check_folder(got.folder) == entries_of(model)
    (model / "empty.txt").write_text("of somebody else")
    write_manifest(model)
    upload(s3, model, "expected")
    with pytest.raises(ModelError, match="expected is"):
        fetch_s3(uri, tmp_path / "t", client=s3, manifest_sha256=own)
    s3.delete_object(Bucket=BUCKET, Key=f"expected/{NAME}")
    with pytest.raises(ModelError, match="has no manifest"):
        fetch_s3(uri, tmp_path / "t", client=s3, manifest_sha256=own)


def test_a_folder_half_replaced_is_not_taken_for_whole(s3: Any, model: Path, tmp_path: Path) -> None:
    uri, target = upload(s3, model, "replaced"), tmp_path / "t"
    fetch_s3(uri, target, client=s3)
    (model / "model.safetensors").write_bytes(os.urandom(5_000))
    write_manifest(model)
    upload(s3, model, "replaced")
    with pytest.raises(KeyboardInterrupt):
        fetch_s3(uri, target, client=Counted(s3, cut=2), part_bytes=PART, workers=1)
    with pytest.raises(ModelError, match="has no manifest"):
        check_folder(target)
    fetch_s3(uri, target, client=s3, part_bytes=PART)
    assert check_folder(target) == entries_of(model)


def test_two_that_want_the_same_model_fetch_it_once(s3: Any, model: Path, tmp_path: Path) -> None:
    uri = upload(s3, model, "both")
    clients = [Counted(s3), Counted(s3)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fetch_s3, uri, tmp_path / "t", client=c, part_bytes=PART) for c in clients]
        got = [job.result() for job in jobs]
    whole = sum(entry.size_bytes for entry in entries_of(model))
    assert sorted(one.downloaded_bytes for one in got) == [0, whole]
    assert sorted(one.resumed_bytes for one in got) == [0, whole]
    check_folder(tmp_path / "t")
