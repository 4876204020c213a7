"""Feedback: what is accepted is on the disk, whatever ends the process, and reaches S3 once S3 answers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.feedback.intake import take
from model_runtime.feedback.journal import Journal, Shipper, ship
from model_runtime.feedback.record import FeedbackError, read_feedback
from tests.moto_server import moto_server

BUCKET = "feedback-of-a-test"
GOOD = {"request_id": "cmpl-1", "rating": 4}


def body(**what: Any) -> bytes:
    return json.dumps(what).encode()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for p in sorted(folder.glob("*.jsonl*")) for x in p.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"\xff", body(rating=3), body(request_id="a"), body(request_id="a b", rating=1),
        body(request_id="a", rating=6), body(request_id="a", rating=True), body(request_id="a", rating="5"),
        body(request_id="a", comment=""), body(request_id="a", comment="x" * 100_001), body(**GOOD, extra=1),
        b'{"request_id": "a", "comment": "\\ud800"}', b'{"a":' * 100_000, b" " * 1_000_001,
    ],
)  # fmt: skip
def test_what_is_no_feedback_is_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(FeedbackError):
        read_feedback(raw, 0.0)
    journal = Journal(tmp_path)
    replies = take([raw, body(**GOOD)], journal)
    assert [status for status, _ in replies] == [400, 202]
    assert [r["rating"] for r in lines(tmp_path)] == [4]


@given(st.text(min_size=1, max_size=50).filter(lambda t: t.strip()))
def test_text_arrives_as_it_was_written(text: str) -> None:
    record = read_feedback(body(request_id="r", corrected_answer=text, comment=None), 1.5)
    assert (record["corrected_answer"], record["time"]) == (text, 1.5)
    assert len(json.dumps(record, ensure_ascii=False).splitlines()) >= 1


PROGRAM = """
import json, sys
from pathlib import Path
from model_runtime.feedback.intake import take
from model_runtime.feedback.journal import Journal
journal = Journal(Path(sys.argv[1]), max_bytes=2000)
number = 0
while True:
    number += 1
    bodies = [json.dumps({"request_id": f"{number}-{i}", "comment": "x" * 50}).encode() for i in range(3)]
    for status, document in take(bodies, journal):
        assert status == 202
        print(document["id"], flush=True)
"""


def test_kill_9_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    accepted: list[str] = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(40):
            accepted.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        accepted += [line.strip() for line in process.stdout.readlines() if len(line) == 33]
        process.stdout.close()
        process.wait()
    Journal(tmp_path).close()
    written = [r["id"] for r in lines(tmp_path)]
    assert len(accepted) >= 120
    assert set(accepted) <= set(written)
    assert len(written) == len(set(written))


def test_a_line_that_was_cut_is_taken_away_at_the_next_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([{"id": "1"}])
    (open_segment,) = tmp_path.glob("*.open")
    with open_segment.open("ab") as file:
        file.write(b'{"id": "2", "comm')
    (tmp_path / "20200101T000000-x.jsonl.open").write_bytes(b'{"half')
    again = Journal(tmp_path)
    assert [r["id"] for r in lines(tmp_path)] == ["1"]
    assert len(again.closed()) == 1


def test_a_full_disk_is_a_503_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append([{"id": "1"}])
    real = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 10:
            return real(file, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    ((status, document),) = take([body(**GOOD)], journal)
    assert (status, document["error"]["code"]) == (503, "disk_failed")
    monkeypatch.setattr(os, "write", real)
    assert take([body(**GOOD)], journal)[0][0] == 202
    assert [r.get("request_id") for r in lines(tmp_path)] == [None, "cmpl-1"]


def test_segments_close_by_size_and_by_age(tmp_path: Path) -> None:
    now = [0.0]
    journal = Journal(tmp_path, max_bytes=30, max_age_s=10, clock=lambda: now[0])
    for _ in range(3):
        journal.append([{"id": "x" * 20}])
    assert len(journal.closed()) == 2
    now[0] = 11
    assert len(journal.closed()) == 3
    assert journal.closed() == sorted(tmp_path.iterdir())


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with moto_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()


def shipped(client: Any, prefix: str) -> list[str]:
    keys = [o["Key"] for o in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
    bodies = [client.get_object(Bucket=BUCKET, Key=k)["Body"].read().decode() for k in keys]
    return sorted(json.loads(line)["id"] for text in bodies for line in text.splitlines())


def test_closed_segments_go_to_s3_and_stay_until_they_are_there(s3: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1)
    for name in ("a", "b", "c"):
        journal.append([{"id": name}])
    with pytest.raises(Exception, match="NoSuchBucket"):
        ship(journal, "s3://no-such-bucket-here/x", s3)
    assert len(journal.closed()) == 2
    assert ship(journal, f"s3://{BUCKET}/first", s3) == 2
    assert shipped(s3, "first/") == ["a", "b"]
    assert [r["id"] for r in lines(tmp_path)] == ["c"]


def test_at_the_end_all_is_shipped(s3: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    shipper = Shipper(journal, f"s3://{BUCKET}/last", s3, every_s=3600)
    journal.append([{"id": "z"}])
    shipper.stop()
    assert shipped(s3, "last/") == ["z"]
    assert list(tmp_path.iterdir()) == []
