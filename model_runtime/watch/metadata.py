"""What the instance's metadata service says of an end: the spot notice, the rebalance recommendation, the expiry.

Paths and forms: "Spot Instance interruption notices", "EC2 instance rebalance recommendations" and "Work with instance
tags in instance metadata", Amazon EC2 user guide.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Protocol

BASE = "http://169.254.169.254/latest"
_TIMEOUT_S = 2.0
_TOKEN_S = 60
_ABSENT = (404, 410)


class MetadataError(Exception):
    """The metadata service gave no answer, or none that can be read."""


class Metadata(Protocol):
    """Each raises `MetadataError`."""

    def spot_notice(self) -> str:
        """When EC2 takes the machine back (an ISO 8601 moment), empty where it does not."""
        ...

    def rebalance(self) -> str:
        """When EC2 found the machine at risk, empty where it does not."""
        ...

    def expiry(self) -> str:
        """The machine's tag `expiry`, empty where it has none."""
        ...


class Imds:
    """Version 2 of the service: every question carries a token."""

    def __init__(self, base: str = BASE, timeout_s: float = _TIMEOUT_S) -> None:
        self._base, self._timeout_s = base.rstrip("/"), timeout_s
        # Not through the proxy that the environment may name: the service is of this machine.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def spot_notice(self) -> str:
        return self._moment("meta-data/spot/instance-action", "time")

    def rebalance(self) -> str:
        return self._moment("meta-data/events/recommendations/rebalance", "noticeTime")

    def expiry(self) -> str:
        return self._ask("meta-data/tags/instance/expiry").strip()

    def _moment(self, path: str, key: str) -> str:
        text = self._ask(path)
        if not text:
            return ""
        try:
            found = json.loads(text)[key]
        except (ValueError, KeyError, TypeError) as error:
            raise MetadataError(f"{path} answers {text[:100]!r}") from error
        return str(found)

    def _ask(self, path: str) -> str:
        token = self._send("api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}, "PUT")
        return self._send(path, {"X-aws-ec2-metadata-token": token}, "GET")

    def _send(self, path: str, headers: dict[str, str], method: str) -> str:
        request = urllib.request.Request(f"{self._base}/{path}", headers=headers, method=method)  # noqa: S310 (http)
        try:
            with self._open(request, timeout=self._timeout_s) as answer:
                return str(answer.read(1 << 16).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _ABSENT and method == "GET":
                return ""
            raise MetadataError(f"{path} answers {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise MetadataError(f"{path}: {error}") from error
