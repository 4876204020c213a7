"""AWS as the lifecycle asks it: clients of one region by service, of an account or of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from infra.errors import explained, one_line, refusal
from sizing.errors import UserError

if TYPE_CHECKING:
    from infra.sandbox.aws import Aws

ASK_SECONDS = 10


class Cloud(Protocol):
    """`infra.sandbox.aws.Aws` is one. `endpoint` is None for AWS itself."""

    @property
    def region(self) -> str: ...
    @property
    def endpoint(self) -> str | None: ...
    @property
    def account(self) -> str:
        """The account's number. Raises what boto3 raises where nobody may ask."""
        ...

    def client(self, service: str) -> Any:
        """boto3's client of a service by its name there."""
        ...


class AccountCloud:
    """The account of the person's own credentials, found as boto3 finds them."""

    endpoint: str | None = None

    def __init__(self, region: str, **config: Any) -> None:
        """`config` goes over botocore's `Config` as it is here: how long is waited and how often is tried."""
        self.region = region
        usual: dict[str, Any] = {"connect_timeout": ASK_SECONDS, "read_timeout": 60, "retries": {"max_attempts": 4}}
        self._config = usual | config
        self._clients: dict[str, Any] = {}
        self._session: Any = None
        self._account = ""

    def client(self, service: str) -> Any:
        import boto3.session  # noqa: PLC0415 (a quarter of a second)
        from botocore.config import Config  # noqa: PLC0415

        if service not in self._clients:
            self._session = self._session or boto3.session.Session(region_name=self.region)
            self._clients[service] = self._session.client(service, config=Config(**self._config))
        return self._clients[service]

    @property
    def account(self) -> str:
        if not self._account:
            self._account = str(self.client("sts").get_caller_identity()["Account"])
        return self._account


def cloud_for(region: str, sandbox: bool) -> Cloud:
    """AWS in `region`, or the sandbox that runs. Raises `UserError` where the sandbox does not."""
    if not sandbox:
        return AccountCloud(region)
    from infra.sandbox.server import find, sandbox_dir  # noqa: PLC0415

    server = find(sandbox_dir())
    if server is None:
        raise not_running()
    return sandbox_aws(server.endpoint, region)


@cache
def sandbox_aws(endpoint: str, region: str) -> Aws:
    """The local AWS; one for a process, since boto3's clients are dear to make."""
    from infra.sandbox.aws import Aws  # noqa: PLC0415

    return Aws(endpoint, region)


def not_running() -> UserError:
    return UserError("the sandbox does not run, so nothing is in it; `berth up STACK --sandbox` starts it")


@contextmanager
def asking_aws(what: str) -> Iterator[None]:
    """Turn what boto3 raises into one line, a `UserError`: "AWS refuses `what`: …"."""
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        raise UserError(f"AWS refuses {what}: {refusal(error)[:300]}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{what}: {explained(error, what, '')}, or try --sandbox") from error
    except BotoCoreError as error:
        raise UserError(f"{what}: AWS cannot be asked: {one_line(error, 300)}") from error
