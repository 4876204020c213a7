"""10,000 hostile requests: no 5xx but a deliberate 503, no lost worker, memory that stays flat, right answers after."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# One server takes all of it, and the last test asks how it is (tests/conftest.py keeps them in one worker).
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ALLOWED = {200, 202, 400, 404, 405, 408, 413, 415, 422, 503}
GOOD = {"inputs": "The ship", "parameters": {"max_new_tokens": 4}}
PATHS = ("/invocations", "/predictions/tiny-llama", "/v1/chat/completions", "/v1/completions", "/feedback")
RAW, SCHEMA, HYPOTHESIS = 7000, 2000, 2000

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["inputs", "parameters", "messages", "prompt", "stream", "n", "temperature", "max_tokens", "stop", "seed", "top_k"]
)
SEEDS: tuple[Any, ...] = (
    GOOD,
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "temperature": 1.5, "seed": 1, "n": 2},
    {"prompt": ["a", "b"], "max_tokens": 2, "stop": ["x"], "stream": True},
    {"inputs": "a", "stream": True, "parameters": {"repetition_penalty": 1.1, "top_p": 0.5}},
    {"request_id": "a", "rating": 3},
)


class Served:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.statuses: Counter[int] = Counter()
        self.client = httpx.Client(base_url=url, timeout=60)

    def post(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        answer = self.client.post(path, content=content, headers=headers)
        self.seen(answer.status_code, answer.headers.get("retry-after"), (path, content[:300], answer.text[:300]))

    def seen(self, status: int, retry_after: str | None, what: Any) -> None:
        self.statuses[status] += 1
        assert status in ALLOWED, what
        assert status != 503 or retry_after, what

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    arguments = ["--tiny", "llama", "--port", "0", "--output-tokens", "4", "--max-body", "300000", "--feedback"]
    place = tmp_path_factory.mktemp("feedback")
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", "serve", *arguments, str(place)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    while "ready" not in (line := process.stderr.readline()):
        assert line
    served = Served(process, line.split(": ", 1)[1].split()[0])
    yield served
    served.client.close()
    process.terminate()
    assert process.wait(60) == 0
    process.stderr.close()


def mutated(random_: random.Random) -> bytes:
    """A valid body with some bytes changed, cut, doubled or nested."""
    body = bytearray(json.dumps(random_.choice(SEEDS)).encode())
    for _ in range(random_.randint(0, 4)):
        at = random_.randrange(len(body) + 1)
        how = random_.randrange(6)
        if how == 0 and body:
            body[at % len(body)] = random_.randrange(256)
        elif how == 1:
            body[at:at] = random_.randbytes(random_.randint(1, 8))
        elif how == 2:
            del body[at : at + random_.randint(1, 10)]
        elif how == 3:
            body[at:at] = random_.choice([b'"\\ud800"', b"\\u0000", b"1e999", b"NaN", b"9" * 400, b"null", b"\xff\xfe"])
        elif how == 4:
            body[at:at] = random_.choice([b"[" * 3000, b'{"a":' * 500, b"x" * 400_000, b"\xf0\x9f\x9a\xa2" * 300])
        else:
            body = body * 2
    return bytes(body)


def test_hostile_bodies(served: Served) -> None:
    random_ = random.Random(20261)
    types = [
        "application/json",
        "text/plain",
        "application/octet-stream",
        "",
        "application/json; charset=utf-16",
        "a" * 500,
    ]
    before = 0
    for number in range(RAW):
        headers = {"content-type": random_.choice(types), "x-request-id": random_.choice(["a", "", "\x7f", "b" * 300])}
        served.post(random_.choice(PATHS), mutated(random_), headers)
        if number == RAW // 3:
            before = served.memory
    assert served.memory < before * 1.1, "memory grows"


def test_hostile_http(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for raw in (
        b"\r\n\r\n", b"GET\r\n\r\n", b"POST /invocations HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" * 50,
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n0123456789",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    ):  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(200)
            except OSError:
                continue
            assert not answer.startswith(b"HTTP/1.1 5"), (raw[:80], answer)


@settings(max_examples=HYPOTHESIS, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
@given(
    st.sampled_from(PATHS),
    st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=5) | JSON,
)
def test_hostile_json(served: Served, path: str, body: Any) -> None:
    served.post(path, json.dumps(body).encode(), {"content-type": "application/json"})


def test_requests_of_the_openapi_document(served: Served) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode is schemathesis.GenerationMode.NEGATIVE and operation.method.upper() == "GET":
                continue

            @settings(
                max_examples=SCHEMA // (2 * len(operations)),
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                answer = case.call(base_url=served.url)
                told = answer.headers.get("retry-after")
                served.seen(answer.status_code, told[0] if isinstance(told, list) else told, case)
                if answer.status_code != 405:
                    case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])

            ask()


def test_after_all_of_it_the_server_is_well_and_right(served: Served, tmp_path: Path) -> None:
    assert served.process.poll() is None
    assert served.client.get("/ping").status_code == 200
    first = served.client.post("/invocations", json=GOOD)
    assert first.status_code == 200
    assert first.json()["details"]["generated_tokens"] == 4
    assert served.client.post("/invocations", json=GOOD).json() == first.json()
    assert served.statuses.total() >= 10_000
    print(dict(served.statuses))
