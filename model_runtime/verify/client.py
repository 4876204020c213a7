"""One request, measured: sent as a stream, so that the first token has a time of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

import httpx

Api = Literal["native", "openai", "labels"]
"""`labels`: the native form to a classifier, which answers at once and generates nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one request saw, in seconds from when it was *due*: in an open loop, waiting for a connection counts.

    `status` 0: no answer came. `first_s` None: nothing was generated.
    """

    status: int
    first_s: float | None
    total_s: float
    input_tokens: int
    output_tokens: int
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200


def body_of(api: Api, prompt: str, output_tokens: int, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and body of a streaming request for exactly `output_tokens` tokens (`openai`: at most as many).

    A classifier's answer (`labels`) is no stream and has no tokens.
    """
    if api == "labels":
        return "/invocations", {"inputs": prompt}
    if api == "openai":
        usage = {"include_usage": True}
        return "/v1/completions", {
            "prompt": prompt, "max_tokens": output_tokens, "stream": True, "stream_options": usage, **parameters
        }  # fmt: skip
    length = {"max_new_tokens": output_tokens, "min_new_tokens": output_tokens}
    return "/invocations", {"inputs": prompt, "stream": True, "parameters": {**length, **parameters}}


async def ask(client: httpx.AsyncClient, path: str, body: dict[str, Any], due: float) -> Sample:
    """Send one request and read its stream to the end. `due`: `time.perf_counter()` when it should have been sent."""
    first: float | None = None
    tokens_in = tokens_out = 0
    try:
        async with client.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode("utf-8", "replace")
                return Sample(answer.status_code, None, time.perf_counter() - due, 0, 0, text[:200])
            async for line in answer.aiter_lines():
                event = line.removeprefix("data:").strip()
                if not event or event == "[DONE]":
                    continue
                document = json.loads(event)
                if not isinstance(document, dict):
                    continue  # a classifier's labels
                if "error" in document:
                    status = int(document.get("code", 500))
                    return Sample(status, first, time.perf_counter() - due, 0, 0, event[:200])
                if first is None:
                    first = time.perf_counter() - due
                details = document.get("details") or {}
                usage = document.get("usage") or {}
                tokens_in = details.get("prompt_tokens", usage.get("prompt_tokens", tokens_in))
                tokens_out = details.get("generated_tokens", usage.get("completion_tokens", tokens_out))
    except (httpx.HTTPError, ValueError) as error:
        return Sample(0, first, time.perf_counter() - due, 0, 0, f"{type(error).__name__}: {error}"[:200])
    return Sample(200, first, time.perf_counter() - due, tokens_in, tokens_out)
