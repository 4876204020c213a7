"""The AWS clients that a refresh asks, and AWS's failures as one line for the person at the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.catalog_refresh import KEPT
from infra.errors import clause, code_of, explained
from sizing.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_pricing import PricingClient
    from mypy_boto3_savingsplans import SavingsPlansClient

PRICING_REGION = "us-east-1"
"""The Price List and Savings Plans APIs answer here for all regions."""
_NOT_ENABLED = {"OptInRequired", "RegionDisabledException"}
_THROTTLED = {
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


@dataclass(frozen=True, slots=True)
class Clients:
    """What a refresh asks. `ec2` gives the client of a region; `regions` are those that the SDK knows."""

    ec2: Callable[[str], EC2Client]
    pricing: PricingClient
    savingsplans: SavingsPlansClient
    regions: tuple[str, ...]


def connect(profile: str | None = None, attempts: int = 8) -> Clients:
    """Clients from the person's own credentials (environment, profile, SSO, instance role). Makes no request yet.

    A request is tried up to `attempts` times.
    """
    # Standard mode: exponential backoff with jitter on throttling, timeouts and 5xx.
    config = Config(retries={"mode": "standard", "max_attempts": attempts}, connect_timeout=10, read_timeout=60)
    try:
        session = boto3.Session(profile_name=profile)
        if session.get_credentials() is None:
            raise UserError(
                "no AWS credentials found: run `aws configure` or `aws sso login`, or name a profile with --profile "
                "or AWS_PROFILE; without them Berth's own dated prices serve"
            )
        return Clients(
            ec2=lambda region: session.client("ec2", region_name=region, config=config),
            pricing=session.client("pricing", region_name=PRICING_REGION, config=config),
            savingsplans=session.client("savingsplans", region_name=PRICING_REGION, config=config),
            regions=tuple(session.get_available_regions("ec2")),
        )
    except BotoCoreError as error:
        raise UserError(f"cannot use the AWS credentials: {clause(error)}") from None


@contextmanager
def asking(action: str, region: str, without: str = "") -> Iterator[None]:
    """Turn AWS's refusal of `action` (an IAM action, `ec2:DescribeInstanceTypes`) into a `UserError`.

    `without` names the group that `--without` leaves out, where the refresh can do without this call.
    """
    skip = f" or leave it out with --without {without}" if without else ""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in _NOT_ENABLED or (code == "AuthFailure" and action.startswith("ec2:")):
            problem = f"AWS refused {action} in {region} ({code}): wrong credentials, or the account has not enabled it"
        elif code in _THROTTLED:
            problem = f"AWS throttled {action} ({code}) for all of the retries: try again later{skip}"
        else:
            problem = explained(error, action, region, skip)
        raise UserError(f"{problem}; {KEPT}") from None
    except BotoCoreError as error:
        raise UserError(f"{explained(error, action, region)}; {KEPT}") from None


def unexpected(action: str, problem: str) -> UserError:
    """AWS answered, but not in the documented shape. Refused, so that a guess never becomes a price."""
    return UserError(f"AWS's answer to {action} is not as documented: {problem}; {KEPT}")


def field(record: Any, action: str, *path: str) -> Any:
    """A field of an answer that is documented to be there."""
    value = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise unexpected(action, f"{'.'.join(path)} is missing")
        value = value[name]
    return value
