"""Verifying: honest percentiles and arrivals, the largest batch, measured beside estimated, a file with a schema."""

from __future__ import annotations

import asyncio
import csv
import json
import mmap
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import model_runtime
from berth.schemas import load as load_schema
from model_runtime.errors import ModelError
from model_runtime.generate import Generator
from model_runtime.handler.bundle import write_bundle
from model_runtime.handler.service import Service
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import LoadOptions, load
from model_runtime.progress import Lines
from model_runtime.server.app import Server
from model_runtime.tiny import build
from model_runtime.verify.estimate import compare, estimate_for
from model_runtime.verify.largest import largest_batch
from model_runtime.verify.loadgen import Load, client_for, closed_loop, open_loop
from model_runtime.verify.measurement import command_line, read_measurement, write_measurement
from model_runtime.verify.plan import Plan
from model_runtime.verify.probe import run_batch
from model_runtime.verify.run import verify
from model_runtime.verify.start import PARTS, caches, forget_cached, start_up_of
from model_runtime.verify.stats import percentile, spread
from model_runtime.verify.verdicts import verdicts
from model_runtime.verify.workload import made_prompts, read_workload
from tests.model_runtime.serving_tools import running
from tests.moto_server import moto_server


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_was_seen(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(v <= found for v in values) >= share * len(values)
    assert sum(v < found for v in values) < share * len(values) + 1e-9
    assert spread(values)["min"] <= spread(values)["median"] <= spread(values)["max"]


@given(st.integers(0, 300), st.integers(1, 256), st.booleans())
def test_the_largest_batch_is_found_in_few_tries(fits: int, limit: int, by_latency: bool) -> None:
    def probe(batch: int) -> dict[str, Any]:
        if by_latency:
            return {"batch": batch, "seconds": 0.1 * batch}
        return {"batch": batch, "seconds": 0.1} if batch <= fits else {"batch": batch, "out_of_memory": True}

    found = largest_batch(probe, limit=limit, latency_s=0.1 * fits + 0.05 if by_latency else None)
    assert found["batch"] == min(fits, limit)
    sizes = [t["batch"] for t in found["tried"]]
    assert len(sizes) == len(set(sizes)) <= 2 * limit.bit_length() + 1
    assert all(1 <= s <= limit for s in sizes)
    assert ("no larger" in found["why"]) == (fits >= limit)


class Stalling(BaseHTTPRequestHandler):
    """Answers at once, but for one stall in which all that arrive wait."""

    lock = threading.Lock()
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with Stalling.lock:
            Stalling.asked += 1
            if Stalling.asked == 5:
                time.sleep(1.0)
        line = (
            b'{"token": {"text": "a"}, "generated_text": "a", "details": {"prompt_tokens": 2, "generated_tokens": 3}}\n'
        )
        self.send_response(200)
        self.send_header("content-length", str(len(line)))
        self.end_headers()
        self.wfile.write(line)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stalling() -> Iterator[str]:
    Stalling.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_open_loop_charges_a_stall_to_all_that_it_kept_waiting(stalling: str) -> None:
    load_ = Load(("a",), 3, {})

    async def both() -> tuple[Any, Any]:
        async with client_for(stalling, "", 30, 100) as client:
            opened = await open_loop(client, load_, rate=50, requests=60)
            Stalling.asked = 0
            return opened, await closed_loop(client, load_, 1, 60)

    opened, closed = asyncio.run(both())
    slow = [s for s in opened.done if s.total_s > 0.3]
    # Arrivals go on during the stall: about 50 a second of them. A closed loop with one client sees one slow request.
    assert len(slow) > 10
    assert len([s for s in closed.done if s.total_s > 0.3]) == 1
    assert opened.done[0].output_tokens == 3


def test_workload_files(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_text('{"inputs": "a"}\n"b"\n')
    assert read_workload(path, output_tokens=5, latency_s=None).prompts == ("a", "b")
    path.write_text('{"prompts": ["x"], "output_tokens": 7, "latency_s": 2, "parameters": {"temperature": 0.5}}')
    read = read_workload(path, output_tokens=5, latency_s=None)
    assert (read.prompts, read.output_tokens, read.latency_s, read.parameters) == (("x",), 7, 2, {"temperature": 0.5})
    for text in ("{", "[]", '["", "a"]', '{"prompts": 3}', '{"prompts": ["a"], "output_tokens": 0}', "[1]"):
        path.write_text(text)
        with pytest.raises(ModelError):
            read_workload(path, output_tokens=5, latency_s=None)
    with pytest.raises(ModelError, match="cannot be read"):
        read_workload(tmp_path / "none", output_tokens=5, latency_s=None)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Generator]:
    made: dict[str, Generator] = {}

    def get(kind: str) -> Generator:
        if kind not in made:
            folder = build(kind, tmp_path_factory.mktemp("wide") / kind, hidden_size=64, layers=3, context_window=128)
            made[kind] = Generator(load(str(folder), LoadOptions(device="cpu")))
        return made[kind]

    return get


@pytest.mark.parametrize(
    ("kind", "batch", "tokens_in", "tokens_out"),
    [("t5", 5, 33, 9), ("llama", 3, 40, 17), ("gpt2", 2, 7, 5), ("bert", 4, 20, 1)],
)
def test_weights_and_cache_are_what_sizing_says_to_the_byte(
    wide: Callable[[str], Generator], kind: str, batch: int, tokens_in: int, tokens_out: int
) -> None:
    generator = wide(kind)
    result = run_batch(generator, batch, tokens_in, tokens_out)
    folder = str(generator.loaded.folder)
    estimated = estimate_for(folder, "fp32", batch=batch, input_tokens=tokens_in, output_tokens=tokens_out)
    start_up = {"weights_bytes": generator.loaded.weights_bytes, "load_peak_bytes": 0}
    terms = {t["name"]: t for t in compare(start_up, result, estimated)["terms"]}
    # BERT's positions are an int64 buffer, which no estimate of parameters has.
    buffers = 2 * 128 * 8 if kind == "bert" else 0
    assert terms["weights"]["measured_bytes"] - buffers == pytest.approx(terms["weights"]["estimated_bytes"], rel=2e-3)
    for name in ("KV cache", "KV cache, cross-attention"):
        if name in terms:
            assert terms[name]["difference"] == 0
    assert ("KV cache" in terms) == (kind != "bert")
    assert ("KV cache, cross-attention" in terms) == (kind == "t5")


def test_memory_over_the_limit_counts_as_not_fitting(wide: Callable[[str], Generator]) -> None:
    assert run_batch(wide("llama"), 1, 4, 2, memory_limit_bytes=1)["out_of_memory"]


def test_a_url_is_measured_from_outside(
    run_berth: Callable[..., Any], wide: Callable[[str], Generator], tmp_path: Path
) -> None:
    settings = ServingSettings("m", model_name="tiny", batch_size=4)
    server = Server(
        Service(Generator(wide("llama").loaded, settings.limits), settings, write=lambda _: None), api_key="k"
    )
    said: list[str] = []
    with running(server) as url:
        plan = Plan(
            url, input_tokens=8, output_tokens=4, requests=6, runs=2, max_concurrency=2, api_key="k", latency_s=60
        )
        document = verify(plan, Lines(said.append))
        with pytest.raises(ModelError, match="does not answer the workload: status 401"):
            verify(Plan(url, api_key="wrong"), Lines(said.append))
        few = ("--requests", 2, "--runs", 1, "--max-concurrency", 1, "--input-tokens", 8, "--output-tokens", 4)
        ran = run_berth("verify", url, "--api-key", "k", *few, "--json")
    assert ran.code == 0, ran.err
    jsonschema.validate(json.loads(ran.out), load_schema("verify"))
    jsonschema.validate(document, load_schema("verify"))
    assert document["machine"] is None
    assert [s["concurrency"] for s in document["sweep"]][:2] == [1, 2]
    first = document["sweep"][0]["runs"][0]
    assert first["output_tokens"]["min"] == first["output_tokens"]["max"] == 4
    assert first["first_token_s"]["p50"] <= first["latency_s"]["p50"]
    assert document["open_loop"]["requests"] == 6
    assert document["verdicts"][0].startswith("p90 stays within 60 s up to a concurrency of")
    assert document["memory_splits"] == 0
    assert "1 client at once, 2 runs (12 requests)" in said
    assert any(line.startswith("  1 client at once: ") and "tokens/s, p90 " in line for line in said)
    write_measurement(document, tmp_path / "m.json")
    assert read_measurement(tmp_path / "m.json") == document
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ModelError, match="no measurement"):
        read_measurement(tmp_path / "other.json")


@given(st.lists(st.lists(st.none() | st.floats(0, 1e4), min_size=5, max_size=5), min_size=1, max_size=6))
def test_a_start_is_the_sum_of_its_parts_and_the_starts_are_kept(measured: list[list[float | None]]) -> None:
    starts = [dict(zip(PARTS, parts, strict=True)) | {"downloaded_bytes": i} for i, parts in enumerate(measured)]
    found = start_up_of(starts)
    jsonschema.validate(found["total_s"]["runs"], {"type": "array", "minItems": len(starts), "maxItems": len(starts)})
    assert found["total_s"]["runs"] == [sum(part or 0.0 for part in parts) for parts in measured]
    assert found["total_s"]["min"] <= found["total_s"]["median"] <= found["total_s"]["max"]
    assert found["downloaded_bytes"] == len(starts) - 1
    assert [list(one.values()) for one in found["starts"]] == measured


def test_weights_are_read_from_the_disk_again(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(os.urandom(8 << 20))
    with weights.open("rb") as file:
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as whole:
            assert sum(whole[:: mmap.PAGESIZE]) > 0
    kept = _cached_pages(weights)
    if kept is None or not kept:
        pytest.skip("this file system does not tell which pages are cached")
    forget_cached(tmp_path)
    assert _cached_pages(weights) == 0


def _cached_pages(path: Path) -> int | None:
    """Pages of the file in the page cache, by util-linux' fincore; None where there is none."""
    tool = shutil.which("fincore")
    if tool is None:
        return None
    told = subprocess.run([tool, "-nbo", "PAGES", path], capture_output=True, text=True, check=False)
    return int(told.stdout) if told.returncode == 0 else None


def test_nothing_can_be_fetched_again_that_is_a_folder(tmp_path: Path) -> None:
    for location, says in ((str(tmp_path), "nothing is fetched"), ("google/flan-t5-base", "HF_HUB_OFFLINE is set")):
        with pytest.raises(ModelError, match=says), caches(location, fetch_again=True):
            pass


@pytest.mark.parametrize(
    "given", [["verify", "http://h", "--api-key", "s3cret"], ["verify", "--api-key=s3cret", "a folder"]]
)
def test_the_report_does_not_hold_the_key_that_was_given(given: list[str]) -> None:
    line = command_line(given)
    assert "s3cret" not in line and "***" in line
    assert shlex.split(line)[1] == "verify"
    assert command_line(["verify", "a folder"]) == "berth verify 'a folder'"


def test_a_classifier_is_measured_in_requests(wide: Callable[[str], Generator]) -> None:
    settings = ServingSettings("m", model_name="tiny", batch_size=4)
    server = Server(Service(Generator(wide("bert").loaded, settings.limits), settings, write=lambda _: None))
    with running(server) as url:
        plan = Plan(url, input_tokens=8, requests=6, runs=1, max_concurrency=2, api="labels")
        document = verify(plan, Lines(lambda _: None))
    jsonschema.validate(document, load_schema("verify"))
    assert document["sweep"][0]["requests_per_s"]["median"] > 0
    assert document["sweep"][0]["output_tokens_per_s"]["median"] == 0
    assert document["open_loop"]["latency_s"]["p50"] > 0


def test_the_verdict_says_when_the_choice_should_change() -> None:
    term = {
        "name": "driver",
        "measured_bytes": int(13.9 * 2**30),
        "estimated_bytes": int(13.1 * 2**30),
        "difference": 0.061,
    }
    document = {
        "settings": {"batch_size": 8},
        "largest_batch": {"batch": 6, "why": "a batch of 7 does not fit the memory", "limit": 256},
        "memory": {"terms": [term]},
        "workload": {"latency_wish_s": 1.0},
        "sweep": [{"concurrency": 1, "failed": 2, "latency_s_p90": {"median": 2.0}}],
    }
    assert verdicts(document) == [
        "batch 8 is set, but a batch of 7 does not fit the memory: set a batch of 6",
        "driver: measured 13.90 GiB, estimated 13.10 GiB (+6%)",
        "p90 is over the 1 s wished even for one client at a time",
        "2 requests failed under load; the statuses stand in the report",
    ]
    untried = {"batch": 4, "why": "no larger one was tried (limit 4)", "limit": 4}
    assert not any("batch" in line for line in verdicts({**document, "largest_batch": untried}))


def test_made_prompts_have_the_length_that_was_asked(wide: Callable[[str], Generator]) -> None:
    tokenizer = wide("llama").tokenizer
    for wished in (1, 8, 64, 100):
        prompts = made_prompts(wished, 5, tokenizer)
        assert len(set(prompts)) == 5
        sizes = [len(tokenizer(p)["input_ids"]) for p in prompts]
        assert all(wished - 12 <= s <= max(wished, 3) for s in sizes)
    assert len(made_prompts(40, 2, None)[0].split()) == 30


def test_the_quantization_claim_is_held_against_what_was_measured() -> None:
    path = Path(model_runtime.__file__).parent / "verify" / "quantization_measured.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    whole = {(r["model"], r["dtype"]): int(r["measured_bytes"]) for r in rows}
    assert {r["architecture"] for r in rows} == {"encoder-decoder", "decoder-only", "encoder-only"}
    for row in rows:
        measured = int(row["measured_bytes"])
        assert float(row["against_fp32"]) == pytest.approx(measured / whole[row["model"], "fp32"] - 1, abs=1e-4)
        assert int(row["estimated_bytes"]) == pytest.approx(measured, rel=0.04), row["model"]
        if row["dtype"] == "int8":
            # -75 % and -50 % hold for no whole model, and -50 % for the linear layers but where some stay in fp32.
            assert -0.75 < float(row["against_fp32"]) < -0.55
            assert -0.50 < float(row["against_fp16"]) < -0.29
            assert float(row["linear_layers_against_fp16"]) < (-0.33 if "t5" in row["model"] else -0.49)
        assert row["versions"]
        assert row["as_of"] >= "2026-01-01"


def test_mistakes_are_one_line(run_berth: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for arguments, says in (
        ((tmp_path,), "neither serving.properties nor config.json"),
        (("http://127.0.0.1:1",), "does not answer the workload: no answer: ConnectError"),
        ((tmp_path, "--api", "soap"), "native or openai"),
        ((tmp_path, "--latency", "0"), "must be above 0"),
        ((tmp_path, "--report", tmp_path / "taken" / "m.json"), "cannot be written: "),
        ((tmp_path, "--report", tmp_path), "name a file in a folder of yours"),
    ):
        ran = run_berth("verify", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_is_measured_whole(
    run_berth: Callable[..., Any], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, report = tiny("t5"), tmp_path / "m.json"
    with moto_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for path in model.iterdir():
            client.upload_file(str(path), "models", f"t5/{path.name}")
        client.close()
        folder = tmp_path / "folder"
        write_bundle(folder, ServingSettings("s3://models/t5", model_name="t5", batch_size=4))
        ran = run_berth(
            "verify", folder, "--requests", 6, "--runs", 2, "--max-concurrency", 2, "--batch-limit", 8,
            "--input-tokens", 16, "--output-tokens", 4, "--starts", 2, "--fetch-again", "--report", report,
        )  # fmt: skip
    assert ran.code == 0, ran.err
    for shown in (
        "s to the first token of a batch of 1 (median of 2: ", "were fetched",
        "Largest batch (16 tokens in, 4 out): 8; ", "Memory at batch 8 (resident memory, Linux VmHWM)",
        "Host memory at the peak of loading: ",
    ):  # fmt: skip
        assert shown in ran.out
    document = json.loads(report.read_text())
    jsonschema.validate(document, load_schema("verify"))
    assert document["largest_batch"]["batch"] == 8
    start = document["start_up"]
    assert start["load_s"] > 0
    assert len(start["starts"]) == 2
    assert start["downloaded_bytes"] == sum(path.stat().st_size for path in model.iterdir())
    assert all(one["download_s"] > 0 for one in start["starts"])
    assert not list(Path(os.environ["BERTH_CACHE_DIR"]).glob("verify-*")), "what was fetched for it is gone"
    assert "start 2 of 2: loading in a process of its own" in ran.err.splitlines()
    differences = {t["name"]: t["difference"] for t in document["memory"]["terms"]}
    assert abs(differences["weights"]) < 0.01
    assert differences["KV cache"] == differences["KV cache, cross-attention"] == 0


@pytest.mark.slow
def test_after_each_batch_that_does_not_fit_a_new_process_goes_on(tmp_path: Path) -> None:
    from model_runtime.verify.largest import Prober

    folder = build("llama", tmp_path / "m", hidden_size=256, layers=4, context_window=1024)
    free = Prober(folder, {}, (500, 2))
    one = free(1)["peak_bytes"]
    sixteen = free(16)["peak_bytes"]
    free.close()
    prober = Prober(folder, {}, (500, 2), memory_limit_bytes=(one + sixteen) // 2)
    found = largest_batch(prober, limit=64)
    prober.close()
    failures = [t for t in found["tried"] if t.get("out_of_memory")]
    assert 1 <= found["batch"] < 16
    assert len(failures) >= 1
    assert prober.starts >= len(failures)
