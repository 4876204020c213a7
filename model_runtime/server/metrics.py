"""What Prometheus scrapes: requests, latency, queue, tokens, batches, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from model_runtime.handler.service import Job

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry of its own; `depth` says how many requests wait."""

    def __init__(self, depth: Callable[[], int], splits: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "berth_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.latency = Histogram(
            "berth_request_seconds", "From a request's arrival to its answer.", buckets=_SECONDS, registry=registry
        )
        self.queue = Histogram(
            "berth_queue_seconds", "From a request's arrival to its batch.", buckets=_SECONDS, registry=registry
        )
        self.first = Histogram(
            "berth_first_token_seconds", "From a request's arrival to the first token of its batch.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch = Histogram("berth_batch_size", "Requests of a batch.", buckets=_BATCH, registry=registry)
        self.tokens_in = Counter("berth_input_tokens", "Tokens of prompts.", registry=registry)
        self.tokens_out = Counter("berth_output_tokens", "Tokens of answers.", registry=registry)
        self.output = Histogram("berth_answer_tokens", "Tokens of one answer.", buckets=_TOKENS, registry=registry)
        self.truncations = Counter("berth_truncations", "Prompts cut to the context window.", registry=registry)
        waiting = Gauge("berth_queue_depth", "Requests that wait.", registry=registry)
        waiting.set_function(depth)
        split = Gauge("berth_memory_splits", "Times that a batch was split for want of memory.", registry=registry)
        split.set_function(splits)
        if torch.cuda.is_available():
            gpu = Gauge("berth_gpu_reserved_bytes", "Memory that the allocator holds on the GPU.", registry=registry)
            gpu.set_function(torch.cuda.memory_reserved)

    def batch_done(self, jobs: Sequence[Job]) -> None:
        """Count a batch that was answered."""
        self.batch.observe(len(jobs))
        for job in jobs:
            self.tokens_in.inc(sum(len(r.ids) for r in job.rows))
            self.truncations.inc(sum(r.truncated_tokens > 0 for r in job.rows))
            for done in job.done:
                self.tokens_out.inc(done.output_tokens)
                self.output.observe(done.output_tokens)
            if job.received is not None:
                self.queue.observe(job.began - job.received)
                self.latency.observe(job.ended - job.received)
                if job.done:
                    self.first.observe(job.began - job.received + job.done[0].first_token_s)

    def render(self) -> bytes:
        return generate_latest(self.registry)
