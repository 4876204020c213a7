"""How old the catalogue's data are."""

from __future__ import annotations

from datetime import date

import pytest

from sizing.hardware.ages import STALE_DAYS, ages
from sizing.hardware.load import DATA, Hardware, build_hardware

TODAY = date(2026, 11, 24)


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return build_hardware(DATA)


def test_a_group_counts_from_its_oldest_row(hardware: Hardware) -> None:
    found = {age.group: age for age in ages(hardware, TODAY)}
    on_demand = found["on_demand"]
    assert (on_demand.oldest, on_demand.newest) == ("2026-01-21", "2026-07-20")
    assert on_demand.days == (TODAY - date(2026, 1, 21)).days
    assert on_demand.stale
    assert on_demand.undated == 2


def test_a_month_counts_from_its_first_day(hardware: Hardware) -> None:
    offerings = {age.group: age for age in ages(hardware, TODAY)}["offerings"]
    assert (offerings.oldest, offerings.days) == ("2026-10", (TODAY - date(2026, 10, 1)).days)
    assert not offerings.stale


def test_undated_rows_have_no_age(hardware: Hardware) -> None:
    savings = {age.group: age for age in ages(hardware, TODAY)}["savings_plan"]
    assert (savings.rows, savings.undated, savings.days, savings.stale) == (6, 6, None, False)


def test_a_region_and_types_narrow_it(hardware: Hardware) -> None:
    found = {age.group: age for age in ages(hardware, TODAY, "us-east-1", {"g4dn.xlarge", "g5.xlarge"})}
    assert {group: age.rows for group, age in found.items() if age.rows} == {
        "instance_types": 2,
        "accelerators": 2,
        "offerings": 2,
        "on_demand": 2,
        "reserved": 2,
        "savings_plan": 1,
        "spot": 2,
        "spot_advisor": 2,
        "sagemaker": 2,
    }
    assert found["on_demand"].oldest == "2026-07-20"


def test_stale_begins_after_the_limit(hardware: Hardware) -> None:
    day = date(2026, 7, 20)
    edge = date.fromordinal(day.toordinal() + STALE_DAYS)
    after = date.fromordinal(edge.toordinal() + 1)
    only = {"g4dn.xlarge"}
    assert [{a.group: a for a in ages(hardware, d, "us-east-1", only)}["on_demand"].stale for d in (edge, after)] == [
        False,
        True,
    ]
