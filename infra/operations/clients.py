"""The clients that reading asks, of the person's account or of the sandbox, and AWS's refusals as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from infra.cloud import AccountCloud, cloud_for
from infra.errors import explained, is_absent
from sizing.errors import UserError

Client = Callable[[str], Any]
"""The boto3 client of a service in the stack's region, by its name."""
_ASK_SECONDS = 20


def clients_for(region: str, sandbox: bool) -> Client:
    """Clients of AWS, or of the sandbox. Raises `UserError` where that does not run."""
    return sandbox_clients(region) if sandbox else account_clients(region)


def account_clients(region: str) -> Client:
    """Clients with the person's own credentials. Makes no request yet."""
    retries = {"mode": "standard", "max_attempts": 5}
    cloud = AccountCloud(region, connect_timeout=_ASK_SECONDS, retries=retries, max_pool_connections=16)

    def client(service: str) -> Any:
        with asking(f"the {service} client", region):
            return cloud.client(service)

    return client


def sandbox_clients(region: str) -> Client:
    """Clients of the local AWS. Raises `UserError` where it does not run."""
    aws = cloud_for(region, sandbox=True)
    return lambda service: WithoutPercentiles(aws.client(service)) if service == "cloudwatch" else aws.client(service)


class WithoutPercentiles:
    """moto's CloudWatch, whose answer to a percentile cannot be read: such a query finds no data here."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_metric_data(self, *, MetricDataQueries: list[Any], **given: Any) -> dict[str, Any]:  # noqa: N803 (boto3's)
        """As CloudWatch's, with an empty series in the place of each percentile."""
        known = [q for q in MetricDataQueries if not q["MetricStat"]["Stat"].startswith("p")]
        answer: dict[str, Any] = self._client.get_metric_data(MetricDataQueries=known, **given)
        empty = [
            {"Id": q["Id"], "Timestamps": [], "Values": []}
            for q in MetricDataQueries
            if q["MetricStat"]["Stat"].startswith("p")
        ]
        return {**answer, "MetricDataResults": [*answer["MetricDataResults"], *empty]}


@contextmanager
def asking(what: str, region: str, absent: str = "") -> Iterator[None]:
    """Turn AWS's refusal of `what` (an IAM action) into a `UserError`; `absent` is said of what does not exist."""
    try:
        yield
    except ClientError as error:
        said = absent if absent and is_absent(error) else explained(error, what, region, ", or use others")
        raise UserError(said) from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{explained(error, what, region)}, or try --sandbox") from None
    except BotoCoreError as error:
        raise UserError(explained(error, what, region)) from None


def account_of(client: Client, region: str) -> str:
    """The number of the account that is asked."""
    with asking("sts:GetCallerIdentity", region):
        return str(client("sts").get_caller_identity()["Account"])
