"""Costs: by way of paying and hours, per request, beside SageMaker, and when used rarely; unpriced stays unpriced."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sizing.start_up
from sizing.choose import choose
from sizing.choosing.wishes import Wishes
from sizing.cost import Costs, costs_of
from sizing.hardware.load import load_hardware
from sizing.hardware.types import PAYS
from sizing.models.catalogue import load_catalogue
from sizing.money import COMMITTED, month_cost, year_cost
from sizing.start_up import checkpoint_bytes, start_up
from sizing.workload import Workload

HARDWARE, CATALOGUE = load_hardware(), load_catalogue()


def priced(model: str = "google/flan-t5-xl", work: Workload | None = None, **wishes: Any) -> Costs:
    given_wishes: dict[str, Any] = {"dtype": "fp32", **wishes}
    return costs_of(choose(CATALOGUE[model], work or Workload(), HARDWARE, Wishes(**given_wishes)))


def test_the_reference_case_by_every_way_of_paying() -> None:
    costs = priced()
    rates = {line.pay: line.usd_per_hour for line in costs.lines}
    assert (rates["on-demand"], rates["reserved-1y"], rates["reserved-3y"]) == (0.752, 0.474, 0.325)
    assert list(rates) == [p for p in PAYS if p in rates]
    on_demand, reserved = costs.line("on-demand"), costs.line("reserved-1y")
    assert on_demand is not None
    assert reserved is not None
    assert on_demand.usd_per_month == pytest.approx(0.752 * 730)
    assert reserved.usd_per_year == pytest.approx(0.474 * 8760)
    assert on_demand.as_of == "2026-07-20"
    assert dict(costs.upfront)["reserved-1y, all paid upfront"] < 0.474


def test_unpriced_is_listed_and_never_a_number() -> None:
    costs = priced()
    assert costs.unpriced == ("savings-1y", "savings-3y")
    assert costs.line("savings-1y") is None
    assert "savings-1y" not in costs.to_json()["by_pay"]
    half = priced("google/flan-t5-small", dtype="auto")
    assert half.sagemaker.usd_per_hour is half.sagemaker.difference_percent is None
    assert half.sagemaker.note.startswith("unpriced: no hosting rate is known")


def test_sagemaker_stands_beside_the_same_machine_with_its_difference() -> None:
    endpoint = priced().sagemaker
    assert (endpoint.instance_type, endpoint.usd_per_hour) == ("ml.g4dn.2xlarge", 0.94)
    assert endpoint.difference_percent == pytest.approx((0.94 / 0.752 - 1) * 100)
    assert endpoint.as_of == "2026-09-27"
    on_demand = priced().line("on-demand")
    assert on_demand is not None
    for amount in ("usd_per_month", "usd_per_1000_requests", "usd_per_million_tokens"):
        assert getattr(endpoint, amount) == pytest.approx(getattr(on_demand, amount) * 0.94 / 0.752)


def test_spot_says_how_often_it_is_taken_away() -> None:
    spot = priced().line("spot")
    assert spot is not None
    assert ">20% interrupted a month" in spot.note
    assert "$0.247 to $0.2696 by zone" in spot.note


@given(hours=st.floats(0.01, 24), more=st.floats(0, 24), rate=st.floats(0.01, 200))
def test_cost_never_falls_as_hours_grow_and_commitments_are_paid_whole(hours: float, more: float, rate: float) -> None:
    longer = min(24.0, hours + more)
    for pay in PAYS:
        assert 0 < month_cost(rate, pay, hours) <= month_cost(rate, pay, longer) * (1 + 1e-12)
        assert month_cost(rate, pay, longer) <= rate * 730.0 * (1 + 1e-12)
        assert year_cost(rate, pay, hours) == pytest.approx(12 * month_cost(rate, pay, hours))
        if pay in COMMITTED:
            assert month_cost(rate, pay, hours) == rate * 730.0


def test_a_part_of_the_day_costs_its_hours_on_demand_and_the_whole_when_reserved() -> None:
    costs = priced(work=Workload(hours_per_day=8.0))
    on_demand, reserved = costs.line("on-demand"), costs.line("reserved-1y")
    assert on_demand is not None
    assert reserved is not None
    assert on_demand.usd_per_month == pytest.approx(0.752 * 8 * 365 / 12)
    assert reserved.usd_per_month == pytest.approx(0.474 * 730)
    assert costs.reserved_pays_above_hours == pytest.approx(24 * 0.474 / 0.752)


@given(day=st.floats(1, 1e6), hours=st.floats(1, 24))
def test_costs_per_request_come_from_the_load(day: float, hours: float) -> None:
    work = Workload(200, 50, requests_per_day=day, hours_per_day=hours)
    costs = priced(work=work)
    for line in costs.lines:
        assert line.usd_per_1000_requests == pytest.approx(line.usd_per_month / (day * 365 / 12) * 1000)
        assert line.usd_per_million_tokens == pytest.approx((line.usd_per_1000_requests or 0) / 250 * 1000)
    endpoint = costs.sagemaker
    if endpoint.usd_per_month is None:
        assert endpoint.usd_per_1000_requests is endpoint.usd_per_million_tokens is None
    else:
        assert endpoint.usd_per_1000_requests == pytest.approx(endpoint.usd_per_month / (day * 365 / 12) * 1000)
    json.dumps(costs.to_json(), allow_nan=False)
    assert costs.basis.endswith("requests a day")


def test_without_a_load_a_request_costs_what_a_busy_host_makes_of_it() -> None:
    choice = choose(CATALOGUE["google/flan-t5-xl"], Workload(batch=8), HARDWARE, Wishes(dtype="fp32"))
    assert choice.chosen is not None
    assert choice.chosen.speed is not None
    line = costs_of(choice).line("on-demand")
    assert line is not None
    an_hour = choice.chosen.speed.requests_per_s.likely * 3600
    assert line.usd_per_1000_requests == pytest.approx(0.752 / an_hour * 1000)


def test_what_has_no_known_speed_has_no_cost_per_request() -> None:
    known = HARDWARE.instance("g5.2xlarge")
    assert known.gpu is not None
    unrated = replace(known, gpu=replace(known.gpu, bandwidth=None))
    hardware = replace(HARDWARE, instances={known.name: unrated}, _offers={})
    costs = costs_of(choose(CATALOGUE["google/flan-t5-xl"], Workload(), hardware, Wishes(dtype="bf16")))
    assert all(line.usd_per_1000_requests is None for line in (*costs.lines, costs.sagemaker))
    assert costs.requests_per_month is None
    assert costs.basis == ""


def test_several_hosts_cost_so_many_times() -> None:
    work = Workload(requests_per_day=5_000_000, latency_s=8.0)
    costs = priced(work=work, dtype="bf16")
    assert costs.hosts > 1
    for line in costs.lines:
        assert line.usd_per_month == pytest.approx(costs.hosts * line.usd_per_hour * 730)


# Used rarely.


def test_a_start_takes_the_sum_of_its_steps_and_longer_for_more_weights() -> None:
    machine = HARDWARE.instance("g4dn.2xlarge")
    small, large = (start_up(CATALOGUE[m], machine) for m in ("google/flan-t5-small", "google/flan-t5-xl"))
    for steps in (small, large):
        assert steps.total.likely == pytest.approx(
            steps.boot.likely + steps.image.likely + steps.download.likely + steps.load.likely
        )
        assert steps.total.low < steps.total.likely < steps.total.high
    assert large.total.likely > small.total.likely
    assert checkpoint_bytes(CATALOGUE["google/flan-t5-xl"]) == 2_849_757_184 * 4


def test_a_disk_without_local_nvme_bounds_the_download() -> None:
    machine = HARDWARE.instance("g4dn.2xlarge")
    bare = replace(machine, local_nvme_gb=0)
    xl = CATALOGUE["google/flan-t5-xl"]
    assert start_up(xl, bare).download.low > start_up(xl, machine).download.low


def test_rare_requests_are_cheapest_in_a_batch_and_constant_ones_are_not() -> None:
    rare = priced(work=Workload(requests_per_day=50), dtype="fp32").rare_use
    assert rare is not None
    assert rare.cheapest is not None
    assert rare.cheapest.name == "batch job once a day"
    ways = {w.name: w for w in rare.ways}
    always = ways["always on, on demand"].usd_per_month
    assert always == pytest.approx(0.752 * 730)
    assert (rare.cheapest.usd_per_month or 0) < always / 10
    assert ways["SageMaker asynchronous, scaled to zero"].usd_per_month is not None
    assert ways["batch job once a day"].delay_s.high > 86_400
    busy = priced(work=Workload(requests_per_day=60_000, latency_s=20.0)).rare_use
    assert busy is not None
    assert busy.busy_hours_per_day is not None


def test_a_service_for_some_hours_pays_its_daily_start() -> None:
    rare = priced(work=Workload(requests_per_day=100, hours_per_day=2.0)).rare_use
    assert rare is not None
    way = next(w for w in rare.ways if w.name == "on demand, started each day")
    start = rare.start_up.total.likely / 3600
    assert way.usd_per_month == pytest.approx(0.752 * (2.0 + start) * 365 / 12)


def test_where_sagemaker_has_no_rate_for_a_use_it_is_unpriced() -> None:
    rare = priced("google/flan-t5-small", Workload(requests_per_day=50), dtype="auto").rare_use
    assert rare is not None
    for way in rare.ways:
        if way.name.startswith("SageMaker"):
            assert way.usd_per_month is None
            assert way.note.startswith("unpriced")


def test_start_up_constants_have_sources_and_are_in_order() -> None:
    path = Path(sizing.start_up.__file__).with_name("start_up.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["source"].strip()
        assert row["as_of"].strip()
        fast, likely, slow = (float(row[p]) for p in ("fast", "likely", "slow"))
        assert all(math.isfinite(v) and v > 0 for v in (fast, likely, slow))
        assert fast <= likely <= slow or fast >= likely >= slow
