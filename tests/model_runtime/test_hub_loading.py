"""Loading from the hub: a local server speaks the hub's API, and a process fetches from it by a model's id."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from model_runtime.tiny import build

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys
from model_runtime.errors import ModelError
from model_runtime.hub import fetch_hub
from model_runtime.load import LoadOptions, load
seen = []
try:
    _, came = fetch_hub(sys.argv[1], lambda there, wanted: seen.append((there, wanted)))
    found = load(sys.argv[1], LoadOptions(device="cpu"))
except ModelError as error:
    print("refused:", error)
else:
    print("came:", came, *seen[-1], max(there for there, _ in seen), found.downloaded_bytes)
    print("loaded:", found.architecture, found.weights_bytes, ",".join(sorted(p.name for p in found.folder.iterdir())))
"""


class Hub(BaseHTTPRequestHandler):
    """`GET /api/models/ID…` lists the files, `/ID/resolve/REVISION/FILE` has each; ranges are answered."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    cut_at = 0
    fetched: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/tiny"):
            files = sorted(Hub.folder.iterdir())
            told: Any = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
            if "/tree/" in path:
                told = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT} for p in files]
            self._send(200, json.dumps(told).encode(), {"content-type": "application/json"}, body=body)
            return
        name = path.rsplit("/", 1)[-1]
        if not path.startswith("/org/tiny/resolve/") or not (Hub.folder / name).is_file():
            self._send(404, b"{}", {"x-error-code": "RepoNotFound"}, body=body)
            return
        content = (Hub.folder / name).read_bytes()
        headers = {
            "etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "x-repo-commit": COMMIT,
            "accept-ranges": "bytes",
        }
        if body:
            Hub.fetched.append(name)
        wanted = self.headers.get("range", "")
        if body and wanted.startswith("bytes="):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers, body=True)
        elif body and Hub.cut_at and name == "model.safetensors":
            self.send_response(200)
            for key, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: Hub.cut_at])
            Hub.cut_at = 0
            self.close_connection = True
        else:
            self._send(200, content, headers, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    Hub.folder, Hub.cut_at, Hub.fetched = build("llama", tmp_path / "repo"), 0, []
    (Hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        # The hub's client reads its address when it is imported: so it is a process of its own.
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")},
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "OMP_NUM_THREADS": "1",
        }

        def run(model: str) -> list[str]:
            command = [sys.executable, "-W", "ignore", "-c", FETCH, model]
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
            assert ran.returncode == 0, ran.stderr[-2000:]
            return ran.stdout.strip().splitlines()

        yield run
        server.shutdown()
        thread.join()


def test_a_model_is_fetched_by_its_id_without_its_pickles_whatever_is_cut(fetch: Callable[[str], list[str]]) -> None:
    Hub.cut_at = 2000
    came, told = fetch("org/tiny")
    assert told.startswith("loaded: decoder-only ")
    assert "model.safetensors" in told
    assert "pytorch_model.bin" not in told
    assert "pytorch_model.bin" not in Hub.fetched
    assert Hub.fetched.count("model.safetensors") == 2
    whole = sum(path.stat().st_size for path in Hub.folder.iterdir() if path.name != "pytorch_model.bin")
    assert came == f"came: {whole} {whole} {whole} {whole} 0"
    before = len(Hub.fetched)
    assert fetch("org/tiny")[-1] == told
    assert len(Hub.fetched) == before


def test_a_model_that_the_hub_does_not_have_is_told_in_one_line(fetch: Callable[[str], list[str]]) -> None:
    told = fetch("org/other")[-1]
    assert told.startswith("refused: org/other cannot be fetched from the hub: ")
