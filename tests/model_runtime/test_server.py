"""The server: LMI's and OpenAI's routes, batching, limits, back-pressure, key, draining: requests over a socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from model_runtime.feedback.journal import Journal
from model_runtime.generate import Generator
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load
from model_runtime.server.app import Server, ServerLimits
from tests.model_runtime.serving_tools import running

GOOD = {"inputs": "The ship", "parameters": {"max_new_tokens": 8}}


@pytest.fixture(scope="module")
def make(tiny: Callable[[str], Path]) -> Callable[..., Server]:
    loaded: dict[str, Any] = {}

    def server(
        kind: str = "llama", *, key: str = "", journal: Any = None, limits: Any = None, **settings: Any
    ) -> Server:
        if kind not in loaded:
            loaded[kind] = load(str(tiny(kind)), LoadOptions(device="cpu"))
        given = {"model_name": "tiny", "max_output_tokens": 16, "batch_size": 8, **settings}
        chosen = ServingSettings(str(tiny(kind)), **given)
        service = Service(Generator(loaded[kind], chosen.limits), chosen, write=lambda _: None)
        return Server(service, api_key=key, journal=journal, limits=limits)

    return server


@pytest.fixture(scope="module")
def url(make: Any) -> Iterator[str]:
    with running(make()) as address:
        yield address


class Slow:
    """A real model that waits before it answers until it is let go."""

    def __init__(self, model: Any) -> None:
        self._model, self.go = model, threading.Event()
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **arguments: Any) -> Any:
        self.sizes.append(arguments["input_ids"].shape[0])
        assert self.go.wait(60)
        return self._model.generate(**arguments)


def slow(server: Server) -> Slow:
    model = Slow(server.service.generator.model)
    server.service.generator.model = model
    return model


@pytest.mark.parametrize("path", ["/invocations", "/predictions/tiny", "/models/tiny/invoke"])
def test_lmi_s_routes_answer_the_native_form(url: str, path: str) -> None:
    answer = httpx.post(url + path, json=GOOD, headers={"x-request-id": "mine-1"})
    assert answer.status_code == 200
    assert answer.json()["details"]["generated_tokens"] == 8
    assert answer.headers["x-request-id"] == "mine-1"
    assert {"queue", "batch", "first-token"} <= {
        t.split(";")[0].strip() for t in answer.headers["server-timing"].split(",")
    }


def test_openai_s_client_works_unchanged(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["tiny"]
        messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        chat = client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=6, seed=1)
        assert chat.choices[0].message.role == "assistant"
        assert chat.usage is not None
        assert chat.usage.completion_tokens <= 6
        stream = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert said == chat.choices[0].message.content
        assert chunks[-1].usage == chat.usage
        both = client.completions.create(model="tiny", prompt=["The ship", "1 2 3"], max_tokens=4)
        assert [c.index for c in both.choices] == [0, 1]
        pieces = list(client.completions.create(model="tiny", prompt="The ship", max_tokens=4, stream=True))
        assert "".join(p.choices[0].text for p in pieces) == both.choices[0].text
        with pytest.raises(openai.BadRequestError, match="temperature is 9") as refused:
            client.completions.create(model="tiny", prompt="a", temperature=9)
        assert refused.value.param == "temperature"


def test_wrong_requests_have_one_shape_of_error(url: str) -> None:
    for answer, status, code in (
        (httpx.post(f"{url}/invocations", content=b"{"), 400, "invalid_json"),
        (httpx.post(f"{url}/invocations", content=b""), 400, "empty"),
        (httpx.post(f"{url}/nowhere"), 404, "not_found"),
        (httpx.get(f"{url}/invocations"), 405, "method_not_allowed"),
        (httpx.post(f"{url}/v1/completions", json={"prompt": "a", "tempo": 1}), 400, "unknown_parameter"),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.json()["code"] == status


def test_what_comes_together_is_answered_together_and_right(make: Any) -> None:
    server = make(batch_size=8, max_batch_delay_ms=500)
    model = slow(server)
    prompts = [f"number {i}" for i in range(17)]
    with running(server) as address, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(httpx.post, f"{address}/invocations", json={"inputs": p}, timeout=60) for p in prompts]
        while server.inside < 17:
            time.sleep(0.01)
        model.go.set()
        together = [a.result().json()["generated_text"] for a in asked]
        alone = [httpx.post(f"{address}/invocations", json={"inputs": p}).json()["generated_text"] for p in prompts]
    assert together == alone
    assert max(model.sizes) == 8
    assert len(model.sizes) <= 17 + 4


def test_a_full_queue_says_when_to_come_again(make: Any) -> None:
    server = make(batch_size=1, job_queue_size=2)
    model = slow(server)
    with running(server) as address, ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(httpx.post, f"{address}/invocations", json=GOOD, timeout=60)]
        while not model.sizes:
            time.sleep(0.01)
        taken += [pool.submit(httpx.post, f"{address}/invocations", json=GOOD, timeout=60) for _ in range(2)]
        while server.batcher.depth < 2:
            time.sleep(0.01)
        refused = httpx.post(f"{address}/invocations", json=GOOD)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert "berth_queue_depth 2.0" in httpx.get(f"{address}/metrics").text
        model.go.set()
        assert [t.result().status_code for t in taken] == [200] * 3


def test_a_body_that_is_too_large_is_refused_before_it_is_read(make: Any) -> None:
    with running(make(limits=ServerLimits(max_body_bytes=1000))) as address:
        told = httpx.post(f"{address}/invocations", content=b"x" * 1001)
        chunked = httpx.post(f"{address}/invocations", content=(b"x" * 100 for _ in range(20)))
        assert [a.status_code for a in (told, chunked)] == [413, 413]
        assert httpx.post(f"{address}/invocations", json=GOOD).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(make: Any) -> None:
    server = make(limits=ServerLimits(read_s=0.2))
    with running(server) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as lazy:
            lazy.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert lazy.recv(1000).startswith(b"HTTP/1.1 408")
        assert server.inside == 0


def test_an_answer_that_takes_too_long_is_given_up_and_its_row_ended(make: Any) -> None:
    server = make(limits=ServerLimits(answer_s=0.3))
    model = slow(server)
    with running(server) as address:
        late = httpx.post(f"{address}/invocations", json=GOOD, timeout=60)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "timeout")
        model.go.set()
        assert httpx.post(f"{address}/invocations", json=GOOD).status_code == 200
    assert "berth_answer_tokens_sum 8.0" in server.metrics.render().decode(), "the row given up went on"


def test_a_client_that_goes_away_frees_its_place(make: Any) -> None:
    server = make(kind="llama", max_output_tokens=100)
    with running(server) as address:
        asked = {"inputs": "The ship", "stream": True, "parameters": {"min_new_tokens": 100}}
        with httpx.stream("POST", f"{address}/invocations", json=asked) as stream:
            assert next(stream.iter_lines())
        model = slow(server)
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(f"{address}/invocations", json=GOOD, timeout=0.2)
        deadline = time.monotonic() + 60
        while server.inside and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.inside == 0
        model.go.set()
        assert httpx.post(f"{address}/invocations", json=GOOD).status_code == 200


def test_without_the_key_only_the_health_check_answers(make: Any) -> None:
    with running(make(key="s3cret")) as address:
        assert httpx.get(f"{address}/ping").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}, {"x-api-key": "ä"}):
            answer = httpx.post(
                f"{address}/invocations", json=GOOD, headers={k: v.encode() for k, v in headers.items()}
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(f"{address}/metrics").status_code == 401
        for headers in ({"authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
            assert httpx.post(f"{address}/invocations", json=GOOD, headers=headers).status_code == 200


def test_feedback_is_taken_beside_the_model(make: Any, tmp_path: Path) -> None:
    with running(make(journal=Journal(tmp_path))) as address:
        answer = httpx.post(f"{address}/invocations", json=GOOD)
        given = {"request_id": answer.headers["x-request-id"], "rating": 2, "corrected_answer": "A ship."}
        assert httpx.post(f"{address}/feedback", json=given).status_code == 202
        assert httpx.post(f"{address}/feedback", json={}).status_code == 400
    (line,) = "".join(p.read_text() for p in tmp_path.iterdir()).splitlines()
    assert json.loads(line)["corrected_answer"] == "A ship."


def test_a_lost_device_makes_the_server_unwell(make: Any) -> None:
    server = make()
    with running(server) as address:
        server.service.broken = True
        assert httpx.get(f"{address}/ping").status_code == 503
        assert httpx.post(f"{address}/invocations", json=GOOD).status_code == 503


def test_a_classifier_is_served(make: Any) -> None:
    with running(make("bert")) as address:
        labels = httpx.post(f"{address}/invocations", json={"inputs": ["The ship", "1"], "parameters": {"top_k": 1}})
        assert [len(x) for x in labels.json()] == [1, 1]
        assert "/v1/completions" not in httpx.get(f"{address}/openapi.json").json()["paths"]


def test_the_openapi_document_is_one(url: str) -> None:
    from openapi_spec_validator import validate

    document = httpx.get(f"{url}/openapi.json").json()
    validate(document)
    assert "/v1/chat/completions" in document["paths"]


def test_metrics_count_what_happened(make: Any) -> None:
    server = make()
    with running(server) as address:
        for _ in range(3):
            httpx.post(f"{address}/invocations", json=GOOD)
        httpx.post(f"{address}/invocations", content=b"{")
        text = httpx.get(f"{address}/metrics").text
    assert 'berth_requests_total{route="/invocations",status="200"} 3.0' in text
    assert 'berth_requests_total{route="/invocations",status="400"} 1.0' in text
    assert "berth_output_tokens_total 24.0" in text
    assert "berth_first_token_seconds_count 3.0" in text


def test_sigterm_answers_what_was_taken_and_ends_with_0(tiny: Callable[[str], Path]) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "berth",
            "serve",
            str(tiny("llama")),
            "--port",
            "0",
            "--output-tokens",
            "100",
            "--drain",
            "1",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    try:
        lines = []
        while "ready" not in (line := process.stderr.readline()):
            lines.append(line)
            assert line, "".join(lines)
        address = line.split(": ", 1)[1].split()[0]
        asked = {"inputs": "The ship", "stream": True, "parameters": {"min_new_tokens": 100, "max_new_tokens": 100}}
        with httpx.stream("POST", f"{address}/invocations", json=asked, timeout=60) as stream:
            pieces = stream.iter_lines()
            next(pieces)
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 30
            while httpx.get(f"{address}/ping").status_code == 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            refused = httpx.post(f"{address}/invocations", json=GOOD)
            last = json.loads(list(pieces)[-1])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        assert last["details"]["generated_tokens"] == 100
        assert process.wait(60) == 0
        assert "drained and ended" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_command_s_mistakes_are_one_line(
    run_berth: Callable[..., Any], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for arguments, says in (
            ((), "give a model folder"),
            ((tmp_path / "nowhere",), "is no folder"),
            ((tmp_path,), "neither serving.properties nor config.json"),
            (("--tiny", "bart"), "one of t5, llama, gpt2, bert"),
            ((tiny("llama"), "--port", taken.getsockname()[1]), "choose another --port"),
            ((tiny("llama"), "--batch-size", "0"), "batch_size is 0"),
        ):
            ran = run_berth("serve", *arguments)
            assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran.err
            assert says in ran.err
    monkeypatch.setattr("berth.runtime.NEEDED", ("torch", "no_such_package"))
    ran = run_berth("serve", tiny("llama"))
    assert (
        'needs no_such_package, which the base install leaves out; install them with: pip install "berth[runtime]"'
        in ran.err
    )
