"""What others raise and say, as one line for the person at the keyboard; above all AWS's refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "Client.UnauthorizedOperation",
        "UnauthorizedOperation",
    }
)
"""AWS's codes for credentials that may not do what was asked."""
_BAD_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""AWS's codes for credentials that are none, or none any more."""
_ABSENT = frozenset({"404", "ResourceNotFoundException", "RepositoryNotFoundException", "NotFoundException"})
_VAGUE = frozenset({"ValidationError", "ValidationException"})
"""Codes under which Auto Scaling and SageMaker report a missing thing."""


def one_line(said: object, most: int | None = None) -> str:
    """An error, or what a program said, without line breaks; its first `most` characters."""
    return " ".join(str(said).split())[:most]


def clause(error: Exception) -> str:
    """`one_line` of an error, its full stop left off: more is said behind it."""
    return one_line(error).rstrip(".")


def refusal(error: Any) -> str:
    """AWS's code and message of a botocore `ClientError`: "NoSuchBucket: The specified bucket does not exist"."""
    said = _said(error)
    return one_line(f"{said.get('Code', 'error')}: {said.get('Message', '')}").rstrip(":")


def explained(error: Exception, action: str, region: str, otherwise: str = "") -> str:
    """Why `action` (an IAM action) failed with botocore's `error` in `region`, and what to do about it.

    `otherwise` goes on after "allow it", where credentials may not do it.
    """
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError  # noqa: PLC0415

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"no usable AWS credentials ({clause(error)}): run `aws configure` or `aws sso login`"
    if not isinstance(error, ClientError):
        return f"no answer to {action} (region {region}): {clause(error)}"
    code = code_of(error)
    if code in _DENIED:
        return f"these AWS credentials may not call {action} (region {region}): allow it{otherwise}"
    if code in _BAD_CREDENTIALS:
        return f"AWS refused the credentials ({code}): renew them, e.g. `aws sso login`, and try again"
    return f"AWS answered {action} (region {region}) with {code or 'an error'}: {clause(error)}"


def code_of(error: Any) -> str:
    """AWS's error code of a botocore `ClientError`."""
    return str(_said(error).get("Code", ""))


def is_absent(error: Any) -> bool:
    """Whether AWS says that a thing does not exist. Its services word it in a dozen ways."""
    code = code_of(error)
    return code in _ABSENT or any(part in code for part in ("NotFound", "NoSuch")) or _says_absent(error)


def _says_absent(error: Any) -> bool:
    message = str(_said(error).get("Message", "")).lower()
    said = ("not found", "could not find", "does not exist", "no scaling policy", "no scalable target")
    return code_of(error) in _VAGUE and any(words in message for words in said)


def _said(error: Any) -> Mapping[str, Any]:
    response: Mapping[str, Any] = getattr(error, "response", {})
    said: Mapping[str, Any] = response.get("Error", {})
    return said
