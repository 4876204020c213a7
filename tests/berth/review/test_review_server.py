"""The review page's server: what it saves survives a kill, and it answers nobody but its page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from berth.review.judgements import Journal, Judgement, read_judgements
from berth.review.predictions import read_predictions
from berth.review.server import ReviewServer
from tests.berth.review.predictions_file import write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    journal = Journal(tmp_path / "j.jsonl")
    running = ReviewServer("<p>page</p>", frozenset({"r1", "r2"}), journal)
    thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
    journal.close()


def one(**changes: Any) -> list[dict[str, Any]]:
    return [{"row": "r1", "reviewer": "ann", "answer": "tuned", "label": "correct", **changes}]


def test_what_is_confirmed_is_in_the_file_and_comes_back(server: ReviewServer) -> None:
    assert httpx.get(server.url).text == "<p>page</p>"
    assert httpx.post(server.url + "judgements", json=one()).json() == {"saved": 1}
    assert [j.label for j in read_judgements(server.journal.path).judgements] == ["correct"]
    assert httpx.get(server.url + "judgements").json()[0]["reviewer"] == "ann"


def test_without_the_secret_there_is_nothing(server: ReviewServer) -> None:
    root = f"http://127.0.0.1:{server.server_port}"
    for path in ("/", "/judgements", "/wrong/", f"/{server.token}", f"/{server.token}x/judgements", "/%00/"):
        assert httpx.get(root + path).status_code == 404
    assert httpx.post(root + "/judgements", json=one()).status_code == 404
    assert httpx.get(server.url + "../j.jsonl").status_code == 404


def test_another_name_or_another_page_is_refused(server: ReviewServer) -> None:
    at = server.url + "judgements"
    assert httpx.get(server.url, headers={"Host": f"evil.example:{server.server_port}"}).status_code == 404
    assert httpx.post(at, json=one(), headers={"Origin": "https://evil.example"}).status_code == 403
    assert httpx.post(at, json=one(), headers={"Origin": f"http://127.0.0.1:{server.server_port}"}).status_code == 200
    assert httpx.post(at, content=json.dumps(one()), headers={"Content-Type": "text/plain"}).status_code == 415


@pytest.mark.parametrize(
    "body", ["{", "{}", "[1]", json.dumps(one(row="r9")), json.dumps(one(label="x")), "[" * 99_999]
)
def test_what_is_no_judgement_is_refused_whole(server: ReviewServer, body: str) -> None:
    answer = httpx.post(server.url + "judgements", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    both = httpx.post(server.url + "judgements", json=[*one(), *one(label="x")])
    assert both.status_code == 400
    assert read_judgements(server.journal.path).judgements == ()


def test_a_body_beyond_the_bound_is_refused_unread(server: ReviewServer) -> None:
    with closing(HTTPConnection("127.0.0.1", server.server_port, timeout=20)) as connection:
        connection.putrequest("POST", f"/{server.token}/judgements")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_what_the_disk_refuses_is_told(server: ReviewServer) -> None:
    full = Journal(Path("/dev/full"))
    server.journal, kept = full, server.journal
    answer = httpx.post(server.url + "judgements", json=one())
    server.journal = kept
    full.close()
    assert answer.status_code == 507
    assert "No space left" in answer.text


def test_nothing_that_was_confirmed_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    keys = [row.key for row in read_predictions(path)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "berth", "review", str(path), "--no-browser", "--reviewer", "ann"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    with process, process.stdout as out:
        url = out.readline().rsplit(" ", 1)[1].strip()
        confirmed = 0
        for key in keys:
            body = [{"row": key, "reviewer": "ann", "answer": "tuned", "label": "correct"}]
            confirmed += httpx.post(url + "judgements", json=body).json()["saved"]
        os.kill(process.pid, signal.SIGKILL)
    assert confirmed == len(keys)
    read = read_judgements(tmp_path / "p.reviews.jsonl")
    assert [j.row for j in read.judgements] == keys
    assert read.damaged == 0


def test_a_port_in_use_and_a_place_that_cannot_be_written_are_one_line(
    run_berth: Callable[..., Any], server: ReviewServer, tmp_path: Path
) -> None:
    path = write(tmp_path / "p.jsonl")
    ran = run_berth("review", path, "--no-browser", "--port", server.server_port)
    assert ran.code == 2
    assert "choose another with --port" in ran.err
    assert len(ran.err.splitlines()) == 1
    ran = run_berth("review", path, "--no-browser", "--judgements", tmp_path / "no" / "j.jsonl")
    assert ran.code == 2
    assert "cannot be written" in ran.err
    assert "cannot be read" in run_berth("review", tmp_path / "none.jsonl").err


def test_no_file_that_is_read_is_written_over(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    before = path.read_bytes()
    for arguments in (("-o", path), ("--judgements", path), ("--judgements", tmp_path / "j", "-o", tmp_path / "j")):
        ran = run_berth("review", path, *arguments)
        assert ran.code == 2
        assert "would be written over" in ran.err
    assert "would be written over" in run_berth("review", "export", path, "-o", path).err
    assert path.read_bytes() == before


def test_a_page_that_is_written_has_the_judgements_so_far(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl")
    journal = Journal(tmp_path / "p.reviews.jsonl")
    journal.append([Judgement(read_predictions(path)[0].key, "bob", "tuned", "wrong", "</script>")])
    journal.close()
    ran = run_berth("review", path, "-o", tmp_path / "p.html")
    assert ran.code == 0, ran.err
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert '"reviewer":"bob"' in page
    assert '"comment":"\\u003c/script\\u003e"' in page
