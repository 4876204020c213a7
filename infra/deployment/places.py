"""Where an artifact may lie: a folder of this machine, or a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.errors import code_of, one_line
from model_runtime.artifacts import Verified, verify
from model_runtime.errors import in_one_line
from model_runtime.fetch import split_s3
from sizing.errors import UserError

MOST_BYTES = 8 << 20
"""Of a file that is read whole: configurations and records are far smaller."""
_ABSENT = ("NoSuchKey", "404", "NotFound")
_NO_BUCKET = ("NoSuchBucket",)


class UnreachableError(Exception):
    """S3 cannot be asked here: no credentials, no network, no permission."""


class Place(Protocol):
    """`where` names it for people, with `below` appended."""

    def where(self, below: str = "") -> str: ...
    def read(self, path: str) -> bytes | None:
        """A file's bytes, None where it is not there. Raises `UnreachableError`."""
        ...

    def above(self, name: str) -> Place | None:
        """The place above one whose own name is `name`; None for any other."""
        ...

    def verify(self, below: str, *, sizes_only: bool) -> Verified:
        """The folder `below` held against its manifest. Raises `UserError` for one that cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder of this machine."""

    folder: Path

    def where(self, below: str = "") -> str:
        return str(self.folder / below) if below else str(self.folder)

    def read(self, path: str) -> bytes | None:
        file = self.folder / path
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        try:
            return file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None

    def above(self, name: str) -> Place | None:
        return FolderPlace(self.folder.parent) if self.folder.name == name else None

    def verify(self, below: str, *, sizes_only: bool) -> Verified:
        return _verified(self.where(below), None, sizes_only)


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """`s3://bucket/prefix`, asked through boto3's `client`."""

    uri: str
    client: Any

    def where(self, below: str = "") -> str:
        return f"{self.uri}/{below}".rstrip("/") if below else self.uri

    def read(self, path: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (a quarter of a second)

        bucket, prefix = split_s3(self.uri)
        try:
            found = self.client.get_object(Bucket=bucket, Key=prefix + path)
            return bytes(found["Body"].read()) if found["ContentLength"] <= MOST_BYTES else None
        except ClientError as error:
            code = code_of(error)
            if code in _ABSENT:
                return None
            if code in _NO_BUCKET:
                raise UserError(f"there is no bucket {bucket}; bring the shared stack up first") from None
            raise UnreachableError(one_line(error, 300)) from error
        except BotoCoreError as error:
            raise UnreachableError(one_line(error, 300)) from error

    def above(self, name: str) -> Place | None:
        uri = self.uri.rstrip("/")
        return BucketPlace(uri.removesuffix(f"/{name}"), self.client) if uri.endswith(f"/{name}") else None

    def verify(self, below: str, *, sizes_only: bool) -> Verified:
        return _verified(self.where(below), self.client, sizes_only)


def _verified(location: str, client: Any, sizes_only: bool) -> Verified:
    with in_one_line():
        return verify(location, client=client, sizes_only=sizes_only)


def reach_aws(sandbox: bool) -> Callable[[str], tuple[str, Any]]:
    """Region -> the account's number and boto3's client for S3 there, of the person's credentials or of the sandbox.

    What it returns raises `UnreachableError` where nobody may ask, and `UserError` where the sandbox does not run.
    """

    def reach(region: str) -> tuple[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        from infra.cloud import cloud_for  # noqa: PLC0415

        cloud = cloud_for(region, sandbox)
        try:
            return cloud.account, cloud.client("s3")
        except (BotoCoreError, ClientError) as error:
            raise UnreachableError(one_line(error, 300)) from error

    return reach
