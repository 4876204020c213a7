"""Dynamic batching: requests that are there together are answered together, by one thread that owns the model."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_runtime.handler.service import Job, Service

log = logging.getLogger(__name__)
OnDone = Callable[[Job], None]
MAX_RETRY_AFTER_S = 60


class QueueFullError(Exception):
    """The queue takes no more; `retry_after_s` is when there should be room."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Waiting:
    job: Job
    since: float
    on_done: OnDone


class Batcher:
    """A queue and the thread that empties it, `batch_size` requests at a time.

    The first request of a batch waits up to `max_batch_delay_ms` (counted from its arrival) for others, but only where
    others came lately: a client alone is never kept waiting. `on_batch` sees each batch afterwards.
    """

    def __init__(self, service: Service, on_batch: Callable[[Sequence[Job]], None] | None = None) -> None:
        settings = service.settings
        self.service, self.on_batch = service, on_batch
        self.batch_size, self.delay_s = settings.batch_size, settings.max_batch_delay_ms / 1000
        self.capacity = settings.job_queue_size
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._running = 0
        self._crowded = False
        self._batch_s = 0.5
        self.thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self.thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        return self.thread.is_alive() and not self.service.broken

    def submit(self, job: Job, on_done: OnDone) -> None:
        """Queue `job`, which the worker looks at when it is woken with `wake` (or is working anyway).

        `on_done` is called from the worker's thread when the job has its reply. Raises `QueueFullError`.
        """
        with self._changed:
            if self._closing or len(self._waiting) >= self.capacity:
                raise QueueFullError(self.retry_after_s())
            self._waiting.append(_Waiting(job, time.monotonic(), on_done))

    def wake(self) -> None:
        """Let the worker look. Called once all requests that were at the door together are queued."""
        with self._changed:
            self._changed.notify()

    def retry_after_s(self) -> int:
        """Seconds until the queue of now should be worked off, from how long batches took lately."""
        batches = len(self._waiting) / self.batch_size + 1
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(batches * self._batch_s)))

    def close(self) -> None:
        """Take nothing more, answer what waits, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            started = time.monotonic()
            # Nobody waits for these any more.
            live = [w for w in batch if not (w.job.rows and all(r.gone for r in w.job.rows))]
            if live:
                self.service.run([w.job for w in live])
                self._batch_s = 0.8 * self._batch_s + 0.2 * (time.monotonic() - started)
                if self.on_batch is not None:
                    self.on_batch([w.job for w in live])
            for waiting in batch:
                waiting.on_done(waiting.job)

    def _next(self) -> list[_Waiting] | None:
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            self._crowded = self._crowded or len(self._waiting) > 1
            until = self._waiting[0].since + self.delay_s
            while self._crowded and not self._closing and len(self._waiting) < self.batch_size:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
            self._crowded = len(taken) > 1
            return taken
