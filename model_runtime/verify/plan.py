"""What is to be measured: a folder, a server, or a stack at its address, and with what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from model_runtime.verify.client import Api


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack that answers at the plan's target, as its settings say; `instance_type` is EC2's name of the type.

    `stand_in`: what answers is not its machine but one that stands in for it, as in the sandbox.
    """

    name: str
    role: str
    region: str
    address: str
    model: str
    dtype: str
    instance_type: str
    batch: int
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `target`: a folder (model folder or a model's own) or the URL of a server.

    `starts`: of a folder, how often it is started, for the spread. `fetch_again`: each start fetches the weights into
    an empty cache, as a machine does that has just come. `stack`: whose the server is. `transport`: how requests reach
    it, where that is not over HTTP to the URL.
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
    starts: int = 3
    fetch_again: bool = False
    stack: Stack | None = None
    transport: httpx.AsyncBaseTransport | None = None

    @property
    def is_url(self) -> bool:
        return self.target.startswith(("http://", "https://"))
