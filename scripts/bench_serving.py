"""What serving costs over plain generate: ratios on one machine, in one run, at concurrency 1, 8 and 32.

Four ways answer the same prompts with the same number of tokens:

- loop: `transformers` generate, one prompt after another, in this process: what one writes without a server;
- handler: this handler's service in this process, a batch of as many as there are clients;
- server: `berth serve`'s server over a socket, with as many clients;
- stock: LMI's `djl_python.huggingface` handler in this process (where its versions permit), a batch likewise.

    python scripts/bench_serving.py --djl build/lmi/package --runs 3 --output docs/serving_ratios.csv

Rounds are interleaved, and a ratio is the median over rounds of the ratio within one round, so that a machine whose
speed wanders does not decide. `cpu_against_loop` is the processor time of the process (for `server` with its client's)
over the loop's: what other processes take does not touch it.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

COLUMNS = (
    "model", "hidden_size", "layers", "way", "concurrency", "tokens_per_s", "against_loop", "cpu_against_loop",
    "latency_p50_s", "latency_against_loop", "rounds", "versions", "as_of",
)  # fmt: skip
CONCURRENCIES = (1, 8, 32)
TOKENS = 32


def check(holds: bool, what: object) -> None:
    """A way that does not do the whole work is not timed."""
    if not holds:
        raise RuntimeError(f"not the answers that were asked: {what}")


def prompts(count: int) -> list[str]:
    return [f"{i}: which berth is free tonight, and what does it cost for {i + 2} weeks?" for i in range(count)]


def loop_way(loaded: Any) -> Callable[[Sequence[str]], list[float]]:
    """The plain loop. Requests that come together wait for those before them."""
    import torch

    def run(texts: Sequence[str]) -> list[float]:
        began = time.perf_counter()
        ends = []
        for text in texts:
            inputs = loaded.tokenizer(text, return_tensors="pt")
            with torch.inference_mode():
                out = loaded.model.generate(
                    inputs.input_ids,
                    attention_mask=inputs.attention_mask,
                    do_sample=False,
                    max_new_tokens=TOKENS,
                    min_new_tokens=TOKENS,
                )
            loaded.tokenizer.decode(out[0], skip_special_tokens=True)
            ends.append(time.perf_counter() - began)
        return ends

    return run


def body(text: str) -> bytes:
    return json.dumps({"inputs": text, "parameters": {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}}).encode()


def handler_way(service: Any) -> Callable[[Sequence[str]], list[float]]:
    def run(texts: Sequence[str]) -> list[float]:
        began = time.perf_counter()
        replies = service.answer([body(t) for t in texts])
        check(all(r.body["details"]["generated_tokens"] == TOKENS for r in replies), replies)
        return [time.perf_counter() - began] * len(texts)

    return run


def server_way(url: str) -> Callable[[Sequence[str]], list[float]]:
    import httpx

    async def ask(texts: Sequence[str]) -> list[float]:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
            await asyncio.gather(*(client.get("/ping") for _ in texts))  # connections stand before the clock runs

            began = time.perf_counter()

            async def one(text: str) -> float:
                answer = await client.post("/invocations", content=body(text))
                check(answer.json()["details"]["generated_tokens"] == TOKENS, answer.text)
                return time.perf_counter() - began

            return list(await asyncio.gather(*(one(t) for t in texts)))

    return lambda texts: asyncio.run(ask(texts))


def stock_way(djl: Path, folder: Path, task: str) -> Callable[[Sequence[str]], list[float]] | str:
    """LMI's stock handler, or why it cannot run here."""
    sys.path.insert(0, str(djl))
    try:
        from djl_python.huggingface import HuggingFaceService
        from djl_python.test_model import create_concurrent_batch_request
    except ImportError as error:
        return f"djl_python.huggingface cannot be imported: {error}"
    service = HuggingFaceService()
    properties = {
        "model_id": str(folder),
        "model_dir": str(folder),
        "rolling_batch": "disable",
        "task": task,
        "device_id": "-1",
    }
    try:
        service.initialize(dict(properties))
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"

    def run(texts: Sequence[str]) -> list[float]:
        began = time.perf_counter()
        parameters = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
        items = [{"inputs": t, "parameters": parameters} for t in texts]
        out = service.inference(
            create_concurrent_batch_request(items, [{"Content-Type": "application/json"}] * len(items))
        )
        check(out.content.size() == len(texts), out)
        check(b"generated_text" in bytes(out.content.value_at(0)), bytes(out.content.value_at(0))[:200])
        return [time.perf_counter() - began] * len(texts)

    return run


def measure(
    kind: str, hidden_size: int, layers: int, rounds: int, djl: Path | None, concurrencies: Sequence[int]
) -> list[dict[str, Any]]:
    from model_runtime.generate import Generator
    from model_runtime.handler.service import Service
    from model_runtime.handler.settings import ServingSettings
    from model_runtime.load import LoadOptions, load
    from model_runtime.server.app import Server
    from model_runtime.server.run import listen, serve
    from model_runtime.tiny import build

    with tempfile.TemporaryDirectory() as place:
        folder = build(
            kind, Path(place) / kind, hidden_size=hidden_size, layers=layers, vocab_size=4096, context_window=512
        )
        settings = ServingSettings(str(folder), model_name="m", batch_size=32, max_batch_delay_ms=50, metrics="off")

        def service() -> Service:
            return Service(Generator(load(str(folder), LoadOptions(device="cpu")), settings.limits), settings)

        # The loop has a model of its own: the handler changes a model's generation settings.
        ways: dict[str, Any] = {
            "loop": loop_way(load(str(folder), LoadOptions(device="cpu"))),
            "handler": handler_way(service()),
        }
        ready, bound, servers = threading.Event(), listen("127.0.0.1", 0), []

        def ready_at(_: str, draining: Any) -> None:
            servers.append(draining)
            ready.set()

        thread = threading.Thread(target=lambda: serve(Server(service()), bound, on_ready=ready_at), daemon=True)
        thread.start()
        ready.wait()
        ways["server"] = server_way(f"http://127.0.0.1:{bound.getsockname()[1]}")
        if djl is not None:
            stock = stock_way(djl, folder, "text2text-generation" if kind == "t5" else "text-generation")
            if isinstance(stock, str):
                print(f"{kind}: the stock handler does not run here: {stock}", flush=True)
            else:
                ways["stock"] = stock
        rows = []
        for concurrency in concurrencies:
            texts = prompts(concurrency)
            repeats = max(1, 8 // concurrency)
            taken: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
            for number in range(rounds + 1):
                order = list(ways) if number % 2 else list(reversed(ways))
                for way in order:
                    cpu = time.process_time()
                    runs = [ways[way](texts) for _ in range(repeats)]
                    cpu = time.process_time() - cpu
                    if number:  # the first round warms up
                        seconds = sum(max(r) for r in runs) / repeats
                        taken[way].append((seconds, median(x for r in runs for x in r), cpu))
            for way, times in taken.items():
                loop = taken["loop"]
                rows.append(
                    {
                        "model": kind,
                        "hidden_size": hidden_size,
                        "layers": layers,
                        "way": way,
                        "concurrency": concurrency,
                        "tokens_per_s": f"{concurrency * TOKENS / median(t for t, _, _ in times):.1f}",
                        "against_loop": f"{median(a[0] / b[0] for a, b in zip(loop, times, strict=True)):.3f}",
                        "cpu_against_loop": f"{median(b[2] / a[2] for a, b in zip(loop, times, strict=True)):.3f}",
                        "latency_p50_s": f"{median(p for _, p, _ in times):.4f}",
                        "latency_against_loop": f"{median(b[1] / a[1] for a, b in zip(loop, times, strict=True)):.3f}",
                        "rounds": rounds,
                        "versions": f"torch {version('torch')}; transformers {transformers_version()}",
                        "as_of": datetime.now(UTC).date().isoformat(),
                    }
                )
                print({k: v for k, v in rows[-1].items() if k not in ("versions", "as_of", "rounds")}, flush=True)
        servers[0].handle_exit(15, None)
        thread.join()
        bound.close()
    return rows


def transformers_version() -> str:
    import transformers

    return str(transformers.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--djl", type=Path, help="the folder in which the engine's djl_python package is unpacked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=["t5", "llama"])
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCIES)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = [
        row
        for kind in given.kinds
        for row in measure(kind, given.hidden_size, given.layers, given.rounds, given.djl, given.concurrency)
    ]
    if given.output:
        draft = given.output.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(given.output)


if __name__ == "__main__":
    main()
