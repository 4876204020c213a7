"""Load: a closed loop (so many clients, each asking again when answered) and an open one (Poisson arrivals).

In the open loop a request is due when the arrivals say, whether or not earlier ones are answered, and its latency
counts from then: a server that stalls is charged for the requests that it kept waiting (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from model_runtime.verify.client import Api, Sample, ask, body_of
from model_runtime.verify.stats import summary


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: prompts in turn, `output_tokens` of each answer, further `parameters`."""

    prompts: Sequence[str]
    output_tokens: int
    parameters: dict[str, Any]
    api: Api = "native"

    def body(self, number: int) -> tuple[str, dict[str, Any]]:
        return body_of(self.api, self.prompts[number % len(self.prompts)], self.output_tokens, self.parameters)


@dataclass(frozen=True, slots=True)
class Ran:
    """A phase of load: its samples and how long it took, in seconds."""

    samples: tuple[Sample, ...]
    seconds: float

    @property
    def done(self) -> list[Sample]:
        return [s for s in self.samples if s.ok]

    @property
    def requests_per_s(self) -> float:
        return len(self.done) / self.seconds if self.seconds else 0.0

    @property
    def output_tokens_per_s(self) -> float:
        return sum(s.output_tokens for s in self.done) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        done = self.done
        failed: dict[str, int] = {}
        for s in self.samples:
            if not s.ok:
                failed[str(s.status)] = failed.get(str(s.status), 0) + 1
        firsts = [s.first_s for s in done if s.first_s is not None]
        return {
            "requests": len(self.samples),
            "failed": failed,
            "seconds": self.seconds,
            "requests_per_s": self.requests_per_s,
            "output_tokens_per_s": self.output_tokens_per_s,
            "latency_s": summary([s.total_s for s in done]) if done else None,
            "first_token_s": summary(firsts) if firsts else None,
            "input_tokens": summary([float(s.input_tokens) for s in done]) if done else None,
            "output_tokens": summary([float(s.output_tokens) for s in done]) if done else None,
        }


def client_for(
    url: str, api_key: str, timeout_s: float, connections: int, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client with room for `connections` at once; `transport` instead of connections of its own."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, limits=limits, transport=transport)


def _nobody() -> None:
    """Nobody counts the answers."""


async def closed_loop(
    client: httpx.AsyncClient, load: Load, concurrency: int, requests: int, answered: Callable[[], None] = _nobody
) -> Ran:
    """`concurrency` clients ask until `requests` were asked in all; `answered` is called after each."""
    numbers = count()
    samples: list[Sample] = []

    async def one() -> None:
        while (number := next(numbers)) < requests:
            path, body = load.body(number)
            samples.append(await ask(client, path, body, time.perf_counter()))
            answered()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(concurrency)))
    return Ran(tuple(samples), time.perf_counter() - began)


async def open_loop(
    client: httpx.AsyncClient,
    load: Load,
    rate: float,
    requests: int,
    seed: int = 0,
    answered: Callable[[], None] = _nobody,
) -> Ran:
    """`requests` arrive as a Poisson process of `rate` a second; `answered` is called after each answer."""
    random_ = random.Random(seed)  # noqa: S311 (arrivals, no secret)
    began = time.perf_counter()
    due = began
    tasks: list[asyncio.Task[Sample]] = []
    for number in range(requests):
        due += random_.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        path, body = load.body(number)
        task = asyncio.create_task(ask(client, path, body, due))
        task.add_done_callback(lambda _: answered())
        tasks.append(task)
    samples = await asyncio.gather(*tasks)
    return Ran(tuple(samples), time.perf_counter() - began)
