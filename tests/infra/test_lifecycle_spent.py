"""What a stack has cost: hours times prices, machines by their own lives, and nothing invented."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from infra_projects import INFERENCE, Project
from lifecycle_sandbox import World

from infra.bill.bill import Bill, bill_of
from infra.bill.lines import MONTH
from infra.lifecycle.engine import Resource
from infra.lifecycle.lives import Life, lives_of_machines
from infra.lifecycle.spent import spent, standing_bill
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
    ended = SINCE + timedelta(hours=1)
    cut = spent(bill, resources, LATER, {"trial-host-instance": Life(SINCE, ended, ended)})
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
    found = lives_of_machines(resources, world.aws, LATER)
    assert found.keys() == {"a", "b"}
    assert found["a"].until is None
    assert found["b"].until is not None
    assert found["b"].hours(found["b"].since + timedelta(days=9)) < 1


class Told:
    """AWS with one machine, as EC2 describes it, and the status checks that CloudWatch has of it, by the hour."""

    endpoint, region, account = None, "us-east-1", "123456789012"

    def __init__(self, machine: Mapping[str, Any], checks: Mapping[datetime, float] | None = None) -> None:
        self.machine, self.checks, self.asked = machine, checks or {}, 0

    def client(self, _service: str) -> Any:
        return self

    def get_paginator(self, _name: str) -> Any:
        return self

    def paginate(self, Filters: list[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803
        known = [self.machine] if self.machine["InstanceId"] in Filters[0]["Values"] else []
        return [{"Reservations": [{"Instances": known}]}]

    def get_metric_statistics(self, StartTime: datetime, EndTime: datetime, **_asked: Any) -> Any:  # noqa: N803
        self.asked += 1
        points = [{"SampleCount": n} for at, n in self.checks.items() if StartTime <= at < EndTime]
        return {"Datapoints": points}


def a_machine(launched: datetime, state: str = "running", reason: str = "", made: datetime | None = None) -> Any:
    disks = [{"DeviceName": "/dev/xvda", "Ebs": {"AttachTime": made}}] if made else []
    return {
        "InstanceId": "i-1", "LaunchTime": launched, "State": {"Name": state}, "StateTransitionReason": reason,
        "BlockDeviceMappings": disks, "NetworkInterfaces": [],
    }  # fmt: skip


HOST = "trial-host-instance"
RESTARTED = SINCE + timedelta(hours=2)


def life_of(told: Told, created: str = "") -> Life:
    machine = Resource("aws:ec2/instance:Instance", HOST, "i-1", created=created)
    return lives_of_machines([machine], told, LATER)[HOST]


def test_a_machine_that_was_stopped_counts_what_it_ran_before_by_its_status_checks(project: Project) -> None:
    bill, resources = of_plan(project)
    whole, told = spent(bill, resources, LATER), Told(a_machine(RESTARTED, made=SINCE), {SINCE: 30.0})
    found = spent(bill, resources, LATER, {HOST: life_of(told)})
    machine, disk = (next(x for x in found.lines if x.item.startswith(kind)) for kind in ("g4dn", "gp3"))
    assert (machine.hours, disk.hours) == (Decimal("1.5"), Decimal(3))  # its disk stood all the time
    assert found.missing == () and found.usd < whole.usd
    # Of one that was never stopped nothing more is asked.
    assert (life_of(fresh := Told(a_machine(SINCE, made=SINCE))).started, fresh.asked) == (None, 0)


@pytest.mark.parametrize("created", ["", SINCE.strftime("%Y-%m-%dT%H:%M:%SZ")])
def test_hours_that_nobody_tells_make_it_the_least_and_say_how_much_more(project: Project, created: str) -> None:
    bill, resources = of_plan(project)
    life = life_of(Told(a_machine(RESTARTED, made=None if created else SINCE)), created)
    found = spent(bill, resources, LATER, {HOST: life})
    assert next(x for x in found.lines if x.item.startswith("g4dn")).hours == 1
    (said,) = found.missing
    assert "stopped and started again at 2026-11-24T10:00:00Z" in said and "at most 2.0 h more, $1.50" in said
    document = found.to_json()
    assert (document["at_least"], document["missing"]) == (True, [said])


def test_a_stopped_machine_costs_its_disk_and_office_hours_count_since_it_was_made(project: Project) -> None:
    bill, resources = of_plan(project)
    stopped = a_machine(SINCE, "stopped", "User initiated (2026-11-24 09:00:00 GMT)", SINCE)
    found = spent(bill, resources, LATER, {HOST: life_of(Told(stopped))})
    assert {x.item[:4]: x.hours for x in found.lines if x.resource == HOST} == {"g4dn": 1, "gp3 ": 3}
    bill, resources = of_plan(project, schedule="Mon-Fri 08:00-18:00 UTC")
    found = spent(bill, resources, LATER, {HOST: life_of(Told(a_machine(RESTARTED, made=SINCE)))})
    assert next(x for x in found.lines if x.item.startswith("g4dn")).hours == 3
    assert found.missing == ()


def test_a_machine_that_ec2_has_forgotten_counts_what_it_ran_or_the_most_that_it_can_have(project: Project) -> None:
    bill, resources = of_plan(project)
    gone = Resource("aws:ec2/instance:Instance", HOST, "i-2", created=SINCE.strftime("%Y-%m-%dT%H:%M:%SZ"))
    told = Told(a_machine(SINCE), {SINCE: 45.0})
    known = lives_of_machines([gone], told, LATER)[HOST]
    assert (known.sure, known.ran_hours(LATER), known.hours(LATER)) == (True, Decimal("0.75"), Decimal("0.75"))
    by = SINCE + timedelta(hours=1)
    unknown = lives_of_machines([gone], Told(a_machine(SINCE)), LATER, by)[HOST]
    found = spent(bill, resources, LATER, {HOST: unknown})
    assert next(x for x in found.lines if x.item.startswith("g4dn")).hours == 1
    assert found.to_json()["at_most"] == [
        f"{HOST}: EC2 knows it no more, and when it ended is not known: it is counted until 2026-11-24T09:00:00Z"
    ]


def test_a_machine_that_is_younger_than_its_stack_may_have_replaced_one(project: Project) -> None:
    bill, resources = of_plan(project)
    found = spent(bill, resources, LATER, {HOST: Life(RESTARTED)})
    assert found.missing == (
        f"{HOST}: it was made at 2026-11-24T10:00:00Z, later than its stack; a machine that it has replaced is not "
        "counted",
    )


def test_what_came_under_load_is_said_not_to_be_counted(project: Project) -> None:
    bill, resources = of_plan(project, replicas=2, max_replicas=4, callers=["10.0.0.0/8"])
    found = spent(bill, resources, LATER)
    assert any("counted with 2 × g4dn.2xlarge (on-demand); what came under load is not" in x for x in found.missing)


def test_a_stack_file_with_its_state_gives_the_same_bill(project: Project) -> None:
    plan = project.plan(INFERENCE)
    settings = read_stack("trial", project.root).settings
    assert standing_bill("trial", plan.region, settings, (), LATER).lines == ()
