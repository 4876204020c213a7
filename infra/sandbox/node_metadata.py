"""The instance metadata service of a stand-in node: its tag `expiry` as EC2 has it, and a spot notice for trials."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

SPOT_FILE = "spot-notice.json"
"""In the node's folder; its text is answered as the spot notice, for example
{"action": "terminate", "time": "2026-11-24T08:22:00Z"}."""


def serve(ec2: Any, instance: str, folder: Path) -> tuple[ThreadingHTTPServer, str]:
    """Answer on a free port of 127.0.0.1 from a thread of its own. Returns the server and its base address."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer("token")

        def do_GET(self) -> None:
            path = self.path.removeprefix("/latest/")
            if path == "meta-data/tags/instance/expiry":
                self._answer(_expiry(ec2, instance))
            elif path == "meta-data/spot/instance-action" and (folder / SPOT_FILE).is_file():
                self._answer((folder / SPOT_FILE).read_text(encoding="utf-8"))
            else:
                self._answer("")

        def _answer(self, text: str) -> None:
            body = text.encode()
            self.send_response(200 if text else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="metadata", daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/latest"


def _expiry(ec2: Any, instance: str) -> str:
    filters = [{"Name": "resource-id", "Values": [instance]}, {"Name": "key", "Values": ["expiry"]}]
    try:
        found = ec2.describe_tags(Filters=filters)["Tags"]
    except (ClientError, BotoCoreError):
        return ""
    return str(found[0]["Value"]) if found else ""
