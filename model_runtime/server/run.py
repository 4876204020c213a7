"""Running the server: load, listen, drain at SIGTERM, end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from model_runtime.errors import ModelError
from model_runtime.server.app import Server


class Draining(uvicorn.Server):
    """uvicorn that stops in order: refuse new work for `drain_s` (a load balancer sees the health check fail), close
    the port, answer what was taken. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, server: Server, drain_s: float) -> None:
        super().__init__(config)
        self.berth, self.drain_s = server, drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (uvicorn's signature)
        if self.berth.draining or self._loop is None:
            self.force_exit = self.should_exit = True
            return
        self.berth.draining = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self.drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port that is taken is told before a model is loaded. Port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it an answer waits 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ModelError(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from error
    return bound


def serve(
    server: Server,
    bound: socket.socket,
    *,
    drain_s: float = 0.0,
    grace_s: float = 120.0,
    on_ready: Callable[[str, Draining], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; requests still running after `grace_s` are cut. Returns when ended.

    `on_ready` gets the address and the running server, whose `handle_exit` ends it as a signal would.
    """
    config = uvicorn.Config(
        server.app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(grace_s),
        timeout_keep_alive=75,
        h11_max_incomplete_event_size=64 * 1024,
        server_header=False,
    )
    running = Draining(config, server, drain_s)
    host, port = bound.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def main() -> None:
        task = asyncio.ensure_future(running.serve(sockets=[bound]))
        while not running.started and not task.done():
            await asyncio.sleep(0.01)
        if on_ready is not None and not task.done():
            on_ready(url, running)
        await task

    asyncio.run(main())
    server.batcher.close()
