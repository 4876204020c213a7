"""The process that plays AWS: moto's server on a free port of 127.0.0.1, until it is told to end.

Started by `infra.sandbox.server` as `python -m infra.sandbox.moto_server FILE RUN`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from infra.resolve import now
from infra.sandbox.server import WHO
from infra.stack_files import write_text


def main(arguments: list[str] | None = None) -> None:
    """Serve; once the port is open, write `{pid, port, run, since}` to FILE."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"  # roles attach AWS's own policies
    file, run = (arguments if arguments is not None else sys.argv[1:])[:2]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    aws = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == WHO:
            start("200 OK", [("Content-Type", "text/plain")])
            return [run.encode()]
        answer: Iterable[bytes] = aws(environ, start)
        return answer

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)

    def end(_signal: int, _frame: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the command that started it
    if hasattr(os, "setsid") and os.getpid() != os.getsid(0):
        os.setsid()
    os.environ.setdefault("MOTO_PORT", str(server.server_port))
    told = {"pid": os.getpid(), "port": server.server_port, "run": run, "since": now().isoformat()}
    write_text(Path(file), json.dumps(told) + "\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
