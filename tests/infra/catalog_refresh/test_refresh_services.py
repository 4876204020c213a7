"""Prices of services beside machines, refreshed: what AWS lists once is taken, what it lists twice is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from local_aws import PriceApis

from infra.catalog_refresh.clients import Clients
from infra.catalog_refresh.refresh import refresh
from infra.catalog_refresh.services import QUESTIONS, service_rows
from infra.prices.table import DATA, load_services
from model_runtime.progress import Lines
from sizing.errors import UserError

NOW = datetime(2026, 11, 24, 5, 40, 38, tzinfo=UTC)


SILENT = Lines(lambda _: None)


def rows(clients: Clients, region: str) -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    found, notes = service_rows(clients.pricing, region, "2026-11-24", lambda: None)
    return {(r["service"], r["item"]): r for r in found}, notes


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_each_price_comes_in_our_unit_from_the_usage_type_that_is_meant(
    clients: Clients, aws: PriceApis, region: str
) -> None:
    found, notes = rows(clients, region)
    usd = {key: row["usd"] for key, row in found.items()}
    assert usd["ec2", "nat_gateway"] == "0.048", "not the regional gateway's"
    assert usd["ec2", "interface_endpoint_data"] == "0.01", "the first tier"
    assert usd["ec2", "gp3_throughput"] == "0.044", "of a MiB/s; AWS prices the GiB/s"
    assert usd["elb", "alb"] == "0.0252", "not its trust store's"
    assert (usd["kms", "key"], usd["kms", "requests"]) == ("1", "0.03"), "above the free tier"
    assert usd["sns", "email"] == "2"
    assert usd["s3", "put_requests"] == "0.005"
    assert {row["as_of"] for row in found.values()} == {"2026-11-24"}
    assert ("elb", "nlb") not in found, "AWS lists two rates: nothing says which is meant"
    assert len(notes) == 1 and "elb nlb" in notes[0] and "stay as they were" in notes[0]


def test_units_and_names_are_those_of_the_shipped_table() -> None:
    shipped = {(p.service, p.item): p.unit for p in load_services(DATA).all()}
    for question in QUESTIONS:
        for item in question.items:
            assert shipped[item.service, item.item] == item.unit


def test_a_refresh_prices_a_region_and_keeps_what_it_does_not_find(
    clients: Clients, aws: PriceApis, catalog: Path
) -> None:
    shipped = load_services()
    assert shipped.find("cloudwatch", "alarm", "eu-west-1") is None
    summary = refresh(["eu-west-1"], clients, SILENT, NOW, folder=catalog, without=("spot", "savings", "sagemaker"))
    assert summary.service_prices > 15
    after = load_services()
    alarm = after.find("cloudwatch", "alarm", "eu-west-1")
    assert alarm is not None and (alarm.usd, alarm.as_of) == (Decimal("0.1"), "2026-11-24")
    assert after.find("ec2", "nat_gateway", "us-east-1") == shipped.find("ec2", "nat_gateway", "us-east-1")
    assert after.find("cloudwatch", "dashboard", "us-east-1") == shipped.find("cloudwatch", "dashboard", "us-east-1")
    again = refresh(
        ["us-east-1"], clients, SILENT, NOW.replace(hour=7), folder=catalog,
        without=("spot", "savings", "sagemaker", "services"),
    )  # fmt: skip
    assert again.service_prices == 0
    assert load_services().find("cloudwatch", "alarm", "eu-west-1") == alarm, "another region's refresh keeps it"


def test_a_damaged_table_is_said_with_the_way_out(clients: Clients, aws: PriceApis, catalog: Path) -> None:
    summary = refresh(["eu-west-1"], clients, SILENT, NOW, folder=catalog, without=("spot", "savings", "sagemaker"))
    assert summary.version is not None
    table = summary.version / "services.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("0.048", "0.001"), encoding="utf-8")
    with pytest.raises(UserError, match=r"services.csv is not as the refresh wrote it.*berth catalog reset"):
        load_services()


def test_a_refusal_names_what_can_be_left_out(clients: Clients, aws: PriceApis, catalog: Path) -> None:
    denied = 400, {"__type": "AccessDeniedException", "message": "no"}

    def refuse(_service: str, request: dict[str, Any]) -> Any:
        return denied if request.get("ServiceCode") == "awskms" else None

    aws.before = refuse
    with pytest.raises(UserError, match="--without services"):
        refresh(["eu-west-1"], clients, SILENT, NOW, folder=catalog, without=("spot", "savings", "sagemaker"))
    assert not (catalog / "current").exists(), "all or nothing"


def test_the_command_says_how_many(
    run_berth: Callable[..., Any], endpoints: dict[str, str], aws: PriceApis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, url in endpoints.items():
        monkeypatch.setenv(name, url)
    ran = run_berth("catalog", "refresh", "--region", "eu-west-1", "--without", "spot", "--without", "savings")
    assert ran.code == 0, ran.err
    assert " prices of services" in ran.out
