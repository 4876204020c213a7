"""A refresh from AWS's APIs: what it asks, what it writes, what a catalogue is afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from local_aws import PriceApis, raised_rates

from infra.catalog_refresh.clients import Clients
from infra.catalog_refresh.refresh import Summary, refresh
from sizing.errors import UserError
from sizing.hardware.load import DATA, Hardware, build_hardware, load_hardware

NOW = datetime(2026, 11, 24, 5, 40, 38, tzinfo=UTC)


@dataclass
class Steps:
    """Progress, kept: (label, total, done) a stage."""

    stages: list[list[object]] = field(default_factory=list)

    def begin(self, label: str, total: int) -> None:
        self.stages.append([label, total, 0])

    def advance(self) -> None:
        self.stages[-1][2] = int(str(self.stages[-1][2])) + 1


@pytest.fixture(scope="module")
def rates() -> dict[tuple[str, str], float]:
    """What the price list asks on demand, by (type, region)."""
    return raised_rates()


@pytest.fixture(scope="module")
def summary(
    clients: Clients,
    price_apis: PriceApis,
    rates: dict[tuple[str, str], float],
    tmp_path_factory: pytest.TempPathFactory,
) -> Summary:
    """One refresh of us-east-1 into a folder of its own, for the tests that only look at it."""
    price_apis.on_demand, price_apis.before = dict(rates), None
    return refresh(["us-east-1"], clients, Steps(), NOW, folder=tmp_path_factory.mktemp("once") / "catalog")


@pytest.fixture(scope="module")
def refreshed(summary: Summary) -> Hardware:
    return build_hardware(DATA, summary.version)


def test_the_refreshed_catalogue_is_preferred_and_dated(refreshed: Hardware, summary: Summary) -> None:
    assert refreshed.origin.kind == "refreshed"
    assert refreshed.origin.path == summary.version
    assert refreshed.origin.regions == ("us-east-1",)
    assert (refreshed.origin.path.parent / "current").read_text().strip() == refreshed.origin.path.name
    assert refreshed.origin.refreshed_at == "2026-11-24T05:40:38+00:00"
    price = refreshed.prices["g5.xlarge", "us-east-1"]
    assert {group: day for group, day in price.as_of.items() if group != "spot_advisor"} == {
        "on_demand": "2026-11-24",
        "reserved": "2026-11-24",
        "savings_plan": "2026-11-24",
        "spot": "2026-11-24",
        "sagemaker": "2026-11-24",
    }


def test_every_rate_goes_where_it_belongs(refreshed: Hardware, rates: dict[tuple[str, str], float]) -> None:
    usd = rates["g5.xlarge", "us-east-1"]
    price = refreshed.prices["g5.xlarge", "us-east-1"]
    assert price.usd_per_hour == {
        "on-demand": usd,
        "reserved-1y": pytest.approx(usd * 0.63, abs=1e-6),
        "reserved-3y": pytest.approx(usd * 0.43, abs=1e-6),
        "savings-1y": pytest.approx(usd * 0.63, abs=1e-6),
        "savings-3y": pytest.approx(usd * 0.43, abs=1e-6),
        "spot": pytest.approx(0.00001),
    }
    assert price.effective == {
        "reserved_1y_partial_upfront": pytest.approx(usd * 0.63 * 0.95, abs=1e-6),
        "reserved_1y_all_upfront": pytest.approx(usd * 0.63 * 0.93, abs=1e-6),
        "reserved_3y_partial_upfront": pytest.approx(usd * 0.43 * 0.92, abs=1e-6),
        "reserved_3y_all_upfront": pytest.approx(usd * 0.43 * 0.87, abs=1e-6),
        "convertible_1y_no_upfront": pytest.approx(usd * 0.72, abs=1e-6),
        "savings_compute_1y_no_upfront": pytest.approx(usd * 0.72, abs=1e-6),
        "savings_compute_3y_no_upfront": pytest.approx(usd * 0.5, abs=1e-6),
    }
    assert price.sagemaker_hosting == pytest.approx(usd * 1.4, abs=1e-6)
    assert price.sagemaker_training == pytest.approx(usd * 1.2, abs=1e-6)
    assert price.terms == {}


@pytest.mark.parametrize("name", ["g6.xlarge", "g6e.xlarge", "p6-b200.48xlarge"])
def test_a_sagemaker_type_is_known_however_it_is_named(
    refreshed: Hardware, rates: dict[tuple[str, str], float], name: str
) -> None:
    price = refreshed.prices[name, "us-east-1"]
    assert price.sagemaker_hosting == pytest.approx(rates[name, "us-east-1"] * 1.4, abs=1e-6)


def test_bare_metal_is_found_under_its_own_product_family(
    refreshed: Hardware, rates: dict[tuple[str, str], float]
) -> None:
    price = refreshed.prices["g4dn.metal", "us-east-1"]
    assert price.usd_per_hour["on-demand"] == rates["g4dn.metal", "us-east-1"]


def test_specs_agree_with_what_berth_ships(refreshed: Hardware) -> None:
    """Moto's data are AWS's own answers, from which most of the shipped rows come: the two ways must meet."""
    shipped = build_hardware()
    compared = 0
    for name, before in shipped.instances.items():
        after = refreshed.instances[name]
        if before.as_of == after.as_of:
            continue
        compared += 1
        for fact in ("family", "vcpus", "memory_bytes", "gpu", "gpu_count", "local_nvme_gb", "efa", "nvlink", "arch"):
            assert getattr(after, fact) == getattr(before, fact), (name, fact)
        assert after.network_gbps == before.network_gbps, name
        assert after.network_baseline_gbps == before.network_baseline_gbps or name.startswith("p6"), name
        assert after.usage_classes == before.usage_classes
    assert compared > 70


def test_a_type_that_aws_no_longer_reports_stays_known_and_not_offered(refreshed: Hardware) -> None:
    assert refreshed.instances["p3.2xlarge"] == build_hardware().instances["p3.2xlarge"]
    assert refreshed.offered("p3.2xlarge", "us-east-1") is False
    assert ("p3.2xlarge", "us-east-1") not in refreshed.prices


def test_new_types_come_in_and_unknown_gpus_stay_unknown(refreshed: Hardware, summary: Summary) -> None:
    assert "g5g.xlarge" in summary.new_types
    assert summary.unknown_gpus == ["Inferentia", "T4g", "Trainium2"]
    gpu = refreshed.instances["g5g.xlarge"].gpu
    assert gpu is not None
    assert (gpu.name, gpu.memory_bytes, gpu.memory_source) == ("T4g", 16384 << 20, "api")
    assert (gpu.bandwidth, gpu.flops_16bit, gpu.compute_capability, gpu.bf16) == (None, None, None, None)
    neuron = refreshed.instances["inf1.xlarge"].gpu
    assert neuron is not None
    assert neuron.vendor == "neuron"


def test_accelerators_of_other_makers_and_other_cpu_types_are_left_out(refreshed: Hardware) -> None:
    assert not {i.family for i in refreshed.instances.values()} & {"dl2q", "vt1", "g4ad", "dl1", "f2"}
    cpu = {name for name, i in refreshed.instances.items() if i.gpu is None}
    assert cpu == {name for name, i in build_hardware().instances.items() if i.gpu is None}


def test_shares_of_a_gpu_keep_their_share(refreshed: Hardware) -> None:
    assert refreshed.instances["g6f.large"].gpu_count == 0.125
    assert refreshed.instances["g6f.large"].gpu == build_hardware().instances["g6f.large"].gpu


def test_no_local_zone_counts_as_a_zone_of_the_region(refreshed: Hardware) -> None:
    for (_, region), offering in refreshed.offerings.items():
        if region == "us-east-1":
            assert all(zone.startswith("use1-az") for zone in offering.az_ids)


def test_other_regions_are_berth_s_own(refreshed: Hardware) -> None:
    shipped = build_hardware()
    for key, price in shipped.prices.items():
        if key[1] != "us-east-1":
            assert refreshed.prices[key] == price
    for key, offering in shipped.offerings.items():
        if key[1] != "us-east-1":
            assert refreshed.offerings[key] == offering


def test_what_the_api_lacks_is_kept_with_its_date_and_source(refreshed: Hardware) -> None:
    before, after = (h.prices["g4dn.xlarge", "us-east-1"] for h in (build_hardware(), refreshed))
    assert after.spot_interruption == before.spot_interruption == ">20%"
    assert after.as_of["spot_advisor"] == before.as_of["spot_advisor"]
    assert "advisor: same raw file" in after.source
    assert "od: AWS Price List" in after.source


def test_regions_add_up_over_refreshes_and_a_second_replaces_the_first(
    clients: Clients, aws: PriceApis, catalog: Path
) -> None:
    refresh(["us-east-1"], clients, Steps(), NOW)
    refresh(["eu-west-1"], clients, Steps(), NOW)
    aws.on_demand["g5.xlarge", "us-east-1"] = 9.5
    later = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)
    third = refresh(["us-east-1"], clients, Steps(), later)

    hardware = load_hardware()
    assert hardware.origin.regions == ("eu-west-1", "us-east-1")
    assert hardware.prices["g5.xlarge", "us-east-1"].usd_per_hour["on-demand"] == 9.5
    assert hardware.prices["g5.xlarge", "us-east-1"].as_of["on_demand"] == "2026-12-24"
    assert hardware.prices["g5.xlarge", "eu-west-1"].as_of["on_demand"] == "2026-11-24"
    assert third.changed == [("g5.xlarge", "us-east-1", pytest.approx(1.1066), 9.5)]
    assert hardware.prices["g4dn.xlarge", "us-east-1"].source.count("advisor:") == 1
    versions = [path.name for path in catalog.iterdir() if path.is_dir()]
    assert len(versions) == 2, "the version in force and the one before"


def test_a_region_that_berth_ships_nothing_of(clients: Clients, aws: PriceApis) -> None:
    aws.on_demand["g4dn.xlarge", "eu-west-3"] = 0.615
    refresh(["eu-west-3"], clients, Steps(), NOW)
    hardware = load_hardware()
    assert hardware.region("eu-west-3") == "eu-west-3"
    assert [o.usd_per_hour for o in hardware.offers("eu-west-3", ["on-demand"])] == [0.615]


def test_without_a_group_its_rates_stay_and_it_is_not_asked(clients: Clients, aws: PriceApis) -> None:
    refresh(["us-east-1"], clients, Steps(), NOW, without=["savings", "sagemaker", "spot", "services"])
    before, after = (h.prices["g4dn.xlarge", "us-east-1"] for h in (build_hardware(), load_hardware()))
    for pay in ("savings-1y", "savings-3y", "spot"):
        assert after.usd_per_hour[pay] == before.usd_per_hour[pay]
    assert after.sagemaker_hosting == before.sagemaker_hosting
    assert after.terms == before.terms
    for group in ("savings_plan", "spot", "sagemaker"):
        assert after.as_of[group] == before.as_of[group]
    assert after.usd_per_hour["on-demand"] == aws.on_demand["g4dn.xlarge", "us-east-1"]
    assert {service for service, _ in aws.requests} == {"pricing"}
    assert {r["ServiceCode"] for _, r in aws.requests} == {"AmazonEC2"}


def test_every_stage_is_told_and_ends_full(clients: Clients) -> None:
    steps = Steps()
    refresh(["us-east-1", "eu-west-1"], clients, steps, NOW)
    assert len(steps.stages) == 14
    assert all(total == done for _, total, done in steps.stages)
    assert [str(label).partition(":")[0] for label, _, _ in steps.stages] == ["us-east-1"] * 7 + ["eu-west-1"] * 7


def test_only_types_that_the_region_offers_are_priced(clients: Clients, aws: PriceApis) -> None:
    refresh(["eu-west-1"], clients, Steps(), NOW)
    asked = {
        f["Value"]
        for service, request in aws.requests
        if service == "pricing" and request["ServiceCode"] == "AmazonEC2"
        for f in request["Filters"]
        if f["Field"] == "instanceType"
    }
    hardware = load_hardware()
    assert asked == {name for name in hardware.instances if hardware.offered(name, "eu-west-1")}
    assert not asked & {"g6.xlarge", "g6e.xlarge"}


@pytest.mark.parametrize(
    ("regions", "without", "message"),
    [
        (["us-esat-1"], [], "unknown AWS region 'us-esat-1'; did you mean us-east-1"),
        (["us-east-1"], ["reserved"], "unknown group for --without 'reserved'"),
        ([], [], "no region to refresh"),
    ],
)
def test_a_mistake_is_named_before_anything_is_asked(
    clients: Clients, aws: PriceApis, catalog: Path, regions: list[str], without: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        refresh(regions, clients, Steps(), NOW, without=without)
    assert not aws.requests
    assert not catalog.exists()
