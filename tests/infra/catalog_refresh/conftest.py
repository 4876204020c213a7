"""AWS on this machine for the tests of the refresh."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_aws import PriceApis, raised_rates, serve

from infra.catalog_refresh.clients import Clients, connect
from tests.moto_server import moto_server


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def price_apis() -> Iterator[PriceApis]:
    apis = PriceApis({})
    server = serve(apis)
    yield apis
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def endpoints(moto_url: str, price_apis: PriceApis) -> dict[str, str]:
    """The environment by which boto3, in child processes too, reaches this machine's AWS."""
    return {
        "AWS_ENDPOINT_URL_EC2": moto_url,
        "AWS_ENDPOINT_URL_PRICING": price_apis.url,
        "AWS_ENDPOINT_URL_SAVINGSPLANS": price_apis.url,
    }


@pytest.fixture(scope="session")
def clients(endpoints: dict[str, str]) -> Clients:
    with pytest.MonkeyPatch.context() as patch:
        for name, url in endpoints.items():
            patch.setenv(name, url)
        made = connect(attempts=2)
        by_region = {region: made.ec2(region) for region in ("us-east-1", "eu-west-1", "eu-west-3")}
    return dataclasses.replace(made, ec2=by_region.__getitem__)


@pytest.fixture
def aws(price_apis: PriceApis) -> PriceApis:
    """The price APIs, as new: no request seen, nothing injected."""
    price_apis.on_demand, price_apis.before, price_apis.requests = raised_rates(), None, []
    return price_apis


@pytest.fixture
def catalog(cache_dir: Path) -> Path:
    """The catalogue's folder in this test's cache."""
    return cache_dir / "catalog"
