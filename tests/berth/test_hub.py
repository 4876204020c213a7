"""The hub over HTTP, against a server of the same answers on this machine: requests, ranges, refusals, silence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from berth.hub import find_model
from sizing.errors import UserError
from sizing.models.read import layout_of

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 112, "vocab_size": 999, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}  # fmt: skip
PARAMS = layout_of(CONFIG).params
COMMIT = "0123456789abcdef"


def safetensors() -> bytes:
    """A file of the tensors that `CONFIG` describes, all zero."""
    header: dict[str, Any] = {}
    offset = 0
    for t in layout_of(CONFIG).tensors:
        if not t.tied_to:
            for i in range(t.count):
                size = t.numel // t.count * 2
                name = t.name.replace(".layers.", f".layers.{i}.")
                header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [offset, offset + size]}
                offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(offset)


class Hub(ThreadingHTTPServer):
    """Answers as huggingface.co does. `files`: path -> bytes; `status`: what a model's page answers instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.about: dict[str, Any] = {}
        self.status: tuple[int, str] | None = None
        self.ranges = True
        self.sent = 0
        self.tokens: list[str | None] = []

    def handle_error(self, *_: object) -> None:
        """A client that stops reading a file early is no error."""

    def publish(self, files: dict[str, bytes], **about: Any) -> None:
        self.files = files
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        self.about = {"sha": COMMIT, "siblings": siblings, **about}


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(body)
            self.server.sent += len(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader had enough

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.server.status is not None:
            code, error = self.server.status
            self.answer(code, b"", {"X-Error-Code": error} if error else {})
            return
        if self.path.startswith("/api/models/"):
            self.answer(200, json.dumps(self.server.about).encode())
            return
        data = self.server.files.get(self.path.removeprefix(f"/org/name/resolve/{COMMIT}/"))
        if data is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        wanted = self.headers.get("Range")
        if wanted is None or not self.server.ranges:
            self.answer(200, data)
            return
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        self.answer(206, data[first : last + 1])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(name: str = "org/name") -> str:
    with pytest.raises(UserError) as told:
        find_model(name)
    assert "\n" not in str(told.value)
    return str(told.value)


def config_bytes(**change: Any) -> bytes:
    return json.dumps(CONFIG | change).encode()


def test_a_model_of_the_hub_is_read_by_its_header_alone(hub: Hub) -> None:
    weights = safetensors()
    hub.publish({"config.json": config_bytes(), "model.safetensors": weights}, cardData={"license": "apache-2.0"})

    facts = find_model("org/name")

    assert (facts.name, facts.params, facts.stored_bytes) == ("org/name", PARAMS, 2 * PARAMS)
    assert (facts.licence, facts.licence_verdict) == ("Apache-2.0", "business-friendly")
    assert facts.source == "https://huggingface.co/org/name"
    assert hub.sent < len(weights) / 4


def test_a_server_without_ranges_does_as_well(hub: Hub) -> None:
    hub.ranges = False
    hub.publish({"config.json": config_bytes(), "model.safetensors": safetensors()})

    assert find_model("org/name").params == PARAMS


def test_many_shards_are_taken_from_the_index(hub: Hub) -> None:
    shards = {f"t{i}": f"model-{i:05}.safetensors" for i in range(40)}
    index = {"metadata": {"total_size": 2 * PARAMS}, "weight_map": shards}
    hub.publish({"config.json": config_bytes(), "model.safetensors.index.json": json.dumps(index).encode()})

    facts = find_model("org/name")

    assert (facts.params, facts.stored_bytes) == (PARAMS, 2 * PARAMS)


def test_a_config_that_lies_is_told(hub: Hub) -> None:
    hub.publish({"config.json": config_bytes(num_hidden_layers=3), "model.safetensors": safetensors()})

    assert refused().startswith("org/name on the hub: config.json and weights disagree")


def test_a_licence_of_its_own_is_named_and_left_unjudged(hub: Hub) -> None:
    hub.publish({"config.json": config_bytes()}, cardData={"license": "other", "license_name": "house-rules"})

    facts = find_model("org/name")

    assert (facts.licence, facts.licence_verdict) == ("house-rules", "unknown")


def test_a_token_is_sent_when_there_is_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish({"config.json": config_bytes()})
    find_model("org/name")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find_model("org/name")

    assert hub.tokens[0] is None
    assert hub.tokens[-1] == "Bearer hf_secret"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ((401, "GatedRepo"), "model 'org/name' is gated: accept its licence on its page of the hub and set HF_TOKEN"),
        ((403, ""), "model 'org/name' is gated"),
        ((401, "RepoNotFound"), "unknown model 'org/name': neither in the catalogue nor on the hub (or private)"),
        ((404, ""), "unknown model 'org/name'"),
        ((503, ""), "model 'org/name': the hub answers 503; try later, or name a model of `berth models`"),
        ((429, ""), "model 'org/name': the hub answers 429"),
    ],
)
def test_a_refusal_says_what_to_do(hub: Hub, status: tuple[int, str], said: str) -> None:
    hub.status = status

    assert refused().startswith(said)


def test_an_unknown_name_like_one_of_the_catalogue_offers_it(hub: Hub) -> None:
    hub.status = (401, "RepoNotFound")

    assert "; in the catalogue: google/flan-t5-xl, " in refused("google/flan-t5-xll")


def test_a_hub_that_does_not_answer_is_told_with_the_other_ways(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    said = refused()

    assert said.startswith("model 'org/name' is not in the catalogue, and the hub does not answer (")
    assert "name a model of `berth models`, or a folder with its config.json" in said


def test_an_answer_that_is_no_json_is_told(hub: Hub) -> None:
    hub.about = {}
    hub.publish({"config.json": b"<html>"})

    assert "config.json: not JSON" in refused()


def test_the_hub_is_not_asked_for_what_the_catalogue_has_or_when_offline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find_model("google/flan-t5-xl")
    (tmp_path / "config.json").write_bytes(config_bytes())
    find_model(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert "the hub was not asked (offline)" in refused()
    assert hub.tokens == []
