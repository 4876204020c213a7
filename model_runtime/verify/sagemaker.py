"""Requests to a SageMaker endpoint in place of a server's address: what is posted is invoked, answers stream back.

SageMaker's runtime has one route, `InvokeEndpointWithResponseStream`; the credentials are boto3's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

_RETRY = ("ThrottlingException", "ServiceUnavailable", "ModelNotReadyException")


def runtime_client(region: str, connections: int, timeout_s: float, endpoint_url: str | None = None) -> Any:
    """boto3's client of the runtime, `connections` at once at most. Nothing is retried: a retry hides a failure."""
    import boto3.session
    from botocore.config import Config

    config = Config(
        max_pool_connections=connections,
        connect_timeout=10,
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
    )
    session = boto3.session.Session(region_name=region)
    return session.client("sagemaker-runtime", config=config, endpoint_url=endpoint_url)


class _Pieces(httpx.AsyncByteStream):
    """The answer's pieces, each waited for in a thread: boto3 knows no other way."""

    def __init__(self, pieces: Iterator[bytes], pool: ThreadPoolExecutor) -> None:
        self.pieces, self.pool = pieces, pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while (piece := await loop.run_in_executor(self.pool, next, self.pieces, None)) is not None:
            yield piece


class EndpointTransport(httpx.AsyncBaseTransport):
    """`POST /invocations` invokes `endpoint` through `client` (boto3's `sagemaker-runtime`); other routes are 404.

    What the model answers with an error has the model's status; throttling and a missing instance are 503; whatever
    else AWS refuses (no such endpoint, no permission) is a connection that could not be made.
    """

    def __init__(self, client: Any, endpoint: str, connections: int = 256) -> None:
        self.client, self.endpoint = client, endpoint
        self.pool = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="invoke")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/invocations":
            return httpx.Response(404, request=request)
        body = await request.aread()
        loop = asyncio.get_running_loop()
        status, answer = await loop.run_in_executor(self.pool, self._invoke, body)
        if isinstance(answer, bytes):
            return httpx.Response(status, content=answer, request=request)
        return httpx.Response(status, stream=_Pieces(answer, self.pool), request=request)

    async def aclose(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _invoke(self, body: bytes) -> tuple[int, bytes | Iterator[bytes]]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self.client.invoke_endpoint_with_response_stream(
                EndpointName=self.endpoint, Body=body, ContentType="application/json"
            )
        except ClientError as error:
            response: dict[str, Any] = dict(error.response)
            told = response.get("Error", {})
            code, message = str(told.get("Code", "")), str(told.get("Message", ""))
            if code == "ModelError":
                return int(response.get("OriginalStatusCode", 500)), message.encode()
            if code in _RETRY:
                return 503, f"{code}: {message}".encode()
            raise httpx.ConnectError(f"{code}: {' '.join(message.split())[:300]}") from error
        except BotoCoreError as error:
            raise httpx.ConnectError(" ".join(str(error).split())[:300]) from error
        return 200, self._pieces(answer["Body"])

    def _pieces(self, events: Any) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError, EventStreamError

        try:
            for event in events:
                part = event.get("PayloadPart")
                if part is not None:
                    yield part["Bytes"]
        except (EventStreamError, BotoCoreError) as error:
            raise httpx.ReadError(" ".join(str(error).split())[:300]) from error
