"""The sandbox's provider as a server, on the port that the engine reads from its stdout."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2_grpc

from infra.sandbox.engine import VERSION, EngineProvider
from sizing.errors import UserError

_MAX_MESSAGE = 400 * 1024 * 1024
"""Bytes of a message, as Pulumi's own SDK and engine set it; user data and policies pass gRPC's 4 MiB early."""

Call = Callable[[Any, Any], Awaitable[Any]]


def _said(call: Call) -> Call:
    """A person's mistake, or AWS's refusal, as one line. The SDK's servicer would show a traceback with it."""

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await call(request, context)
        except Exception as error:
            # The servicer raises a plain Exception with a traceback in its text, while it handles the first.
            if not isinstance(error.__context__, UserError):
                raise
            cause = error.__context__
        return await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(cause))

    return answer


class _Servicer(ProviderServicer):
    """The SDK's servicer, whose errors are for people."""

    def __init__(self, args: list[str], engine_address: str) -> None:
        super().__init__(args, VERSION, EngineProvider(), engine_address)
        for name in ("Configure", "Invoke", "Check", "Diff", "Create", "Read", "Update", "Delete"):
            setattr(self, name, _said(getattr(self, name)))


def serve(args: list[str]) -> None:
    """Serve until the engine ends the process. `args`: the engine's address first, as it calls every plugin."""

    async def run() -> None:
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", _MAX_MESSAGE)]
        )
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(_Servicer(args, args[0] if args else ""), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await server.wait_for_termination()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
