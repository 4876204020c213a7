"""The bill: recomputed by hand, at the cent, with what has no price left out and said."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from infra_projects import ENDPOINT, INFERENCE, STACKS, TRAINING, Project, committed

from infra.bill.bill import Bill, bill_of, difference
from infra.bill.lines import USAGE_KEYS, Line, Usage, cents, read_usage
from infra.plan import UNKNOWN, PlannedResource
from infra.preview import preview_stack
from infra.prices.table import ServicePrices, load_services
from sizing.errors import UserError
from sizing.hardware.load import load_hardware

INSTANCE = "aws:ec2/instance:Instance"
COUNTED = [k.key for k in USAGE_KEYS if k.key not in ("endpoint_hours", "hours_per_month")]
"""Use that adds to a bill; the others say how long machines run."""


def line(bill: Bill, item: str) -> Line:
    found = [x for x in bill.lines if item in x.item]
    assert len(found) == 1, [x.item for x in bill.lines]
    return found[0]


def test_the_reference_stack_by_hand() -> None:
    """g4dn.2xlarge in office hours, one disk, a NAT gateway with its address, a zone, five alarms, a dashboard."""
    bill = bill_of(committed("inference-dev"))
    hours = Decimal(str(round(5 * 10 * 365 / 7 / 12, 4)))  # Monday to Friday, ten hours, an average month
    machine = Decimal("0.752") * hours
    disk = Decimal(110) * Decimal("0.08")
    nat, address = Decimal("0.045") * 730, Decimal("0.005") * 730
    rest = Decimal("0.50") + 5 * Decimal("0.10") + Decimal(3)
    assert cents(line(bill, "g4dn.2xlarge").per_month or Decimal(0)) == cents(machine) == Decimal("163.38")
    assert cents(bill.per_month) == cents(machine + disk + nat + address + rest) == Decimal("212.68")
    hour = Decimal("0.752") + (disk + rest) / 730 + Decimal("0.045") + Decimal("0.005")
    assert round(bill.per_hour, 12) == round(hour, 12)
    # At worst nobody ever stops it: every hour of the month.
    assert cents(bill.worst_case) == cents(Decimal("0.752") * 730 + disk + nat + address + rest) == Decimal("598.26")
    assert bill.with_status("unpriced") == []


def test_the_reservation_of_the_production_stack_by_hand() -> None:
    bill = bill_of(committed("inference-prod"))
    hosts = line(bill, "g4dn.2xlarge (reserved-1y)")
    assert hosts.per_month == 2 * Decimal("0.474") * 730
    # Two more under load come at the on-demand rate: nothing is reserved for them.
    assert hosts.worst_per_hour == 2 * Decimal("0.474") + 2 * Decimal("0.752")
    assert line(bill, "ALB").per_month == Decimal("0.0225") * 730


def test_a_training_run_by_hand() -> None:
    bill = bill_of(committed("training"))
    day = 24 + Decimal(10) / 60  # at worst the machine is gone ten minutes after its expiry
    assert bill.hours == day
    node, disk = Decimal("21.957642"), Decimal(110) * Decimal("0.08") / 730
    assert line(bill, "p4d.24xlarge").until(bill.worst_hours) == node * day
    rest = (3 * Decimal("0.10") + Decimal(3)) / 730 + Decimal("0.05")
    assert cents(bill.worst_case) == cents((node + disk + rest) * day)
    assert bill.month_to_compare == bill.worst_case, "it ends long before the month does"


def test_an_endpoint_costs_sagemaker_s_rate_and_less_when_it_sleeps() -> None:
    awake = line(bill_of(committed("endpoint-prod")), "hosting")
    assert awake.per_month == Decimal("0.94") * 730
    asleep = line(bill_of(committed("endpoint-prod"), usage=Usage({"endpoint_hours": Decimal(50)})), "hosting")
    assert asleep.per_month == Decimal("0.94") * 50
    assert asleep.worst_per_hour == awake.worst_per_hour


@pytest.mark.parametrize("name", STACKS)
def test_sums_are_those_of_the_priced_lines_and_every_price_has_a_source_and_date(name: str) -> None:
    bill = bill_of(committed(name))
    priced = bill.with_status("priced")
    assert bill.per_month == sum((x.per_month for x in priced if x.per_month is not None), Decimal(0))
    for each in priced:
        assert each.source and each.as_of and each.rate is not None and each.rate > 0
        assert each.per_hour is not None and each.worst_per_hour is not None
        assert each.worst_per_hour >= 0
    for each in bill.lines:
        if each.status != "priced":
            assert each.per_hour is each.per_month is each.worst_per_hour is None


def budgeted(per_month: str, budget: str, run: str = "0", budget_per_run: str | None = None) -> Bill:
    whole = Line(
        "a",
        INSTANCE,
        "x",
        "priced",
        Decimal(1),
        "hour",
        Decimal(1),
        Decimal(per_month) / 730,
        Decimal(per_month),
        Decimal(run) / 10,
    )
    return Bill(
        "s",
        "us-east-1",
        (whole,),
        None if run == "0" else Decimal(10),
        None,
        Decimal(budget),
        Decimal(budget_per_run or 0) or None,
    )


def test_the_budget_is_crossed_at_the_cent() -> None:
    assert budgeted("100.00", "100").over_budget() == ""
    assert budgeted("100.004", "100").over_budget() == "", "an invoice rounds to the cent"
    assert budgeted("100.01", "100").over_budget() == "$100.01 a month is $0.01 over budget_per_month (100)"
    assert budgeted("99.99", "100").over_budget() == ""


def test_the_budget_of_a_run_is_crossed_at_the_cent() -> None:
    assert budgeted("5", "100", "50.00", "50").over_budget() == ""
    assert "$0.01 over budget_per_run (50)" in budgeted("5", "100", "50.01", "50").over_budget()
    assert budgeted("5", "100", "50.01").over_budget() == "", "no budget for a run was given"


def test_the_budget_of_a_committed_stack_crosses_where_its_bill_stands(project: Project) -> None:
    month = cents(bill_of(project.plan(INFERENCE)).per_month)
    floor = int(month)
    assert floor < month < floor + 1
    assert bill_of(project.plan({**INFERENCE, "budget_per_month": floor + 1})).over_budget() == ""
    over = bill_of(project.plan({**INFERENCE, "budget_per_month": floor})).over_budget()
    assert over.startswith(f"${month:,.2f} a month is ${month - floor:,.2f} over")


def test_another_region_s_missing_price_is_unpriced_and_never_a_neighbour_s(project: Project) -> None:
    bill = bill_of(project.plan({**INFERENCE, "zones": ["euw1-az1"]}, "eu-west-1"))
    unpriced = {x.item for x in bill.with_status("unpriced")}
    assert {"alarm", "dashboard", "custom metrics"} <= unpriced
    assert line(bill, "gp3 110 GiB").per_month == 110 * Decimal("0.088"), "Ireland's own price"
    assert line(bill, "g4dn.2xlarge").per_hour == Decimal(
        str(load_hardware().prices["g4dn.2xlarge", "eu-west-1"].usd_per_hour["on-demand"])
    )
    assert all(x.per_month is None for x in bill.with_status("unpriced"))
    document = bill.to_json()
    assert any("dashboard" in text for text in document["unpriced"])


def test_a_way_of_paying_without_a_rate_is_unpriced(project: Project) -> None:
    bill = bill_of(project.plan({**ENDPOINT, "purchase": "savings-1y"}))
    assert "savings-1y" in line(bill, "hosting").note
    assert line(bill, "hosting").status == "unpriced"


def test_a_type_that_no_pricer_knows_is_listed(project: Project) -> None:
    plan = project.plan(INFERENCE)
    stranger = PlannedResource(
        "urn:pulumi:trial::berth::aws:rds/instance:Instance::db", "aws:rds/instance:Instance", "db", "", {}
    )
    bill = bill_of(replace(plan, resources=(*plan.resources, stranger)))
    assert "db: aws:rds/instance:Instance" in bill.to_json()["unpriced"]


def test_spot_is_billed_at_its_mean_and_at_worst_like_on_demand(project: Project) -> None:
    price = load_hardware().prices["g4dn.2xlarge", "us-east-1"]
    machine = line(bill_of(project.plan({**INFERENCE, "purchase": "spot"})), "spot")
    assert machine.per_hour == Decimal(str(price.usd_per_hour["spot"]))
    assert machine.worst_per_hour == Decimal(str(price.usd_per_hour["on-demand"]))
    assert machine.as_of == price.as_of["spot"]


def test_a_capacity_block_costs_its_own_rate(project: Project) -> None:
    values = {**TRAINING, "purchase": "capacity-block", "capacity_block_id": "cr-0a1b", "zones": ["use2-az1"]}
    machine = line(bill_of(project.plan(values, "us-east-2")), "capacity-block")
    assert machine.rate == Decimal("14.75")
    assert "paid up front" in machine.note


def test_interface_endpoints_cost_by_the_zone(project: Project) -> None:
    bill = bill_of(project.plan({**INFERENCE, "egress": "endpoints", "replicas": 2}))
    each = [x for x in bill.lines if x.item == "interface endpoint"]
    assert len(each) == 10
    assert all(x.per_hour == Decimal("0.01") * 2 for x in each)


def test_disks_beyond_the_free_iops_and_throughput(project: Project) -> None:
    plan = project.plan(INFERENCE)
    machine = plan.of_type(INSTANCE)[0]
    fast = {**machine.inputs["rootBlockDevice"], "iops": 4000, "throughput": 130}
    changed = replace(machine, inputs={**machine.inputs, "rootBlockDevice": fast})
    bill = bill_of(replace(plan, resources=(changed,)))
    assert line(bill, "IOPS").per_month == Decimal(1000) * Decimal("0.005") == Decimal(5)
    assert line(bill, "throughput").per_month == Decimal(5) * Decimal("0.04") == Decimal("0.2")


def test_a_usage_file_turns_rates_into_dollars(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "usage.yaml"
    path.write_text("log_gb: 12\nnat_gb: 100\nartifact_storage_gb: 40\nemail_notifications: 20\n", encoding="utf-8")
    usage = read_usage(path)
    bill = bill_of(committed("inference-dev"), usage=usage)
    assert line(bill, "logs written").per_month == Decimal(12) * Decimal("0.50")
    assert line(bill, "NAT traffic").per_month == Decimal(100) * Decimal("0.045")
    shared = bill_of(committed("shared"), usage=usage)
    assert line(shared, "S3 storage").per_month == Decimal(40) * Decimal("0.023")
    assert next(x for x in bill.lines if x.item == "e-mail").status == "free"


def test_without_a_usage_file_the_rate_is_shown_and_nothing_is_counted() -> None:
    nat = line(bill_of(committed("inference-dev")), "NAT traffic")
    assert (nat.status, nat.rate, nat.per_month) == ("usage", Decimal("0.045"), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("log_gbs: 1\n", "did you mean log_gb"),
        ("log_gb: -1\n", "0 or more"),
        ("log_gb: many\n", "number of GB"),
        ("log_gb: true\n", "number of GB"),
        ("log_gb: .nan\n", "number of GB"),
        ("[1]\n", "holds no keys"),
    ],
)
def test_a_usage_file_that_is_wrong_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "usage.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_usage(path)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(COUNTED), st.integers(0, 10**6)))
def test_more_use_never_costs_less(usage: dict[str, int]) -> None:
    plan = committed("inference-dev")
    less = bill_of(plan, usage=Usage({k: Decimal(v) for k, v in usage.items()}))
    more = bill_of(plan, usage=Usage({k: Decimal(2 * v + 1) for k, v in usage.items()}))
    assert bill_of(plan).per_month <= less.per_month <= more.per_month
    assert less.worst_case >= less.per_month


def test_no_price_at_all_leaves_every_line_unpriced_and_the_sum_at_nothing() -> None:
    plan = committed("inference-dev")
    hardware = replace(load_hardware(), prices={}, _offers={})
    bill = bill_of(plan, hardware=hardware, prices=ServicePrices({}))
    assert bill.with_status("priced") == []
    assert bill.per_month == 0 and len(bill.with_status("unpriced")) >= 10


def previewed(project: Project, old: dict[str, Any] | None, new: dict[str, Any]) -> Path:
    """A file as `pulumi preview --json` writes it, from two plans; ids of what does not exist yet are unknown."""

    def state(resource: PlannedResource) -> dict[str, Any]:
        text = json.dumps(resource.inputs).replace(f"{resource.name}-template-id", UNKNOWN)
        return {
            "urn": resource.urn, "type": resource.type, "custom": resource.custom, "inputs": json.loads(text),
            "parent": resource.parent or "urn:pulumi:trial::berth::pulumi:pulumi:Stack::berth-trial",
        }  # fmt: skip

    before = {} if old is None else {r.urn: r for r in project.plan(old).resources}
    after = {r.urn: r for r in project.plan(new).resources}
    steps = []
    for urn in sorted({*before, *after}):
        a, b = before.get(urn), after.get(urn)
        op = "create" if a is None else "delete" if b is None else "same" if a.inputs == b.inputs else "update"
        steps.append(
            {"op": op, "urn": urn, **({"oldState": state(a)} if a else {}), **({"newState": state(b)} if b else {})}
        )
    path = project.root / "preview.json"
    path.write_text(json.dumps({"config": {}, "steps": steps, "changeSummary": {}}), encoding="utf-8")
    return path


def test_a_larger_machine_shows_as_the_difference_of_its_rate(project: Project) -> None:
    path = previewed(project, INFERENCE, {**INFERENCE, "instance_type": "g4dn.4xlarge"})
    found = preview_stack("trial", project.root, previewed=path)
    assert found.changes is not None
    assert [(c.line.item, cents(c.per_month)) for c in found.changes] == [
        ("g4dn.4xlarge (on-demand)", cents((Decimal("1.204") - Decimal("0.752")) * 730))
    ]
    assert found.to_json()["change"]["usd_per_month"] == pytest.approx(329.96)


def test_a_first_up_adds_everything_and_a_change_of_nothing_adds_nothing(project: Project) -> None:
    first = preview_stack("trial", project.root, previewed=previewed(project, None, INFERENCE))
    assert first.before is not None and first.before.per_month == 0
    assert sum(c.per_month for c in first.changes or ()) == first.bill.per_month
    again = preview_stack("trial", project.root, previewed=previewed(project, INFERENCE, INFERENCE))
    assert again.changes == ()


def test_what_is_removed_counts_back(project: Project) -> None:
    path = previewed(project, INFERENCE, {**INFERENCE, "egress": "endpoints"})
    changes = {(c.line.item): c for c in preview_stack("trial", project.root, previewed=path).changes or ()}
    assert changes["NAT gateway"].per_month == -Decimal("0.045") * 730
    assert changes["interface endpoint"].to_json()["change"] == "adds"


def test_the_changes_add_up_to_the_difference_of_the_months(project: Project) -> None:
    usage = Usage({"log_gb": Decimal(3), "log_stored_gb": Decimal(5), "nat_gb": Decimal(7)})
    old, new = project.plan(INFERENCE), project.plan({**INFERENCE, "disk_gib": 200, "purchase": "spot", "replicas": 2})
    before, after = bill_of(old, usage=usage), bill_of(new, usage=usage)
    changes = difference(before, after)
    assert sum(c.per_month for c in changes) == after.per_month - before.per_month
    fast = {**old.of_type(INSTANCE)[0].inputs["rootBlockDevice"], "volumeSize": 500, "iops": 9000, "throughput": 500}
    machine = replace(old.of_type(INSTANCE)[0], inputs={**old.of_type(INSTANCE)[0].inputs, "rootBlockDevice": fast})
    others = tuple(r for r in old.resources if r.type != INSTANCE)
    faster = bill_of(replace(old, resources=(*others, machine)), usage=usage)
    disks = difference(before, faster)
    assert sum(c.per_month for c in disks) == faster.per_month - before.per_month
    assert [c.line.item for c in disks] == ["gp3 500 GiB", "gp3 IOPS", "gp3 throughput"]
    assert disks[0].before is not None, "a larger disk is the same disk"


def test_the_bill_of_the_engine_s_preview_is_that_of_the_plan(project: Project) -> None:
    for values in ({**INFERENCE, "replicas": 2}, {**TRAINING, "nodes": 2}):
        path = previewed(project, None, values)
        found = preview_stack("trial", project.root, previewed=path)
        plan = project.plan(values)
        assert found.bill.per_month == bill_of(plan).per_month
        assert [v.message for v in found.refused] == []


def test_the_difference_of_a_bill_to_itself_is_empty() -> None:
    bill = bill_of(committed("inference-prod"))
    assert difference(bill, bill) == []


def test_prices_of_services_are_whole() -> None:
    prices = load_services().all()
    assert len(prices) >= 30
    here = {(p.service, p.item) for p in prices if p.region in ("us-east-1", "*")}
    for wanted in (
        ("ec2", "nat_gateway"), ("ec2", "interface_endpoint"), ("ec2", "public_ipv4"), ("ec2", "gp3_storage"),
        ("ec2", "gp3_iops"), ("ec2", "gp3_throughput"), ("elb", "alb"), ("elb", "nlb"), ("kms", "key"),
        ("logs", "ingested"), ("cloudwatch", "alarm"), ("cloudwatch", "dashboard"), ("s3", "storage"), ("sns", "email"),
        ("transfer", "internet_out"), ("route53", "zone"), ("ecr", "storage"),
    ):  # fmt: skip
        assert wanted in here, wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("service,item\n", "the header lacks region"),
        ("{head}ec2,nat,us-east-1,hour,0,2024-07-01,,x\n", "above 0"),
        ("{head}ec2,nat,us-east-1,hour,free,2024-07-01,,x\n", "no number"),
        ("{head}ec2,nat,us-east-1,hour,0.1,yesterday,,x\n", "neither a date"),
        ("{head}ec2,nat,us-east-1,hour,0.1,2024-07-01,,\n", "column source: is empty"),
        ("{head}ec2,nat,us-east-1,ho", "is cut off"),
        ("{head}" + 2 * "ec2,nat,us-east-1,hour,0.1,2024-07-01,,x\n", "twice"),
    ],
)
def test_a_price_file_that_is_cut_or_wrong_says_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "services.csv"
    path.write_text(text.replace("{head}", "service,item,region,unit,usd,as_of,note,source\n"), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        load_services(path)
