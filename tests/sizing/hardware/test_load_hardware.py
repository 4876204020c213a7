"""`load_hardware`: what a caller gets, and what a damaged catalogue says."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.errors import UserError
from sizing.hardware.load import DATA, Hardware, build_hardware, load_hardware
from sizing.hardware.tables import COLUMNS, PRICE_GROUP
from sizing.hardware.types import PAYS, Pay

Edit = Callable[[str, int, str, str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped data, to be spoilt."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


@pytest.fixture
def edit(folder: Path) -> Edit:
    """Puts a value into a file's cell: `edit("prices.csv", 2, "on_demand_usd_h", "abc")`; line 1 is the header."""

    def put(name: str, line: int, column: str, value: str) -> Path:
        path = folder / name
        rows = list(csv.reader(path.read_text().splitlines()))
        rows[line - 1][COLUMNS[name].index(column)] = value
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        return path

    return put


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_hardware(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


class TestWhatACallerGets:
    def test_it_is_read_once_and_again_when_a_file_changes(self, folder: Path, edit: Edit) -> None:
        first = load_hardware(folder)
        assert load_hardware(folder) is first
        edit("prices.csv", 2, "on_demand_usd_h", "123.25")
        again = load_hardware(folder)
        assert again is not first
        assert next(p.usd_per_hour["on-demand"] for p in again.prices.values()) == 123.25

    def test_the_shipped_data_say_so(self) -> None:
        hardware = load_hardware()
        assert hardware.origin.kind == "embedded"
        assert hardware.regions == (
            "ap-northeast-1",
            "eu-central-1",
            "eu-west-1",
            "us-east-1",
            "us-east-2",
            "us-west-2",
        )
        assert set(hardware.regions) - set(hardware.priced_regions) == {"us-east-2"}

    def test_memory_is_what_the_driver_leaves_else_what_aws_reports(self) -> None:
        t4, neuron = (load_hardware().instances[name].gpu for name in ("g4dn.xlarge", "inf2.xlarge"))
        assert t4 is not None
        assert (t4.memory_bytes, t4.memory_source) == (15360 << 20, "nvidia-smi")
        assert t4.api_memory_bytes == 16384 << 20
        assert neuron is not None
        assert (neuron.memory_bytes, neuron.memory_source, neuron.vendor) == (32768 << 20, "api", "neuron")

    @pytest.mark.parametrize(("mib", "known"), [("16200", True), ("15000", True), ("24576", False)])
    def test_a_gpu_is_known_though_aws_reports_it_a_little_differently(
        self, folder: Path, edit: Edit, mib: str, known: bool
    ) -> None:
        edit("instances.csv", 2, "gpu_memory_mib", mib)
        gpu, t4 = load_hardware(folder).instances["g4dn.xlarge"].gpu, load_hardware().instances["g4dn.xlarge"].gpu
        assert gpu is not None
        assert t4 is not None
        assert gpu.api_memory_bytes == int(mib) << 20
        assert (gpu.compute_capability, gpu.bf16) == (7.5, False)
        assert gpu.memory_bytes == (t4.memory_bytes if known else int(mib) << 20)
        assert gpu.bandwidth == (t4.bandwidth if known else None)

    def test_a_share_of_a_gpu_has_its_partition_and_its_share_of_the_speed(self) -> None:
        hardware = load_hardware()
        eighth, whole = hardware.instances["g6f.large"], hardware.instances["g6.xlarge"].gpu
        assert eighth.gpu is not None
        assert whole is not None
        assert (eighth.gpu.memory_bytes, eighth.gpu.memory_source) == (2861 << 20, "api")
        assert (eighth.gpu_count, eighth.gpus) == (0.125, 1)
        assert whole.bandwidth is not None
        assert eighth.gpu.bandwidth == whole.bandwidth / 8
        assert eighth.gpu.compute_capability == whole.compute_capability

    def test_priced_but_offered_nowhere_is_left_out_unless_asked_for(self) -> None:
        hardware = load_hardware()
        assert hardware.offered("p3.2xlarge", "us-east-1") is False
        assert not hardware.offers("us-east-1", types=["p3.2xlarge"])
        assert hardware.offers("us-east-1", types=["p3.2xlarge"], include_not_offered=True)

    def test_unknown_offerings_stay_on_offer(self, folder: Path, edit: Edit) -> None:
        edit("offerings.csv", 2, "az_count", "")
        edit("offerings.csv", 2, "az_ids", "")
        hardware = load_hardware(folder)
        assert hardware.offered("g4dn.xlarge", "us-east-1") is None
        assert hardware.prices["g4dn.xlarge", "us-east-1"].offered is None
        assert hardware.offers("us-east-1", types=["g4dn.xlarge"])

    def test_a_type_without_a_row_of_offerings_is_not_known(self) -> None:
        assert load_hardware().offered("g4dn.xlarge", "mars-north-1") is None

    def test_a_rate_of_other_terms_says_so(self) -> None:
        price = load_hardware().prices["g4dn.xlarge", "us-east-1"]
        assert price.usd_per_hour["savings-1y"] == 0.316
        assert "upfront" in price.terms["savings-1y"]
        assert "reserved-1y" not in price.terms

    def test_what_is_known_and_has_no_price_is_listed(self) -> None:
        hardware = load_hardware()
        assert [i.name for i in hardware.unpriced("us-west-2") if i.family == "p5e"] == ["p5e.48xlarge"]
        assert hardware.unpriced("us-east-1") == []
        assert len(hardware.unpriced("us-east-2")) == 75
        assert hardware.offers("us-east-2") == []

    def test_a_region_and_a_type_are_found_whatever_their_case(self) -> None:
        hardware = load_hardware()
        assert hardware.region(" EU-West-1 ") == "eu-west-1"
        assert hardware.instance("G4DN.xlarge").name == "g4dn.xlarge"

    def test_an_unknown_name_offers_the_nearest(self) -> None:
        hardware = load_hardware()
        with pytest.raises(UserError, match=r"unknown instance type 'g4dn.2xlrge'; did you mean .*g4dn\.2xlarge"):
            hardware.instance("g4dn.2xlrge")
        with pytest.raises(UserError, match=r"unknown region 'us-esat-1'; did you mean us-east-1"):
            hardware.region("us-esat-1")
        with pytest.raises(UserError, match="unknown region"):
            hardware.offers("")


@given(
    region=st.sampled_from(build_hardware().regions),
    pays=st.sets(st.sampled_from(PAYS)),
    include=st.booleans(),
)
def test_offers_are_sorted_of_the_ways_asked_and_the_data_s_own_rates(
    region: str, pays: set[Pay], include: bool
) -> None:
    hardware: Hardware = load_hardware()
    offers = hardware.offers(region, pays, include_not_offered=include)
    assert [o.usd_per_hour for o in offers] == sorted(o.usd_per_hour for o in offers)
    for offer in offers:
        assert offer.pay in pays
        assert offer.region == region
        assert offer.usd_per_hour == hardware.prices[offer.instance.name, region].usd_per_hour[offer.pay]
        assert include or hardware.offered(offer.instance.name, region) is not False
    assert len({(o.instance.name, o.pay) for o in offers}) == len(offers)


class TestDamage:
    @pytest.mark.parametrize("name", ["instances.csv", "prices.csv", "offerings.csv"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert refusal(folder) == f"{folder / name} is missing"

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        assert "cannot be read" in refusal(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", sorted(COLUMNS))
    @pytest.mark.parametrize("content", ["", "\n", " \n\n"])
    def test_an_empty_file(self, folder: Path, name: str, content: str) -> None:
        (folder / name).write_text(content)
        assert refusal(folder) == f"{folder / name} is empty"

    @pytest.mark.parametrize("name", sorted(COLUMNS))
    def test_a_header_alone(self, folder: Path, name: str) -> None:
        (folder / name).write_text((folder / name).read_text().splitlines()[0] + "\n")
        assert "no rows" in refusal(folder)

    @pytest.mark.parametrize("name", sorted(COLUMNS))
    def test_a_file_that_is_cut_within_a_line(self, folder: Path, name: str) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) * 2 // 3].rstrip(b"\n"))
        assert name in refusal(folder)

    def test_a_line_that_is_cut(self, folder: Path) -> None:
        lines = (folder / "prices.csv").read_text().splitlines()
        (folder / "prices.csv").write_text("\n".join([*lines[:5], "g5.xlarge,us-east-1,1.006", *lines[6:]]) + "\n")
        assert refusal(folder) == f"{folder / 'prices.csv'}, line 6: 3 cells where the header has 32"

    def test_a_quote_that_is_never_closed(self, folder: Path) -> None:
        with (folder / "prices.csv").open("a") as file:
            file.write('g5.xlarge,us-east-1,"1.006\n')
        assert "prices.csv, line 26" in refusal(folder)

    def test_bytes_that_are_no_text(self, folder: Path) -> None:
        (folder / "prices.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
        assert "not UTF-8" in refusal(folder)

    def test_a_column_that_is_gone_or_unknown(self, folder: Path) -> None:
        text = (folder / "prices.csv").read_text()
        (folder / "prices.csv").write_text(text.replace("on_demand_usd_h", "on_demand", 1))
        assert "line 1: the header lacks on_demand_usd_h" in refusal(folder)
        (folder / "prices.csv").write_text(text.replace(",source\n", ",source,colour\n", 1))
        assert "line 1: the header has unknown colour" in refusal(folder)

    @pytest.mark.parametrize(
        ("name", "column", "value", "problem"),
        [
            ("prices.csv", "on_demand_usd_h", "abc", "'abc' is not a number"),
            ("prices.csv", "on_demand_usd_h", "0,526", "'0,526' is not a number"),
            ("prices.csv", "on_demand_usd_h", "nan", "'nan' is not a finite number"),
            ("prices.csv", "spot_usd_h", "inf", "'inf' is not a finite number"),
            ("prices.csv", "reserved_1y_no_upfront_usd_h", "-0.3", "-0.3 is negative"),
            ("prices.csv", "on_demand_usd_h", "0", "0 is no price"),
            ("prices.csv", "on_demand_as_of", "", "is empty, but on_demand_usd_h has a rate"),
            ("prices.csv", "on_demand_as_of", "20.7.2026", "'20.7.2026' is neither a date"),
            ("prices.csv", "on_demand_as_of", "2026-13", "is neither a date"),
            ("prices.csv", "on_demand_as_of", "2026-02-30", "is neither a date"),
            ("prices.csv", "instance_type", "g9.mega", "g9.mega is not in instances.csv"),
            ("prices.csv", "region", "", "is empty"),
            ("prices.csv", "source", "", "is empty"),
            ("offerings.csv", "instance_type", "g9.mega", "g9.mega is not in instances.csv"),
            ("offerings.csv", "az_count", "7", "says 7, az_ids names 5"),
            ("offerings.csv", "az_count", "2.5", "is not a whole number"),
            ("instances.csv", "memory_gib", "", "is empty"),
            ("instances.csv", "memory_gib", "0", "must be more than 0"),
            ("instances.csv", "vcpus", "", "must be 1 or more"),
            ("instances.csv", "gpu_count", "0", "must be more than 0"),
            ("instances.csv", "gpu_memory_mib", "", "the memory of T4 is not known"),
            ("instances.csv", "efa", "maybe", "neither yes, no nor empty"),
            ("instances.csv", "instance_type", "g4dn", "not of the form family.size"),
            ("accelerators.csv", "vendor", "acme", "neither nvidia nor neuron"),
            ("accelerators.csv", "bandwidth_gb_s", "fast", "'fast' is not a number"),
            ("capacity_blocks.csv", "usd_h", "", "is empty"),
            ("capacity_blocks.csv", "instance_type", "g9.mega", "g9.mega is not in instances.csv"),
        ],
    )
    def test_a_bad_cell_names_file_line_and_column(
        self, folder: Path, edit: Edit, name: str, column: str, value: str, problem: str
    ) -> None:
        edit(name, 2, column, value)
        message = refusal(folder)
        assert message.startswith(f"{folder / name}, line 2, column ")
        assert column in message
        assert problem in message

    def test_a_row_that_comes_twice(self, folder: Path) -> None:
        lines = (folder / "prices.csv").read_text().splitlines()
        (folder / "prices.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
        assert f"line {len(lines) + 1}" in refusal(folder)
        assert "comes a second time" in refusal(folder)

    @given(data=st.data())
    def test_a_cut_or_scrambled_file_is_refused_in_one_line_or_read_whole(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = Path(shutil.copytree(DATA, tmp_path_factory.mktemp("cut") / "data"))
        name = data.draw(st.sampled_from(sorted(COLUMNS)))
        whole = (folder / name).read_bytes()
        start = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(1, 400))
        junk = data.draw(st.binary(max_size=8))
        (folder / name).write_bytes(whole[:start] + junk + whole[start + length :])
        try:
            hardware = build_hardware(folder)
        except UserError as error:
            assert "\n" not in str(error)
            assert name in str(error) or "instances.csv" in str(error)
        else:
            for price in hardware.prices.values():
                assert all(rate > 0 for rate in [*price.usd_per_hour.values(), *price.effective.values()])


def test_every_rate_column_belongs_to_a_dated_group() -> None:
    columns = COLUMNS["prices.csv"]
    assert {column for column in columns if column.endswith("_usd_h")} == set(PRICE_GROUP)
    assert {f"{group}_as_of" for group in PRICE_GROUP.values()} <= set(columns)
