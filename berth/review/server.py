"""The review page's own server: on 127.0.0.1 only, below a secret path, and nothing but the page and its judgements."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from berth.review.judgements import Journal, Judgement, parse, read_judgements
from sizing.errors import UserError

HOST = "127.0.0.1"
LARGEST_BODY = 4 << 20


class ReviewServer(ThreadingHTTPServer):
    """Serves `page` at `url` and appends what it is sent to `journal` before it confirms."""

    daemon_threads = True

    def __init__(self, page: str, rows: frozenset[str], journal: Journal, port: int = 0) -> None:
        """`rows` are the keys of the predictions; a `port` of 0 is any free one. Raises `UserError` for one in use."""
        self.page = page.encode("utf-8", "replace")
        self.rows = rows
        self.journal = journal
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "no such port"
            raise UserError(f"port {port} cannot be had: {why}; choose another with --port, or 0 for any") from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version = "berth"
    sys_version = ""
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the base class's)
        """Nothing: the path holds the secret."""

    def do_GET(self) -> None:
        where = self._place()
        if where == "":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif where == "judgements":
            standing = read_judgements(self.server.journal.path).latest().values()
            body = json.dumps([asdict(judgement) for judgement in standing]).encode()
            self._answer(HTTPStatus.OK, body, "application/json")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here; use the address that berth review printed")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self._place() != "judgements":
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here; use the address that berth review printed")
        elif self.headers.get("Origin") not in (None, f"http://{self.headers.get('Host')}"):
            self._refuse(HTTPStatus.FORBIDDEN, "judgements come from the review page only")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "judgements are application/json")
        elif not length.isdecimal() or int(length) > LARGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"give Content-Length, at most {LARGEST_BODY} bytes")
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, body: bytes) -> None:
        try:
            given = json.loads(body)
            if not isinstance(given, list):
                raise ValueError("judgements are a list")
            judgements = [self._known(parse(record)) for record in given]
        except (ValueError, RecursionError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        try:
            self.server.journal.append(judgements)
        except OSError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, f"{self.server.journal.path}: {error.strerror}")
            return
        self._answer(HTTPStatus.OK, json.dumps({"saved": len(judgements)}).encode(), "application/json")

    def _known(self, judgement: Judgement) -> Judgement:
        if judgement.row not in self.server.rows:
            raise ValueError("the row is none of these predictions")
        return judgement

    def _place(self) -> str | None:
        """What is asked for below the secret path; None for anything else, and for another name of this machine, which
        a page elsewhere could have pointed here (DNS rebinding)."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            return None
        token, slash, where = self.path.removeprefix("/").partition("?")[0].partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            return None
        return where

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._answer(status, why.encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
