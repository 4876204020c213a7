"""The HTTP side: LMI's routes and OpenAI's, limits of size and time, back-pressure, a key, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from model_runtime.feedback.intake import take
from model_runtime.feedback.journal import Journal
from model_runtime.feedback.record import MAX_BODY_BYTES
from model_runtime.handler.answers import JSON, Reply, encode, error_reply
from model_runtime.handler.service import Job, OnPiece, Service
from model_runtime.parameters import RequestError
from model_runtime.server.batcher import Batcher, QueueFullError
from model_runtime.server.metrics import Metrics
from model_runtime.server.openapi import document

_SMALL = 4096
"""Bytes of a body up to which it is read on the event loop: a thread would cost more than the work."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
OPEN_ROUTES = ("/ping", "/health")
"""What answers without a key: a load balancer has none."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """`max_body_bytes` of a request; `read_s`: seconds in which its body must have come; `answer_s`: its answer."""

    max_body_bytes: int = 12_000_000
    read_s: float = 30.0
    answer_s: float = 120.0


class Server:
    """The routes over one service. `draining` refuses new work while what was taken is answered."""

    def __init__(
        self,
        service: Service,
        *,
        limits: ServerLimits | None = None,
        api_key: str = "",
        journal: Journal | None = None,
    ) -> None:
        self.service, self.api_key, self.journal = service, api_key, journal
        self.limits = limits or ServerLimits(answer_s=service.settings.predict_timeout_s)
        self.batcher = Batcher(service, self._batch_done)
        self.metrics = Metrics(lambda: self.batcher.depth, lambda: service.generator.memory_splits)
        self.draining = False
        self.inside = 0
        """Requests whose body is being read or that wait or are answered."""
        self.most_inside = 2 * service.settings.job_queue_size + service.settings.batch_size
        self.started = int(time.time())
        self.app = Starlette(
            routes=self._routes(),
            exception_handlers={HTTPException: self._http_error, 404: self._http_error, 405: self._http_error},
        )

    def _batch_done(self, jobs: Any) -> None:
        self.metrics.batch_done(jobs)

    def _routes(self) -> list[Route]:
        name = self.service.settings.model_name
        self.ask_paths = (
            "/invocations",
            f"/predictions/{name}",
            f"/models/{name}/invoke",
            "/v1/chat/completions",
            "/v1/completions",
        )
        posts = [Route(path, self._guard(self._ask, path), methods=["POST"]) for path in self.ask_paths]
        if self.journal is not None:
            posts += [
                Route(path, self._guard(self._feedback, path), methods=["POST"])
                for path in ("/feedback", "/predictions/feedback")
            ]
        gets: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
            ("/ping", self._ping),
            ("/health", self._ping),
            ("/metrics", self._metrics),
            ("/openapi.json", self._openapi),
            ("/v1/models", self._models),
        ]
        return posts + [Route(path, self._guard(call, path), methods=["GET"]) for path, call in gets]

    def _guard(
        self, call: Callable[[Request], Awaitable[Response]], path: str
    ) -> Callable[[Request], Awaitable[Response]]:
        """Check the key, count the answer, give it the request's id."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get("x-request-id", "")
            request.state.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
            try:
                if self.api_key and path not in OPEN_ROUTES:
                    self._check_key(request)
                response = await call(request)
            except RequestError as error:
                response = _respond(error_reply(error))
            except ClientDisconnect:
                response = Response(status_code=400)
            response.headers["x-request-id"] = request.state.id
            self.metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return guarded

    def _check_key(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not secrets.compare_digest(given.encode("utf-8", "surrogateescape"), self.api_key.encode()):
            raise RequestError(
                "the API key is missing or wrong; send Authorization: Bearer KEY", status=401, code="invalid_api_key"
            )

    async def _ask(self, request: Request) -> Response:
        received = time.monotonic()
        if self.draining:
            raise _busy("the server is going down; ask another", 5, "draining")
        if self.inside >= self.most_inside:
            raise _busy("too many requests at once", self.batcher.retry_after_s(), "overloaded")
        self.inside += 1
        try:
            body = await self._body(request, self.limits.max_body_bytes)
            return await self._answer(request, body, received)
        finally:
            self.inside -= 1

    async def _body(self, request: Request, limit: int) -> bytes:
        """The body, refused as soon as it is too large or too slow."""
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.read_s):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
        except TimeoutError:
            raise RequestError(
                f"the body did not come within {self.limits.read_s:g} s", status=408, code="timeout"
            ) from None
        return b"".join(parts)

    async def _answer(self, request: Request, body: bytes, received: float) -> Response:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

        def on_piece(index: int, text: str) -> bool:
            loop.call_soon_threadsafe(pieces.put_nowait, (index, text))
            return True

        job = await self._prepare(request, body, received, on_piece)
        if job.reply is not None:
            return _respond(job.reply)
        answered: asyncio.Future[None] = loop.create_future()

        def done(_: Job) -> None:
            def tell() -> None:
                if not answered.done():
                    answered.set_result(None)
                pieces.put_nowait(None)

            loop.call_soon_threadsafe(tell)

        try:
            self.batcher.submit(job, done)
            # After what else is ready in this turn of the loop: requests that came together go together.
            loop.call_soon(self.batcher.wake)
        except QueueFullError as full:
            raise _busy("the queue is full", full.retry_after_s, "overloaded") from None
        if job.streamed is not None:
            return StreamingResponse(self._stream(job, pieces), media_type=job.streamed.media_type)
        await self._wait(request, job, answered, received)
        if job.reply is None:
            raise RequestError("the answer was lost", status=500, code="internal_error")
        response = _respond(job.reply)
        response.headers["server-timing"] = _timing(job)
        return response

    async def _prepare(self, request: Request, body: bytes, received: float, on_piece: OnPiece) -> Job:
        def prepare() -> Job:
            content_type = request.headers.get("content-type", "application/json")
            return self.service.prepare(
                body, content_type, request_id=request.state.id, received=received, on_piece=on_piece
            )

        return prepare() if len(body) <= _SMALL else await run_in_threadpool(prepare)

    async def _wait(self, request: Request, job: Job, answered: asyncio.Future[None], received: float) -> None:
        """Until the answer is there, the time is over or the client has gone."""
        left = self.limits.answer_s - (time.monotonic() - received)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({answered, gone}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if answered.done():
            return
        for row in job.rows:
            row.gone = True
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect
        raise _busy(
            f"no answer within {self.limits.answer_s:g} s; ask for less", self.batcher.retry_after_s(), "timeout"
        )

    async def _stream(self, job: Job, pieces: asyncio.Queue[tuple[int, str] | None]) -> AsyncIterator[bytes]:
        streamed = job.streamed
        if streamed is None:
            return
        self.inside += 1
        try:
            while (piece := await pieces.get()) is not None:
                for part in streamed.piece(*piece):
                    yield part
            if job.reply is not None:
                for part in streamed.end(job.reply, job.done):
                    yield part
        finally:
            self.inside -= 1
            for row in job.rows:
                row.gone = True

    async def _feedback(self, request: Request) -> Response:
        if self.journal is None:
            raise HTTPException(404)
        body = await self._body(request, MAX_BODY_BYTES)
        ((status, told),) = await run_in_threadpool(take, [body], self.journal)
        return _respond(Reply(status, told))

    async def _ping(self, _: Request) -> Response:
        well = self.batcher.alive and not self.draining
        status = "healthy" if well else "draining" if self.draining else "broken"
        return _respond(Reply(200 if well else 503, {"status": status}, None if well else 5))

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, _: Request) -> Response:
        return _respond(
            Reply(200, document(self.service.settings, self.service.rules, feedback=self.journal is not None))
        )

    async def _models(self, _: Request) -> Response:
        model = {
            "id": self.service.settings.model_name,
            "object": "model",
            "created": self.started,
            "owned_by": "berth",
            "max_model_len": self.service.generator.loaded.total_window or self.service.generator.input_limit,
        }
        return _respond(Reply(200, {"object": "list", "data": [model]}))

    async def _http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        known = ", ".join(self.ask_paths)
        says = {
            404: f"no route {ascii(request.url.path)[:80]}; ask at {known}",
            405: f"{request.method[:20]} is not allowed here",
        }
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
        reply = error_reply(RequestError(says.get(status, "the request is refused"), status=status, code=code))
        response = _respond(reply)
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        self.metrics.requests.labels("other", str(status)).inc()
        return response


def _respond(reply: Reply) -> Response:
    headers = {} if reply.retry_after_s is None else {"retry-after": str(reply.retry_after_s)}
    return Response(encode(reply.body), status_code=reply.status, media_type=JSON, headers=headers)


def _busy(message: str, retry_after_s: int, code: str) -> RequestError:
    return RequestError(message, status=503, code=code, retry_after_s=retry_after_s)


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit:,} bytes", status=413, code="too_large")


def _timing(job: Job) -> str:
    """The `Server-Timing` header: milliseconds in the queue, to the batch's first token, and in the batch."""
    parts = [("batch", job.ended - job.began)]
    if job.received is not None:
        parts.insert(0, ("queue", job.began - job.received))
    if job.done:
        parts.append(("first-token", job.done[0].first_token_s))
    return ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in parts)


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    with contextlib.suppress(ClientDisconnect):
        while (await request.receive())["type"] != "http.disconnect":
            pass
