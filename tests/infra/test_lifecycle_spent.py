"""What a stack has cost: hours times prices, machines by their own lives, and nothing invented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from infra_projects import INFERENCE, Project
from lifecycle_sandbox import World

from infra.bill.bill import Bill, bill_of
from infra.bill.lines import MONTH
from infra.lifecycle.engine import Resource
from infra.lifecycle.spent import Life, lives_of_machines, spent, standing_bill
from infra.stack_files import read_stack

SINCE = datetime(2026, 11, 24, 8, tzinfo=UTC)
LATER = SINCE + timedelta(hours=3)


def of_plan(project: Project, **values: Any) -> tuple[Bill, tuple[Resource, ...]]:
    plan = project.plan({**INFERENCE, **values})
    made = SINCE.strftime("%Y-%m-%dT%H:%M:%SZ")
    found = tuple(
        Resource(r.type, r.name, f"{r.name}-id", r.urn, r.parent, inputs=r.inputs, created=made)
        for r in plan.resources
        if r.custom
    )
    return standing_bill("trial", "us-east-1", plan.settings, found, LATER), found


def test_three_hours_cost_three_times_an_hour(project: Project) -> None:
    bill, resources = of_plan(project)
    found = spent(bill, resources, LATER)
    assert (found.since, found.at) == (SINCE, LATER)
    assert found.usd == pytest.approx(bill.per_hour * 3)
    plan = project.plan(INFERENCE)
    assert bill.per_hour == bill_of(plan).per_hour  # what stands is priced as what was planned


def test_a_machine_that_has_ended_costs_until_then(project: Project) -> None:
    bill, resources = of_plan(project)
    whole = spent(bill, resources, LATER)
    cut = spent(bill, resources, LATER, {"trial-host-instance": Life(SINCE, SINCE + timedelta(hours=1))})
    lines = [x for x in bill.with_status("priced") if x.resource == "trial-host-instance"]
    assert len(lines) == 2  # the machine and its disk
    assert whole.usd - cut.usd == pytest.approx(sum(x.per_hour or Decimal(0) for x in lines) * 2)


def test_office_hours_count_with_their_average(project: Project) -> None:
    bill, resources = of_plan(project, schedule="Mon-Fri 08:00-18:00 UTC")
    machine = next(x for x in bill.with_status("priced") if x.item.startswith("g4dn.2xlarge"))
    found = next(x for x in spent(bill, resources, LATER).lines if x.item == machine.item)
    assert machine.per_month is not None
    assert found.usd == pytest.approx(machine.per_month / MONTH * 3)
    assert machine.per_hour is not None
    assert found.usd < machine.per_hour * 3


def test_what_nobody_dates_or_prices_is_named_and_counts_nothing(project: Project) -> None:
    bill, resources = of_plan(project)
    undated = tuple(Resource(r.type, r.name, r.id, inputs=r.inputs) for r in resources)
    found = spent(bill, undated, LATER)
    assert (found.usd, found.since, found.lines) == (Decimal(0), None, ())
    assert len(found.unpriced) == len(bill.with_status("priced")) + len(bill.with_status("unpriced"))
    assert all(name.split(": ")[0].startswith("trial-") for name in found.by_use)


def test_lives_are_those_that_ec2_tells(world: World) -> None:
    running, ended = world.machine("trial"), world.machine("trial")
    world.aws.client("ec2").terminate_instances(InstanceIds=[ended])
    resources = [Resource("aws:ec2/instance:Instance", name, id_) for name, id_ in (("a", running), ("b", ended))]
    resources.append(Resource("aws:ec2/instance:Instance", "forgotten", "i-00000000"))
    found = lives_of_machines(resources, world.aws)
    assert found.keys() == {"a", "b"}
    assert found["a"].until is None
    assert found["b"].until is not None
    assert found["b"].hours(found["b"].since + timedelta(days=9)) < 1


def test_a_stack_file_with_its_state_gives_the_same_bill(project: Project) -> None:
    plan = project.plan(INFERENCE)
    settings = read_stack("trial", project.root).settings
    assert standing_bill("trial", plan.region, settings, (), LATER).lines == ()
