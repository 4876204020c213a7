"""What a server does under load: warm-up, throughput against concurrency, arrivals at random times."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from model_runtime.errors import ModelError
from model_runtime.progress import Progress
from model_runtime.verify.client import Sample
from model_runtime.verify.loadgen import Load, client_for, closed_loop, open_loop
from model_runtime.verify.plan import Plan
from model_runtime.verify.stats import spread
from model_runtime.verify.workload import VerifyWorkload

RISES = 1.05
"""Throughput that rises less than this from one concurrency to the double no longer rises."""
OPEN_SHARE = 0.7
"""Of the best throughput: the rate of arrivals that is tried when none is given. Above about 0.8 queues grow long."""


def traffic(plan: Plan, url: str, work: VerifyWorkload, progress: Progress) -> dict[str, Any]:
    """Warm-up, throughput against concurrency, and arrivals, at the server `url`: that part of the Measurement."""
    load = Load(work.prompts, work.output_tokens, work.parameters, plan.api)
    return asyncio.run(_measure(plan, url, load, work, progress))


async def _measure(plan: Plan, url: str, load: Load, work: VerifyWorkload, progress: Progress) -> dict[str, Any]:
    connections = max(plan.max_concurrency, 256)
    async with client_for(url, plan.api_key, plan.timeout_s, connections, plan.transport) as client:
        await _warm_up(client, load, plan, progress)
        sweep = await _sweep(client, load, plan, work.latency_s, progress)
        top = max(sweep, key=lambda step: _throughput(step, load))
        rate = plan.rate or OPEN_SHARE * top["requests_per_s"]["median"]
        progress.begin(f"arrivals of a Poisson process, {rate:.3g} a second", plan.requests)
        arrived = await open_loop(client, load, rate, plan.requests, answered=progress.advance)
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


async def _warm_up(client: httpx.AsyncClient, load: Load, plan: Plan, progress: Progress) -> None:
    progress.begin("warming up")
    ran = await closed_loop(client, load, 1, 3)
    bad: list[Sample] = [s for s in ran.samples if not s.ok]
    if bad:
        told = f"status {bad[0].status}" if bad[0].status else "no answer"
        raise ModelError(f"{plan.target} does not answer the workload: {told}: {bad[0].error}")


async def _sweep(
    client: httpx.AsyncClient, load: Load, plan: Plan, latency_s: float | None, progress: Progress
) -> list[dict[str, Any]]:
    """Concurrency 1, 2, 4 … until throughput no longer rises, requests fail, or the latency wish does."""
    steps: list[dict[str, Any]] = []
    concurrency = 1
    while concurrency <= plan.max_concurrency:
        requests = max(plan.requests, 2 * concurrency)
        clients = f"{concurrency} client{'s' if concurrency > 1 else ''} at once"
        progress.begin(f"{clients}, {plan.runs} runs", plan.runs * requests)
        runs = [await closed_loop(client, load, concurrency, requests, progress.advance) for _ in range(plan.runs)]
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
        progress.note(
            f"  {clients}: {_throughput(step, load):.4g} {unit}/s" + (f", p90 {p90['median']:.3g} s" if p90 else "")
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
