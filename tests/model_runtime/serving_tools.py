"""A server in a thread, for the tests that ask one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from model_runtime.server.app import Server
from model_runtime.server.run import Draining, listen, serve


@contextlib.contextmanager
def running(server: Server) -> Iterator[str]:
    """The server in a thread; its address."""
    ready = threading.Event()
    bound = listen("127.0.0.1", 0)
    started: list[Draining] = []

    def ready_at(_: str, draining: Draining) -> None:
        started.append(draining)
        ready.set()

    thread = threading.Thread(target=lambda: serve(server, bound, on_ready=ready_at), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        started[0].handle_exit(signal.SIGTERM, None)
        thread.join(60)
        bound.close()
        assert not thread.is_alive()
