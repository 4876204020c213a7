"""The whole of a verification: start-up, latency, throughput against concurrency, arrivals, largest batch, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from model_runtime.errors import ModelError
from model_runtime.verify.client import Api, Sample
from model_runtime.verify.estimate import compare, estimate_for, served_estimate
from model_runtime.verify.largest import Prober, largest_batch
from model_runtime.verify.loadgen import Load, client_for, closed_loop, open_loop
from model_runtime.verify.measurement import FORMAT, command_line, machine
from model_runtime.verify.stats import spread
from model_runtime.verify.workload import VerifyWorkload, made_prompts, read_workload

Say = Callable[[str], None]
RISES = 1.05
"""Throughput that rises less than this from one concurrency to the double no longer rises."""
OPEN_SHARE = 0.7
"""Of the best throughput: the rate of arrivals that is tried when none is given. Above about 0.8 queues grow long."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack that answers at the plan's target, as its settings say; `instance_type` is EC2's name of the type."""

    name: str
    role: str
    region: str
    address: str
    model: str
    dtype: str
    instance_type: str
    batch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `target`: a folder (model folder or a model's own) or the URL of a server.

    `stack`: whose the server is. `transport`: how requests reach it, where that is not over HTTP to the URL.
    """

    target: str
    workload: Path | None = None
    input_tokens: int = 64
    output_tokens: int = 32
    requests: int = 32
    runs: int = 3
    max_concurrency: int = 32
    rate: float | None = None
    latency_s: float | None = None
    batch_limit: int = 256
    memory_limit_bytes: int | None = None
    api: Api = "native"
    api_key: str = ""
    timeout_s: float = 300.0
    overrides: dict[str, Any] = field(default_factory=dict)
    stack: Stack | None = None
    transport: httpx.AsyncBaseTransport | None = None

    @property
    def is_url(self) -> bool:
        return self.target.startswith(("http://", "https://"))


def verify(plan: Plan, say: Say) -> dict[str, Any]:
    """Measure, and return the Measurement document. Raises `ModelError` when there is nothing to measure."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "target": plan.target,
        "machine": None if plan.is_url else machine(),
    }
    if plan.is_url:
        work = _workload(plan, None)
        document |= {"start_up": None, "settings": None, "model": None, "largest_batch": None, "memory": None}
        document |= _traffic(plan, plan.target, work, say)
        document["stack"] = (
            None if plan.stack is None else asdict(plan.stack) | {"estimate": _beside(plan.stack, document)}
        )
    else:
        document |= {"stack": None} | _folder(plan, Path(plan.target), say)
    document["verdicts"] = verdicts(document)
    return document


def _folder(plan: Plan, folder: Path, say: Say) -> dict[str, Any]:
    from model_runtime.serving import settings_of

    settings = settings_of(folder, plan.overrides)
    say("loading in a process of its own")
    tokenizer, shape = _tokenizer(settings.location(folder, os.environ)), (plan.input_tokens, plan.output_tokens)
    work = _workload(plan, tokenizer)
    if plan.workload is not None and tokenizer is not None:
        longest = max(len(tokenizer(p, verbose=False)["input_ids"]) for p in work.prompts)
        shape = (longest, work.output_tokens)
    prober = Prober(folder, plan.overrides, *shape, plan.memory_limit_bytes)
    try:
        first = prober(1)
        start_up = {**prober.start_up, "first_token_s": first.get("first_token_s")}
        _check_window(start_up, *shape)
        say(f"batches of {shape[0]} tokens in, {shape[1]} out: the largest by doubling and bisecting")

        def probe(batch: int) -> dict[str, Any]:
            result = prober(batch)
            said = "does not fit" if result.get("out_of_memory") else f"{result['seconds']:.3g} s"
            say(f"  batch {batch}: {said}")
            return result

        largest = largest_batch(probe, limit=plan.batch_limit, latency_s=plan.latency_s or work.latency_s)
        largest["process_starts"] = prober.starts
    finally:
        prober.close()
    fitting = [t for t in largest["tried"] if not t.get("out_of_memory") and t["batch"] == largest["batch"]]
    memory = None
    if fitting:
        estimate = estimate_for(
            start_up["folder"], start_up["dtype"],
            batch=fitting[-1]["batch"], input_tokens=shape[0], output_tokens=shape[1],
        )  # fmt: skip
        memory = compare(start_up, fitting[-1], estimate)
    labels = start_up["architecture"] == "encoder-only"
    with served(folder, plan, say) as url:
        traffic = _traffic(replace(plan, api="labels") if labels else plan, url, work, say)
    return {
        "model": {
            "name": settings.model_name,
            "source": settings.location(folder, os.environ),
            **{k: start_up[k] for k in ("architecture", "dtype", "device", "context_window", "weights_bytes")},
        },
        "settings": asdict(settings),
        "start_up": {
            key: start_up[key] for key in ("process_start_s", "import_s", "download_s", "load_s", "first_token_s")
        },
        "largest_batch": {**largest, "input_tokens": shape[0], "output_tokens": shape[1]},
        "memory": memory,
        **traffic,
    }


def _beside(stack: Stack, document: dict[str, Any]) -> dict[str, Any] | None:
    """sizing's estimate for the stack, for requests as long as those that were sent."""
    alone = next((run for run in document["sweep"][0]["runs"] if run["input_tokens"]), None)
    if alone is None:
        return None
    tokens_in, tokens_out = (round(alone[f"{way}_tokens"]["mean"]) for way in ("input", "output"))
    return served_estimate(stack.model, stack.dtype, stack.instance_type, stack.batch, max(1, tokens_in), tokens_out)


def _tokenizer(location: str) -> Any:
    from transformers import AutoTokenizer

    from model_runtime.load import fetch

    return AutoTokenizer.from_pretrained(fetch(location))


def _check_window(start_up: dict[str, Any], input_tokens: int, output_tokens: int) -> None:
    window = start_up["context_window"]
    asked = input_tokens + (output_tokens if start_up["architecture"] == "decoder-only" else 0)
    if window and asked > window:
        raise ModelError(
            f"{asked:,} tokens are asked of a context window of {window:,}; "
            "use a smaller --input-tokens or --output-tokens"
        )


def _workload(plan: Plan, tokenizer: Any) -> VerifyWorkload:
    if plan.workload is not None:
        return read_workload(plan.workload, output_tokens=plan.output_tokens, latency_s=plan.latency_s)
    prompts = made_prompts(plan.input_tokens, min(16, plan.requests), tokenizer)
    return VerifyWorkload(prompts, plan.output_tokens, latency_s=plan.latency_s)


@contextlib.contextmanager
def served(folder: Path, plan: Plan, say: Say) -> Iterator[str]:
    """`folder` behind a server in a process of its own; its address."""
    import json

    say("starting the server")
    process = subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-m", "model_runtime.serving", str(folder), json.dumps(dict(plan.overrides))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line.startswith("http://"):
            raise ModelError(f"the server of {folder} did not start; berth serve {folder} shows why")
        yield line.strip()
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _traffic(plan: Plan, url: str, work: VerifyWorkload, say: Say) -> dict[str, Any]:
    return asyncio.run(
        _measure(plan, url, Load(work.prompts, work.output_tokens, work.parameters, plan.api), work, say)
    )


async def _measure(plan: Plan, url: str, load: Load, work: VerifyWorkload, say: Say) -> dict[str, Any]:
    connections = max(plan.max_concurrency, 256)
    async with client_for(url, plan.api_key, plan.timeout_s, connections, plan.transport) as client:
        await _warm_up(client, load, plan, say)
        sweep = await _sweep(client, load, plan, work.latency_s, say)
        top = max(sweep, key=lambda step: _throughput(step, load))
        rate = plan.rate or OPEN_SHARE * top["requests_per_s"]["median"]
        say(f"arrivals of a Poisson process, {rate:.3g} a second")
        arrived = await open_loop(client, load, rate, plan.requests)
        before = await _splits(client)
    return {
        "workload": {
            "prompts": len(work.prompts),
            "output_tokens": work.output_tokens,
            "parameters": work.parameters,
            "latency_wish_s": work.latency_s,
            "source": work.source,
        },
        "sweep": sweep,
        "best_concurrency": top["concurrency"],
        "open_loop": {"rate_per_s": rate, **arrived.to_json()},
        "memory_splits": before,
    }


async def _warm_up(client: httpx.AsyncClient, load: Load, plan: Plan, say: Say) -> None:
    say("warming up")
    ran = await closed_loop(client, load, 1, 3)
    bad: list[Sample] = [s for s in ran.samples if not s.ok]
    if bad:
        told = f"status {bad[0].status}" if bad[0].status else "no answer"
        raise ModelError(f"{plan.target} does not answer the workload: {told}: {bad[0].error}")


async def _sweep(
    client: httpx.AsyncClient, load: Load, plan: Plan, latency_s: float | None, say: Say
) -> list[dict[str, Any]]:
    """Concurrency 1, 2, 4 … until throughput no longer rises, requests fail, or the latency wish does."""
    steps: list[dict[str, Any]] = []
    concurrency = 1
    while concurrency <= plan.max_concurrency:
        runs = [
            await closed_loop(client, load, concurrency, max(plan.requests, 2 * concurrency)) for _ in range(plan.runs)
        ]
        shown = [r.to_json() for r in runs]
        step: dict[str, Any] = {
            "concurrency": concurrency,
            "output_tokens_per_s": spread([r.output_tokens_per_s for r in runs]),
            "requests_per_s": spread([r.requests_per_s for r in runs]),
            "failed": sum(sum(s["failed"].values()) for s in shown),
            "runs": shown,
        }
        for name in ("latency_s", "first_token_s"):
            for point in ("p50", "p90", "p99"):
                values = [s[name][point] for s in shown if s[name]]
                step[f"{name}_{point}"] = spread(values) if values else None
        steps.append(step)
        p90 = step["latency_s_p90"]
        unit = "requests" if load.api == "labels" else "tokens"
        say(
            f"  concurrency {concurrency}: {_throughput(step, load):.4g} {unit}/s"
            + (f", p90 {p90['median']:.3g} s" if p90 else "")
        )
        if step["failed"] or (latency_s is not None and p90 and p90["median"] > latency_s):
            break
        if len(steps) > 1:
            before, now = (_throughput(s, load) for s in steps[-2:])
            if now < before * RISES:
                break
        concurrency *= 2
    return steps


def _throughput(step: dict[str, Any], load: Load) -> float:
    """Tokens a second; of a classifier, which makes none, requests."""
    name = "requests_per_s" if load.api == "labels" else "output_tokens_per_s"
    return float(step[name]["median"])


async def _splits(client: httpx.AsyncClient) -> float | None:
    """Times that the server split a batch for want of memory, where it says so."""
    try:
        answer = await client.get("/metrics")
    except httpx.HTTPError:
        return None
    for line in answer.text.splitlines():
        if line.startswith("berth_memory_splits "):
            return float(line.split()[1])
    return None


def verdicts(document: dict[str, Any]) -> list[str]:
    """What the measurement says of the choice, in sentences."""
    said = []
    settings, largest, memory = document.get("settings"), document.get("largest_batch"), document.get("memory")
    if settings and largest:
        wished, found = settings["batch_size"], largest["batch"]
        if found < wished:
            said.append(
                f"batch {wished} is set, but {largest['why']}: set a batch of {found}" if found else largest["why"]
            )
        elif found > wished and found < largest["limit"]:
            said.append(f"batch {wished} is set and a batch of {found} fits: {largest['why']}")
    if memory:
        for term in memory["terms"]:
            if (
                term["name"] in ("weights", "driver")
                and term["difference"] is not None
                and abs(term["difference"]) > 0.05
            ):
                said.append(
                    f"{term['name']}: measured {_gib(term['measured_bytes'])}, "
                    f"estimated {_gib(term['estimated_bytes'])} ({term['difference']:+.0%})"
                )
    stack = document.get("stack")
    if stack and stack["estimate"] and (alone := document["sweep"][0]["latency_s_p50"]):
        likely = stack["estimate"]["latency_s"]
        said.append(
            f"one client: p50 {alone['median']:.3g} s over the network, estimated {likely['likely']:.3g} s "
            f"({likely['low']:.3g} to {likely['high']:.3g}) for {stack['model']} in {stack['dtype']} on "
            f"{stack['instance_type']}"
        )
    wish = document["workload"]["latency_wish_s"]
    if wish is not None:
        good = [
            s["concurrency"] for s in document["sweep"] if s["latency_s_p90"] and s["latency_s_p90"]["median"] <= wish
        ]
        if good:
            said.append(f"p90 stays within {wish:g} s up to a concurrency of {max(good)}")
        else:
            said.append(f"p90 is over the {wish:g} s wished even for one client at a time")
    failed = sum(s["failed"] for s in document["sweep"])
    if failed:
        said.append(f"{failed} requests failed under load; the statuses stand in the report")
    return said


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.2f} MiB"
