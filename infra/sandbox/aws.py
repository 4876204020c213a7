"""Clients of the sandbox's AWS, which never read a person's credentials, profile or proxy."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import boto3.session
import botocore.session
from botocore.config import Config

from sizing.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NO_FILE = (None, None, os.devnull, None)


class Aws:
    """boto3 clients of one region at `endpoint`. Parameters are validated as for AWS itself."""

    def __init__(self, endpoint: str, region: str) -> None:
        """Raises `UserError` for an endpoint that is not on this machine: the sandbox never talks to a real account."""
        if urlsplit(endpoint).hostname not in LOOPBACK:
            raise UserError(f"the sandbox's AWS must be on this machine, 127.0.0.1; '{endpoint}' is not")
        self.endpoint, self.region = endpoint, region
        self._clients: dict[str, Any] = {}
        self._session: Any = None
        self._account = ""

    def client(self, service: str) -> Any:
        """The client of a service by boto3's name."""
        if service not in self._clients:
            self._session = self._session or _session(self.region)
            self._clients[service] = self._session.client(
                service, region_name=self.region, endpoint_url=self.endpoint, config=self._config()
            )
        return self._clients[service]

    @staticmethod
    def _config() -> Any:
        return Config(
            retries={"max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=30,
            proxies={},
            s3={"addressing_style": "path"},
        )

    @property
    def account(self) -> str:
        """Number of the account that moto plays."""
        if not self._account:
            self._account = self.client("sts").get_caller_identity()["Account"]
        return self._account


def _session(region: str) -> Any:
    own = botocore.session.Session(
        session_vars={"profile": (None, None, None, None), "config_file": _NO_FILE, "credentials_file": _NO_FILE}
    )
    return boto3.session.Session(
        botocore_session=own,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",  # noqa: S106 (moto asks for some key and checks none)
        region_name=region,
    )
