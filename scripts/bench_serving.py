"""What serving costs over plain generate, and beside LMI's stock handler: paired ratios at concurrency 1, 8 and 32.

Four ways answer the same prompts with the same number of tokens, each on one thread:

- loop: `transformers` generate, one prompt after another: what one writes without a server;
- handler: this handler's service, a batch of as many as there are clients;
- server: `berth serve`'s server in a process of its own, over a socket, with as many clients;
- stock: LMI's `djl_python.huggingface` handler (where its versions permit), a batch likewise.

    python scripts/bench_serving.py            # about five minutes; writes docs/serving_ratios.csv and docs/serving.md
    python scripts/bench_serving.py --minutes 1 --dry

Rounds are short, each runs every way once, in an order that changes, and a ratio is taken within a round: so a machine
whose speed wanders does not decide. Shown are the median over the rounds and its 95 % confidence interval (order
statistics, no distribution assumed). `cpu` is processor time of the process that works (the server's own, without its
clients), which other programs hardly touch; `wall` is time. The loop, which is sequential, answers 4 of the
prompts at most, and its time counts for all.

The stock handler is the package in `build/lmi/lib/python-*.jar` (Maven: `ai.djl.python:python`; `make test-slow`
fetches it). With transformers 5 it runs no encoder-decoder; where `build/transformers4` holds an older one, that is
measured too:

    pip install --target build/transformers4 --no-deps transformers==4.57.3 tokenizers==0.22.1 \\
        huggingface-hub==0.36.0 accelerate==1.12.0 peft==0.18.0
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gc
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CSV, PAGE = ROOT / "docs" / "serving_ratios.csv", ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- written by scripts/bench_serving.py -->", "<!-- end -->"
COLUMNS = (
    "transformers", "model", "hidden_size", "layers", "concurrency", "way", "against", "measure", "ratio", "low",
    "high", "rounds", "tokens_per_s", "torch", "djl_python", "machine", "load", "as_of",
)  # fmt: skip
CONCURRENCIES = (1, 8, 32)
TOKENS = 32
LOOPED = 4
LEAST_ROUNDS = 6
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
Run = Callable[[Sequence[str]], None]


def check(holds: bool, what: object) -> None:
    """A way that does not do the whole work is not timed."""
    if not holds:
        raise RuntimeError(f"not the answers that were asked: {what}")


def prompts(count: int) -> list[str]:
    return [f"{i}: which berth is free tonight, and what does it cost for {i + 2} weeks?" for i in range(count)]


@dataclass(frozen=True)
class Way:
    """One way to answer, the processor seconds that its process has used, and for how much its time counts."""

    run: Run
    cpu: Callable[[], float] = time.process_time
    times: Callable[[int], float] = lambda _: 1.0


def loop_way(loaded: Any) -> Way:
    """The plain loop."""
    import torch

    def run(texts: Sequence[str]) -> None:
        for text in texts[:LOOPED]:
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

    return Way(run, times=lambda asked: asked / min(asked, LOOPED))


def body(text: str) -> bytes:
    return json.dumps({"inputs": text, "parameters": {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}}).encode()


def handler_way(service: Any) -> Way:
    def run(texts: Sequence[str]) -> None:
        replies = service.answer([body(t) for t in texts])
        check(all(r.body["details"]["generated_tokens"] == TOKENS for r in replies), replies)

    return Way(run)


@contextmanager
def server_way(folder: Path) -> Iterator[Way]:
    """The server in a process of its own; its clients keep their connections from round to round."""
    import httpx
    import psutil

    overrides = {"batch_size": 32, "max_batch_delay_ms": 50, "model_name": "m"}
    process = subprocess.Popen(
        [sys.executable, "-m", "model_runtime.serving", str(folder), json.dumps(overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        url = process.stdout.readline().strip() if process.stdout is not None else ""
        check(url.startswith("http"), "the server did not start")
        runner = asyncio.Runner()
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        client = httpx.AsyncClient(base_url=url, timeout=600, limits=limits)

        async def ask(texts: Sequence[str]) -> None:
            async def one(text: str) -> None:
                answer = await client.post("/invocations", content=body(text))
                check(answer.json()["details"]["generated_tokens"] == TOKENS, answer.text)

            await asyncio.gather(*(one(t) for t in texts))

        seen = psutil.Process(process.pid)
        yield Way(lambda texts: runner.run(ask(texts)), cpu=lambda: sum(seen.cpu_times()[:2]))
        runner.run(client.aclose())
        runner.close()
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def stock_way(djl: Path, folder: Path, task: str) -> Way | str:
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

    def run(texts: Sequence[str]) -> None:
        parameters = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
        items = [{"inputs": t, "parameters": parameters} for t in texts]
        out = service.inference(
            create_concurrent_batch_request(items, [{"Content-Type": "application/json"}] * len(items))
        )
        check(out.content.size() == len(texts), out)
        check(b"generated_text" in bytes(out.content.value_at(0)), bytes(out.content.value_at(0))[:200])

    return Way(run)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % confidence interval: the order statistics between which a median lies by the binomial
    distribution (David & Nagaraja, Order Statistics, 2003, section 7.1); the extremes where there are too few."""
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0
    while k < n // 2 and below + math.comb(n, k) / 2**n <= 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    k = max(0, k - 1)
    return median(ordered), ordered[k], ordered[n - 1 - k]


def rounds_of(ways: dict[str, Way], texts: list[str], seconds: float) -> dict[str, list[tuple[float, float]]]:
    """(seconds, processor seconds) of each way in each round, for about `seconds` in all; the first round warms up."""
    random_ = random.Random(0)  # noqa: S311 (an order, no secret)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until or number <= LEAST_ROUNDS:
        order = random_.sample(list(ways), len(ways))
        for name in order:
            way = ways[name]
            gc.collect()  # what another way has left behind is not collected on this one's time
            cpu, began = way.cpu(), time.perf_counter()
            way.run(texts)
            wall, used = time.perf_counter() - began, way.cpu() - cpu
            if number:
                times = way.times(len(texts))
                taken[name].append((wall * times, used * times))
        number += 1
    return taken


def measure(kind: str, hidden_size: int, layers: int, seconds: float, djl: Path | None) -> list[dict[str, Any]]:
    import transformers

    from model_runtime.generate import Generator
    from model_runtime.handler.service import Service
    from model_runtime.handler.settings import ServingSettings
    from model_runtime.load import LoadOptions, load
    from model_runtime.tiny import build

    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = build(
            kind, Path(place) / kind, hidden_size=hidden_size, layers=layers, vocab_size=4096, context_window=512
        )
        settings = ServingSettings(str(folder), model_name="m", batch_size=32, max_batch_delay_ms=50, metrics="off")
        service = Service(Generator(load(str(folder), LoadOptions(device="cpu")), settings.limits), settings)
        # The loop has a model of its own: the handler changes a model's generation settings.
        ways = {"loop": loop_way(load(str(folder), LoadOptions(device="cpu"))), "handler": handler_way(service)}
        if djl is not None:
            stock = stock_way(djl, folder, "text2text-generation" if kind == "t5" else "text-generation")
            if isinstance(stock, str):
                print(f"{kind}, transformers {transformers.__version__}: the stock handler does not run: {stock}")
            else:
                ways["stock"] = stock
        with server_way(folder) as ways["server"]:
            for concurrency in CONCURRENCIES:
                load_before = os.getloadavg()[0]
                taken = rounds_of(ways, prompts(concurrency), seconds / len(CONCURRENCIES))
                pairs = [(way, "loop") for way in ways if way != "loop"]
                pairs += [("handler", "stock")] if "stock" in ways else []
                for way, against in pairs:
                    for at, measured in enumerate(("wall", "cpu")):
                        ratios = [a[at] / b[at] for a, b in zip(taken[way], taken[against], strict=True)]
                        ratio, low, high = interval(ratios)
                        rows.append(
                            {
                                "transformers": transformers.__version__, "model": kind, "hidden_size": hidden_size,
                                "layers": layers, "concurrency": concurrency, "way": way, "against": against,
                                "measure": measured, "ratio": f"{ratio:.3f}", "low": f"{low:.3f}",
                                "high": f"{high:.3f}", "rounds": len(ratios),
                                "tokens_per_s": f"{concurrency * TOKENS / median(t for t, _ in taken[way]):.1f}",
                                "torch": version("torch"), "djl_python": "0.34.0" if djl else "",
                                "machine": f"{os.cpu_count()} cores", "load": f"{load_before:.1f}",
                                "as_of": datetime.now(UTC).date().isoformat(),
                            }
                        )  # fmt: skip
                        said = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
                        print(f"{kind} {concurrency:>2}: {way} / {against}, {measured}: {said}", flush=True)
    return rows


def stock_package() -> Path | None:
    """The folder that holds `djl_python`, unpacked from the engine's jar; None where Maven has not fetched it."""
    jars = sorted((ROOT / "build" / "lmi" / "lib").glob("python-*.jar"))
    if not jars:
        return None
    target = ROOT / "build" / "lmi" / "package"
    if not (target / "djl_python").is_dir():
        with zipfile.ZipFile(jars[-1]) as jar:
            jar.extractall(target, [n for n in jar.namelist() if n.startswith("djl_python/")])
    return target


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The ratios as Markdown: one line a comparison, wall and processor time side by side."""
    lines = [
        "| transformers | model | clients | compared | time | processor time | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[k] for k in ("transformers", "model", "concurrency", "way", "against"))
        found.setdefault(key, {})[row["measure"]] = row
    for (library, model, clients, way, against), both in found.items():
        wall, cpu = (f"{m['ratio']} ({m['low']} to {m['high']})" for m in (both["wall"], both["cpu"]))
        lines.append(
            f"| {library} | {model} | {clients} | {way} / {against} | {wall} | {cpu} | {both['wall']['rounds']} |"
        )
    first = rows[0]
    loads = sorted(float(row["load"]) for row in rows)
    head = (
        f"{first['as_of']}, {first['machine']} (load average {loads[0]:g} to {loads[-1]:g}, this run's own included), "
        f"torch {first['torch']} on one thread, models of {first['layers']} layers and {first['hidden_size']} hidden "
        f"units, {TOKENS} tokens an answer, fp32. Below 1 the first of the two takes less."
    )
    return "\n".join([head, "", *lines])


def write(rows: list[dict[str, Any]]) -> None:
    draft = CSV.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draft.replace(CSV)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    draft = PAGE.with_suffix(".tmp")
    draft.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")
    draft.replace(PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.5, help="for all measurements together (default 4.5)")
    parser.add_argument("--kinds", nargs="+", default=["llama", "t5"])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    parser.add_argument("--one", metavar="KIND", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        rows = measure(given.one, given.hidden_size, given.layers, given.seconds, stock_package())
        given.rows.write_text(json.dumps(rows), encoding="utf-8")
        return
    older = ROOT / "build" / "transformers4"
    # Each kind in a process of its own; an encoder-decoder again with the transformers that the stock handler needs.
    runs: list[tuple[str, Path | None]] = [(kind, None) for kind in given.kinds]
    if older.is_dir() and "t5" in given.kinds:
        runs.append(("t5", older))
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for number, (kind, packages) in enumerate(runs):
            path = os.pathsep.join(str(p) for p in (packages, ROOT) if p)
            subprocess.run(
                [
                    sys.executable, "-W", "ignore", __file__, "--one", kind, "--rows", f"{place}/{number}",
                    "--seconds", str(given.minutes * 60 / len(runs)),
                    "--hidden-size", str(given.hidden_size), "--layers", str(given.layers),
                ],
                check=True,
                env={**os.environ, **QUIET, "PYTHONPATH": path},
            )  # fmt: skip
            rows += json.loads(Path(place, str(number)).read_text(encoding="utf-8"))
    if given.dry:
        print(table(rows))
    else:
        write(rows)


if __name__ == "__main__":
    main()
