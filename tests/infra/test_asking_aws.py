"""What AWS does not answer, in a line that says what to do."""

from __future__ import annotations

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from infra.cloud import asking_aws
from sizing.errors import UserError


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NoCredentialsError(), r"to list: no usable AWS credentials .*run `aws configure`.*, or try --sandbox$"),
        (EndpointConnectionError(endpoint_url="https://x"), "to list: AWS cannot be asked: Could not connect"),
    ],
)
def test_what_cannot_be_asked_says_what_to_do(error: Exception, says: str) -> None:
    with pytest.raises(UserError, match=says), asking_aws("to list"):
        raise error
