"""Starting, finding and ending the local AWS: one background process for a person, with a pid file in the cache."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from infra import lock
from infra.sandbox.node_process import spawn
from sizing.errors import UserError
from sizing.hardware.cache import catalog_dir

WHO = "/berth-sandbox"
"""Path under which the local AWS says which run of it this is."""
START_SECONDS = 60.0
END_SECONDS = 10.0
INSTALL = "pip install 'berth[sandbox]'"


@dataclass(frozen=True, slots=True)
class Server:
    """A local AWS that answers. `run` names this run of it; `since` is ISO 8601 in UTC."""

    pid: int
    port: int
    run: str
    since: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def sandbox_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the sandbox in Berth's cache; it need not exist."""
    return catalog_dir(environ).parent / "sandbox"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the sandbox for one command; `UserError` where another has it or the folder cannot be written."""
    with lock.locked(folder, lambda: UserError("another `berth sandbox` command is at work; wait for it to end")):
        yield


def find(folder: Path) -> Server | None:
    """The local AWS that runs, None where none does. A pid file whose process is gone, or is another one, counts not.

    It is known by its answer and not by its pid: pids are used again.
    """
    try:
        server = Server(**json.loads(_file(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return server if _answers(server) else None


def start(folder: Path) -> Server:
    """The local AWS, started where none runs; the caller holds `locked`.

    Raises `UserError` where moto is not installed, and where it does not start, with what it said last.
    """
    if server := find(folder):
        return server
    if find_spec("moto") is None or find_spec("flask") is None:
        raise UserError(f"the sandbox needs moto, which plays AWS: {INSTALL}")
    _file(folder).unlink(missing_ok=True)
    run, log = secrets.token_hex(8), folder / "moto.log"
    log.unlink(missing_ok=True)
    pid = spawn(["infra.sandbox.moto_server", str(_file(folder)), run], log)
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            if (server := find(folder)) is not None and server.run == run:
                return server
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise UserError(f"moto, which plays AWS, did not start: {_last_line(log)}; its log is {log}")
            time.sleep(0.05)
    except BaseException:
        _end(pid)
        raise
    _end(pid)
    raise UserError(f"moto, which plays AWS, did not answer within {START_SECONDS:.0f} s; its log is {log}")


def stop(folder: Path) -> bool:
    """End the local AWS and all that is in it; False where none ran. The caller holds `locked`.

    Only a process that answers as the sandbox is ended: a stale pid file never hits another process.
    """
    server = find(folder)
    if server is not None:
        _signal(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        while _answers(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        if _answers(server):
            _signal(server.pid, signal.SIGKILL)
        _reap(server.pid)
    _file(folder).unlink(missing_ok=True)
    return server is not None


def _file(folder: Path) -> Path:
    return folder / "server.json"


def _answers(server: Server) -> bool:
    """Whether this very run answers at its port. No proxy is asked for an address of this machine."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", WHO)
        return connection.getresponse().read() == server.run.encode()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _end(pid: int) -> None:
    _signal(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    """Collect the process where it was started by this one; another's child is collected by its own parent."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it said nothing"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
