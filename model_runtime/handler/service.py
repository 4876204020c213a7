"""A batch of request bodies to as many answers, each item answered or refused by itself: nothing fails a batch."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from model_runtime.generate import Generator, NoMemory
from model_runtime.handler.answers import Heading, Reply, Streamed, classified, error_reply, generated
from model_runtime.handler.emf import Write, emf_line, writer
from model_runtime.handler.request_log import RequestLog, open_log
from model_runtime.handler.requests import Ask, Rules, read_request
from model_runtime.handler.settings import ServingSettings
from model_runtime.load import Loaded, load
from model_runtime.parameters import RequestError, Sampling
from model_runtime.progress import Progress
from model_runtime.rows import Completion, Row

log = logging.getLogger(__name__)
OnPiece = Callable[[int, str], bool]
"""Takes the number of an answer and its next text; False says that nobody reads any more."""
# What a model's code raises on an input it cannot take. The item is answered with an error and the traceback logged.
_FAULTS = (RuntimeError, ValueError, IndexError, KeyError, TypeError, OverflowError, AssertionError)


@dataclass
class Job:
    """A request on its way to its reply. Times are of `time.monotonic()`."""

    ask: Ask | None
    heading: Heading
    received: float | None
    rows: list[Row] = field(default_factory=list)
    reply: Reply | None = None
    done: list[Completion] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    @property
    def streamed(self) -> Streamed | None:
        return Streamed(self.ask, self.heading) if self.ask is not None and self.ask.stream else None


class Service:
    """Answers batches with one generator. `broken` is set when the device no longer works and a restart is due."""

    def __init__(
        self,
        generator: Generator,
        settings: ServingSettings,
        write: Write | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.generator, self.settings, self.request_log = generator, settings, request_log
        self.rules = Rules(
            settings.max_output_tokens, settings.max_input_chars, settings.max_prompts, generator.generates
        )
        self.write = write or writer(settings.metrics)
        self.broken = False

    def prepare(
        self,
        body: bytes,
        content_type: str = "application/json",
        *,
        request_id: str | None = None,
        received: float | None = None,
        on_piece: OnPiece | None = None,
    ) -> Job:
        """Read and tokenize one request. A request that cannot be answered has its `reply` already."""
        heading = Heading(request_id or uuid.uuid4().hex, int(time.time()), self.settings.model_name)
        job = Job(None, heading, received)
        try:
            job.ask = read_request(body, content_type, self.rules)
            job.rows = self._rows(job.ask, on_piece if job.ask.stream else None)
        except RequestError as error:
            job.reply = error_reply(error)
        return job

    def _rows(self, ask: Ask, on_piece: OnPiece | None) -> list[Row]:
        chat = ask.form == "chat"
        texts = (self.generator.chat_prompt(ask.messages),) if chat else ask.texts
        name = {"native": "inputs", "chat": "messages", "completions": "prompt"}[ask.form]
        rows: list[Row] = []
        for text in texts:
            for answer in range(ask.answers):
                index = len(rows)
                rows.append(
                    self.generator.prepare(
                        text,
                        _reseeded(ask.sampling, answer),
                        truncate=ask.truncate,
                        special_tokens=not chat,  # the template has them already
                        emit=None if on_piece is None else partial(on_piece, index),
                        name=name,
                    )
                )
        return rows

    def run(self, jobs: Sequence[Job]) -> None:
        """Answer `jobs` together: afterwards each has its `reply`."""
        began = time.monotonic()
        splits = self.generator.memory_splits
        open_jobs = [job for job in jobs if job.reply is None]
        results = self._answer_rows([row for job in open_jobs for row in job.rows])
        at = 0
        for job in open_jobs:
            own = results[at : at + len(job.rows)]
            at += len(job.rows)
            job.reply = self._reply(job, own)
        ended = time.monotonic()
        for job in jobs:
            job.began, job.ended = began, ended
        self._emit(jobs, self.generator.memory_splits - splits)
        if self.request_log is not None:
            self.request_log.note(jobs)

    def answer(self, bodies: Sequence[bytes], content_type: str = "application/json") -> list[Reply]:
        """Replies to `bodies`, in their order."""
        jobs = [self.prepare(body, content_type) for body in bodies]
        self.run(jobs)
        return [job.reply for job in jobs if job.reply is not None]

    def stream(self, job: Job, pieces: SimpleQueue[tuple[int, str] | None]) -> Iterator[bytes]:
        """Answer one streaming job, whose `on_piece` puts into `pieces`, in a thread; yield its pieces as they come."""
        streamed = job.streamed
        if streamed is None:
            raise ValueError("the job does not stream")

        def work() -> None:
            try:
                self.run([job])
            finally:
                pieces.put(None)

        thread = Thread(target=work, name="stream", daemon=True)
        thread.start()
        while (piece := pieces.get()) is not None:
            yield from streamed.piece(*piece)
        thread.join()
        yield from streamed.end(job.reply or error_reply(_fault()), job.done)

    def _answer_rows(self, rows: list[Row]) -> list[Any]:
        """A completion, scores, `NoMemory` or an error for each row, `batch_size` rows at a time."""
        results: list[Any] = []
        size = self.settings.batch_size
        for at in range(0, len(rows), size):
            results += self._together(rows[at : at + size])
        return results

    def _together(self, rows: list[Row]) -> list[Any]:
        work = self.generator.complete if self.generator.generates else self.generator.classify
        try:
            if self.broken:
                raise RequestError("the device failed and is being restarted", status=503, code="device_failed")
            return list(work(rows))
        except RequestError as error:
            return [error] * len(rows)
        except _FAULTS as error:
            log.exception("a batch of %d failed", len(rows))
            if "CUDA error" in str(error):
                self.broken = True  # the context is lost: every later call would fail as well
            if len(rows) == 1 or self.broken:
                return [_fault()] * len(rows)
        return [result for row in rows for result in self._together([row])]

    def _reply(self, job: Job, results: list[Any]) -> Reply:
        ask = job.ask
        if ask is None:
            raise ValueError("a job without an ask has a reply")
        for result in results:
            if isinstance(result, RequestError):
                return error_reply(result)
            if isinstance(result, NoMemory):
                return error_reply(
                    RequestError(
                        f"memory ran out for this input of {result.input_tokens:,} tokens; send less, or ask for less",
                        status=503,
                        code="out_of_memory",
                    )
                )
        if not self.generator.generates:
            return classified(ask, results)
        job.done = results
        return generated(ask, results, job.heading)

    def _emit(self, jobs: Sequence[Job], splits: int) -> None:
        done = [d for job in jobs for d in job.done]
        values: dict[str, float | list[float]] = {
            "Latency": [round((j.ended - (j.received or j.began)) * 1000, 3) for j in jobs],
            "QueueTime": [round((j.began - j.received) * 1000, 3) for j in jobs if j.received is not None],
            "TimeToFirstToken": [round(d.first_token_s * 1000, 3) for d in done],
            "InputTokens": sum(len(row.ids) for job in jobs for row in job.rows),
            "OutputTokens": sum(d.output_tokens for d in done),
            "BatchSize": len(jobs),
            "Truncations": sum(row.truncated_tokens > 0 for job in jobs for row in job.rows),
            "Errors": sum(job.reply is None or not job.reply.ok for job in jobs),
            "ServerErrors": sum(job.reply is None or job.reply.status >= 500 for job in jobs),
            "MemorySplits": splits,
        }
        if torch.cuda.is_available():
            values["GpuMemory"] = torch.cuda.max_memory_reserved()
        settings = self.settings
        stack = os.environ.get("BERTH_STACK", "")
        self.write(emf_line(values, namespace=settings.metrics_namespace, model=settings.model_name, stack=stack))


def open_service(
    folder: Path,
    settings: ServingSettings,
    *,
    write: Write | None = None,
    progress: Progress | None = None,
) -> tuple[Service, Loaded]:
    """Load the model of a model folder and make its service. Raises `ModelError`."""
    request_log = open_log(settings)
    loaded = load(settings.location(folder, os.environ), settings.load_options, progress=progress)
    return Service(Generator(loaded, settings.limits), settings, write, request_log), loaded


def _reseeded(sampling: Sampling, answer: int) -> Sampling:
    """Several answers to one prompt differ: each has a seed of its own, counted up from the request's."""
    if answer == 0 or sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + answer)


def _fault() -> RequestError:
    return RequestError("the model failed on this input; the log has the cause", status=500, code="internal_error")
