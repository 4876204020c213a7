"""The very folder under LMI's own engine: DJL's Python engine of Maven Central, with Java and without."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_runtime.handler.bundle import write_bundle, write_feedback_bundle
from model_runtime.handler.settings import ServingSettings
from model_runtime.tiny import KINDS

HERE = Path(__file__).parent / "lmi"
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def engine() -> Path:
    """The folder with the engine's jars, fetched once by Maven into `build/`."""
    for tool in ("mvn", "java"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; the engine needs JDK 17 and Maven")
    place = ROOT / "build" / "lmi"
    jars = place / "lib"
    if not any(jars.glob("python-0.34.0.jar")):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copyfile(HERE / "pom.xml", place / "pom.xml")
        subprocess.run(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=draft"], cwd=place, check=True
        )
        (place / "draft").rename(jars)
    return jars


def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DJL_CACHE_DIR": str(tmp_path / "djl"),
        "PYTHON_EXECUTABLE": sys.executable,
        "OPT_OUT_TRACKING": "true",
        "DJL_OFFLINE": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


class Engine:
    """A running engine: `ask(bodies)` sends one batch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, bodies: Sequence[Any]) -> list[dict[str, Any]]:
        raw = [b if isinstance(b, bytes) else json.dumps(b).encode() for b in bodies]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([base64.b64encode(b).decode() for b in raw]) + "\n")
        self.process.stdin.flush()
        answers: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return answers


@contextmanager
def running(jars: Path, folder: Path, tmp_path: Path) -> Iterator[Engine]:
    log = (tmp_path / "engine.log").open("w")
    process = subprocess.Popen(
        ["java", "-cp", f"{jars}/*", str(HERE / "Runner.java"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment(tmp_path),
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "ready\n", (tmp_path / "engine.log").read_text()[-3000:]
        yield Engine(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()
        log.close()


def folder_of(kind: str, tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    settings = ServingSettings("m", model_name=kind, batch_size=4, max_output_tokens=12)
    return write_bundle(tmp_path / kind, settings, weights=tiny(kind)).folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_serves_the_folder(engine: Path, tiny: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    good = {"inputs": "The ship"}
    with running(engine, folder_of(kind, tiny, tmp_path), tmp_path) as djl:
        (alone,) = djl.ask([good])
        assert (alone["code"], alone["type"]) == (200, "application/json")
        batch = djl.ask([good, b"{", {"inputs": "1 2 3"}, b'{"inputs": "\\ud800"}', good])
        assert [a["code"] for a in batch] == [200] * 5
        bodies = [json.loads(a["body"]) for a in batch]
        if kind != "bert":
            assert bodies[0] == bodies[4] == json.loads(alone["body"])
        assert [b["error"]["code"] for b in (bodies[1], bodies[3])] == ["invalid_json", "invalid_unicode"]
        for wrong, status in ((b"", 400), (b"[]", 400), ({"inputs": "x" * 200_001}, 413)):
            (answer,) = djl.ask([wrong])
            assert answer["code"] == status, answer
            assert json.loads(answer["body"])["code"] == status
        if kind == "bert":
            return
        (stream,) = djl.ask([{**good, "stream": True}])
        lines = [json.loads(line) for line in stream["body"].splitlines()]
        assert stream["type"] == "application/jsonlines"
        assert "".join(line["token"]["text"] for line in lines) == bodies[0]["generated_text"]
        assert stream["pieces"] > 3
        both = djl.ask([{**good, "stream": True}, good])
        assert both[0]["body"].splitlines()[-1] == stream["body"].splitlines()[-1]
        if kind == "llama":
            chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            (answer,) = djl.ask([chat])
            assert json.loads(answer["body"])["object"] == "chat.completion"
            (answer,) = djl.ask([{**chat, "stream": True}])
            assert answer["type"] == "text/event-stream"
            assert answer["body"].endswith("data: [DONE]\n\n")


def test_the_engine_takes_feedback(engine: Path, tmp_path: Path) -> None:
    folder = write_feedback_bundle(tmp_path / "feedback", journal_dir=str(tmp_path / "journal")).folder
    with running(engine, folder, tmp_path) as djl:
        (good,) = djl.ask([{"request_id": "a", "rating": 5}])
        (bad,) = djl.ask([{"request_id": "a"}])
        batch = djl.ask([{"request_id": "b", "rating": 1}, b"{", {"request_id": "c", "comment": "no"}])
    assert (good["code"], bad["code"]) == (202, 400)
    assert ["accepted" in json.loads(a["body"]) for a in batch] == [True, False, True]
    written = "".join(p.read_text() for p in (tmp_path / "journal").iterdir())
    assert [json.loads(line)["request_id"] for line in written.splitlines()] == ["a", "b", "c"]


def test_the_engine_s_package_serves_the_folder_without_java(
    engine: Path, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(engine / "python-0.34.0.jar") as jar:
        jar.extractall(tmp_path / "package", [n for n in jar.namelist() if n.startswith("djl_python")])
    folder = folder_of("t5", tiny, tmp_path)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "djl_python.test_model",
            "--model-dir",
            str(folder),
            "--input",
            '{"inputs": "The ship"}',
        ],
        env={**environment(tmp_path), "PYTHONPATH": str(tmp_path / "package")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"code": 200' in ran.stdout
    metrics = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"_aws"')]
    assert [m["BatchSize"] for m in metrics] == [1]


def test_a_model_that_cannot_load_ends_the_start(engine: Path, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", ServingSettings("./nowhere")).folder
    ran = subprocess.run(
        ["java", "-cp", f"{engine}/*", str(HERE / "Runner.java"), str(folder)],
        input="", capture_output=True, text=True, check=False, env=environment(tmp_path),
    )  # fmt: skip
    assert ran.returncode != 0
    assert "ready" not in ran.stdout
    assert "no folder here" in ran.stderr
