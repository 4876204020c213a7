"""Integrity of the catalogue's data: what must hold of any honest list of AWS machines and prices.

An exception is named with its reason. A test that a data change breaks asks for a look at the source, not for a new
exception.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from itertools import permutations
from statistics import fmean

import pytest

from sizing.hardware.load import DATA, Hardware, build_hardware
from sizing.hardware.tables import COLUMNS, PRICE_GROUP, read_rows
from sizing.hardware.types import InstanceType, Price

NO_ON_DEMAND = {"p5e.48xlarge": "sold as Capacity Blocks only"}
"""Types without an on-demand price in us-east-1."""
NOT_OFFERED = {"p3.2xlarge", "p3.8xlarge", "p3.16xlarge"}
"""Priced, but offered in no zone of any region in the snapshot."""
CONVERTIBLE_3Y_DEARER = {("p4d.24xlarge", "ap-northeast-1")}
"""The three-year convertible rate is above the one-year rate in the source: the 2025 price cut reached one only."""
UNKNOWN_FLOPS = {
    "RTX PRO 4500": "no data sheet of the server edition found",
    "B300": "sources conflict: 2250, 3500, 3750 dense TFLOPS",
}


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return build_hardware(DATA)


@pytest.fixture(scope="module")
def priced(hardware: Hardware) -> list[tuple[InstanceType, Price]]:
    return [(hardware.instances[name], price) for (name, _), price in hardware.prices.items()]


def test_no_row_was_lost(hardware: Hardware) -> None:
    assert len(hardware.instances) == 81
    assert len(hardware.prices) == 260
    assert len(hardware.offerings) == 81 * 6
    assert len(hardware.capacity_blocks) == 10


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_every_row_has_a_source_a_date_and_no_nan(name: str) -> None:
    for row in read_rows(DATA / name):
        assert row.text("source")
        assert not {cell.lower() for cell in row.cells.values()} & {"nan", "none", "null", "inf", "-", "n/a", "0.0"}
        if name != "prices.csv":
            row.date("as_of")


def test_files_are_plain_csv_with_one_kind_of_line_end() -> None:
    for name in COLUMNS:
        raw = (DATA / name).read_bytes()
        assert b"\r" not in raw
        assert raw.isascii()
        rows = list(csv.reader(raw.decode().splitlines(), strict=True))
        assert {len(row) for row in rows} == {len(COLUMNS[name])}


def test_every_price_and_offering_has_a_type_and_every_type_an_offering(hardware: Hardware) -> None:
    assert {name for name, _ in hardware.prices} <= set(hardware.instances)
    assert {name for name, _ in hardware.offerings} == set(hardware.instances)
    assert set(hardware.instances) - {name for name, _ in hardware.prices} == set(NO_ON_DEMAND)


def test_every_type_has_ram_and_every_accelerator_memory(hardware: Hardware) -> None:
    for instance in hardware.instances.values():
        assert 2**32 <= instance.memory_bytes <= 2**43, instance.name
        assert instance.vcpus >= 2
        if instance.gpu is None:
            assert instance.gpu_count == 0
            continue
        assert 2**31 <= instance.gpu.memory_bytes <= 2**39, instance.name
        assert instance.gpu_count in (0.125, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 16), instance.name
        assert instance.gpu.memory_bytes * instance.gpu_count < instance.memory_bytes * 8, instance.name


def test_every_gpu_is_in_the_accelerators_table_and_the_reverse(hardware: Hardware) -> None:
    table = {(gpu.name, gpu.api_memory_bytes) for gpu in hardware.accelerators}
    whole = {(i.gpu.name, i.gpu.api_memory_bytes) for i in hardware.instances.values() if i.gpu and i.gpu_count >= 1}
    assert whole == table
    assert all(gpu.bandwidth for gpu in hardware.accelerators)
    assert {gpu.name for gpu in hardware.accelerators if gpu.flops_16bit is None} == set(UNKNOWN_FLOPS)


def test_what_the_driver_leaves_is_near_what_aws_reports(hardware: Hardware) -> None:
    for gpu in hardware.accelerators:
        assert gpu.api_memory_bytes is not None
        assert 0.93 < gpu.memory_bytes / gpu.api_memory_bytes < 1.01, gpu.name


def test_bf16_goes_with_compute_capability_8(hardware: Hardware) -> None:
    for gpu in hardware.accelerators:
        if gpu.vendor == "nvidia":
            assert gpu.compute_capability is not None
            assert gpu.bf16 is (gpu.compute_capability >= 8.0), gpu.name
        else:
            assert gpu.compute_capability is None


def test_us_east_1_is_complete_for_on_demand(hardware: Hardware) -> None:
    missing = {
        name
        for name in hardware.instances
        if "on-demand" not in getattr(hardware.prices.get((name, "us-east-1")), "usd_per_hour", {})
    }
    assert missing == set(NO_ON_DEMAND)


def test_every_rate_is_finite_and_positive(hardware: Hardware) -> None:
    for price in hardware.prices.values():
        rates = [*price.usd_per_hour.values(), *price.effective.values(), price.sagemaker_hosting, price.spot_min]
        assert all(rate is None or (math.isfinite(rate) and 0 < rate < 200) for rate in rates), price


def test_price_per_gpu_never_falls_as_a_family_s_gpus_get_more_company(
    priced: list[tuple[InstanceType, Price]],
) -> None:
    families: dict[tuple[str, str], list[tuple[InstanceType, float]]] = defaultdict(list)
    for instance, price in priced:
        if instance.gpu is not None and "on-demand" in price.usd_per_hour:
            families[instance.family, price.region].append((instance, price.usd_per_hour["on-demand"]))
    compared = 0
    for machines in families.values():
        for (small, small_usd), (large, large_usd) in permutations(machines, 2):
            ram = small.memory_bytes / small.gpu_count <= large.memory_bytes / large.gpu_count
            cpu = small.vcpus / small.gpu_count <= large.vcpus / large.gpu_count
            if ram and cpu:
                compared += 1
                # Equal shares of a machine may differ in the last digit: AWS rounds every type's price.
                assert small_usd / small.gpu_count <= large_usd / large.gpu_count * 1.001, (small.name, large.name)
            if small.gpu_count <= large.gpu_count and small.memory_bytes < large.memory_bytes:
                assert small_usd < large_usd, (small.name, large.name)
    assert compared > 500


def test_commitments_are_below_on_demand_and_longer_or_paid_ones_lower(
    priced: list[tuple[InstanceType, Price]],
) -> None:
    orders = [
        ("reserved_1y_all_upfront", "reserved_1y_partial_upfront"),
        ("reserved_3y_all_upfront", "reserved_3y_partial_upfront"),
        ("reserved_3y_partial_upfront", "reserved_1y_partial_upfront"),
        ("reserved_3y_all_upfront", "reserved_1y_all_upfront"),
        ("convertible_3y_no_upfront", "convertible_1y_no_upfront"),
    ]
    for instance, price in priced:
        paid, effective = price.usd_per_hour, price.effective
        key = (instance.name, price.region)
        for pay in ("reserved-1y", "reserved-3y", "savings-1y", "savings-3y"):
            assert paid.get(pay, 0) < paid["on-demand"], (key, pay)
        assert all(rate < paid["on-demand"] for rate in effective.values()), key
        for years in ("1y", "3y"):
            if f"reserved-{years}" in paid:
                assert effective[f"reserved_{years}_partial_upfront"] <= paid[f"reserved-{years}"], key
                assert paid[f"reserved-{years}"] <= effective.get(f"convertible_{years}_no_upfront", math.inf), key
        if {"reserved-1y", "reserved-3y"} <= set(paid):
            assert paid["reserved-3y"] < paid["reserved-1y"], key
        for low, high in orders:
            if low in effective and high in effective and key not in CONVERTIBLE_3Y_DEARER:
                assert effective[low] <= effective[high], (key, low, high)


def test_spot_is_below_on_demand_on_average_and_within_its_zones(priced: list[tuple[InstanceType, Price]]) -> None:
    ratios = []
    for instance, price in priced:
        if "spot" in price.usd_per_hour:
            spot = price.usd_per_hour["spot"]
            assert price.spot_min is not None
            assert price.spot_max is not None
            assert price.spot_min <= spot <= price.spot_max, (instance.name, price.region)
            ratios.append(spot / price.usd_per_hour["on-demand"])
    assert fmean(ratios) < 0.6
    assert max(ratios) < 1.0001  # capped at on-demand, which AWS rounds differently


def test_sagemaker_is_never_below_ec2(priced: list[tuple[InstanceType, Price]]) -> None:
    markups = [
        sagemaker / price.usd_per_hour["on-demand"]
        for _, price in priced
        for sagemaker in (price.sagemaker_hosting, price.sagemaker_training)
        if sagemaker is not None
    ]
    assert min(markups) >= 1
    assert len(markups) > 100


def test_offerings_agree_with_prices(hardware: Hardware, priced: list[tuple[InstanceType, Price]]) -> None:
    for instance, price in priced:
        assert price.offered is hardware.offered(instance.name, price.region)
    assert {instance.name for instance, price in priced if price.offered is False} == NOT_OFFERED
    for (name, region), offering in hardware.offerings.items():
        assert offering.az_count == len(offering.az_ids) == len(set(offering.az_ids)), (name, region)


def test_zone_ids_belong_to_their_region(hardware: Hardware) -> None:
    prefixes: dict[str, Counter[str]] = defaultdict(Counter)
    for offering in hardware.offerings.values():
        prefixes[offering.region].update(zone.partition("-")[0] for zone in offering.az_ids)
    assert {region: len(found) for region, found in prefixes.items()} == dict.fromkeys(hardware.regions, 1)


def test_every_group_that_has_a_rate_has_its_date(hardware: Hardware) -> None:
    for row in read_rows(DATA / "prices.csv"):
        for column, group in PRICE_GROUP.items():
            if row.cells[column]:
                row.date(f"{group}_as_of")
    assert all(price.as_of for price in hardware.prices.values())


def test_the_reference_case_s_figures(hardware: Hardware) -> None:
    machine = hardware.instances["g4dn.2xlarge"]
    price = hardware.prices["g4dn.2xlarge", "us-east-1"]
    assert machine.gpu is not None
    assert machine.gpu.memory_bytes == 15360 * 2**20
    assert machine.memory_bytes == 32 * 2**30
    assert price.usd_per_hour["on-demand"] == 0.752
    assert price.usd_per_hour["reserved-1y"] == 0.474
    assert price.sagemaker_hosting == 0.94
