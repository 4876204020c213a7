"""The whole of a verification: start-up, latency, throughput against concurrency, arrivals, largest batch, memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_runtime.errors import ModelError
from model_runtime.progress import Progress
from model_runtime.verify.estimate import compare, estimate_for, served_estimate
from model_runtime.verify.largest import Prober, largest_batch
from model_runtime.verify.measurement import FORMAT, command_line, machine
from model_runtime.verify.plan import Plan, Stack
from model_runtime.verify.start import PARTS, Caches, caches, start_up_of
from model_runtime.verify.traffic import traffic
from model_runtime.verify.verdicts import verdicts
from model_runtime.verify.workload import VerifyWorkload, made_prompts, read_workload


def verify(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Measure, and return the Measurement document. Raises `ModelError` when there is nothing to measure."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "target": plan.target,
        "machine": None if plan.is_url else machine(),
    }
    if plan.is_url:
        document |= {"start_up": None, "settings": None, "model": None, "largest_batch": None, "memory": None}
        document |= traffic(plan, plan.target, _workload(plan, None), progress)
        document["stack"] = (
            None if plan.stack is None else asdict(plan.stack) | {"estimate": _beside(plan.stack, document)}
        )
    else:
        document |= {"stack": None} | _folder(plan, Path(plan.target), progress)
    document["verdicts"] = verdicts(document)
    return document


def _folder(plan: Plan, folder: Path, progress: Progress) -> dict[str, Any]:
    from model_runtime.serving import settings_of

    settings = settings_of(folder, plan.overrides)
    source = settings.location(folder, os.environ)
    prober = Prober(
        folder,
        plan.overrides,
        (plan.input_tokens, plan.output_tokens),
        memory_limit_bytes=plan.memory_limit_bytes,
        progress=progress,
    )
    with caches(source, fetch_again=plan.fetch_again) as kept:
        try:
            loaded, starts, work = _started(plan, prober, kept, progress)
            shape = prober.shape
            largest = _largest(plan, prober, work, progress)
        finally:
            prober.close()
        memory = _memory(loaded, largest, *shape)
        labels = loaded["architecture"] == "encoder-only"
        with served(folder, plan, kept.environment, progress) as url:
            under_load = traffic(replace(plan, api="labels") if labels else plan, url, work, progress)
    return {
        "model": {
            "name": settings.model_name,
            "source": source,
            **{k: loaded[k] for k in ("architecture", "dtype", "device", "context_window", "weights_bytes")},
        },
        "settings": asdict(settings),
        "start_up": start_up_of(starts),
        "largest_batch": {**largest, "input_tokens": shape[0], "output_tokens": shape[1]},
        "memory": memory,
        **under_load,
    }


def _started(
    plan: Plan, prober: Prober, kept: Caches, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]], VerifyWorkload]:
    """Start `plan.starts` times. What the last said of loading, each start, and what is asked from here on; the
    prober's shape is that of the workload."""
    starts: list[dict[str, Any]] = []
    work: VerifyWorkload | None = None
    while len(starts) < plan.starts:
        progress.begin(f"start {len(starts) + 1} of {plan.starts}: loading in a process of its own")
        kept.empty()
        prober.environment = kept.environment
        loaded = prober.start()
        if work is None:
            tokenizer = _tokenizer(loaded["folder"])
            work = _workload(plan, tokenizer)
            if plan.workload is not None:
                longest = max(len(tokenizer(p, verbose=False)["input_ids"]) for p in work.prompts)
                prober.shape = (longest, work.output_tokens)
            _check_window(loaded, *prober.shape)
        first = prober(1)
        if first.get("out_of_memory"):
            starts.append({**loaded, "first_token_s": None})
            break  # no start gets to a token
        starts.append({**loaded, "first_token_s": first["first_token_s"]})
        whole = sum(starts[-1][name] or 0.0 for name in PARTS)
        progress.note(f"  start {len(starts)}: {whole:.3g} s to the first token")
    if work is None:
        raise ValueError("at least one start is measured")
    return starts[-1], starts, work


def _largest(plan: Plan, prober: Prober, work: VerifyWorkload, progress: Progress) -> dict[str, Any]:
    tokens_in, tokens_out = prober.shape
    progress.begin(f"batches of {tokens_in} tokens in, {tokens_out} out: the largest by doubling and bisecting")

    def probe(batch: int) -> dict[str, Any]:
        result = prober(batch)
        said = "does not fit" if result.get("out_of_memory") else f"{result['seconds']:.3g} s"
        progress.note(f"  batch {batch}: {said}")
        return result

    before = prober.starts
    largest = largest_batch(probe, limit=plan.batch_limit, latency_s=plan.latency_s or work.latency_s)
    return {**largest, "process_starts": 1 + prober.starts - before}


def _memory(loaded: dict[str, Any], largest: dict[str, Any], input_tokens: int, output_tokens: int) -> Any:
    """Measured beside estimated at the largest batch that fits; None where not even one does."""
    fitting = [t for t in largest["tried"] if not t.get("out_of_memory") and t["batch"] == largest["batch"]]
    if not fitting:
        return None
    estimate = estimate_for(
        loaded["folder"], loaded["dtype"],
        batch=fitting[-1]["batch"], input_tokens=input_tokens, output_tokens=output_tokens,
    )  # fmt: skip
    return compare(loaded, fitting[-1], estimate)


def _beside(stack: Stack, document: dict[str, Any]) -> dict[str, Any] | None:
    """sizing's estimate for the stack, for requests as long as those that were sent."""
    alone = next((run for run in document["sweep"][0]["runs"] if run["input_tokens"]), None)
    if alone is None:
        return None
    tokens_in, tokens_out = (round(alone[f"{way}_tokens"]["mean"]) for way in ("input", "output"))
    return served_estimate(stack.model, stack.dtype, stack.instance_type, stack.batch, max(1, tokens_in), tokens_out)


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _check_window(loaded: dict[str, Any], input_tokens: int, output_tokens: int) -> None:
    window = loaded["context_window"]
    asked = input_tokens + (output_tokens if loaded["architecture"] == "decoder-only" else 0)
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
def served(folder: Path, plan: Plan, environment: Mapping[str, str], progress: Progress) -> Iterator[str]:
    """`folder` behind a server in a process of its own; its address."""
    progress.begin("starting the server")
    process = subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-m", "model_runtime.serving", str(folder), json.dumps(dict(plan.overrides))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
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
