"""What stacks promise besides their shape: spot hosts that drain, logs of the network, office hours, wake-ups."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from infra_projects import ENDPOINT, INFERENCE, Project

from infra.egress import choose_egress
from infra.plan import Plan
from infra.prices.table import ServicePrices, UnitPrice

SCRIPT = (Path(__file__).parent / "golden" / "inference-dev.user-data.sh").read_text(encoding="utf-8")


def drained(tmp_path: Path, target_group: str) -> list[str]:
    """What the host's drain script calls when AWS announces the end at its third look."""
    script = SCRIPT.split("<<'BERTH_DRAIN'\n")[1].split("\nBERTH_DRAIN\n", maxsplit=1)[0]
    calls, looks, tools = tmp_path / "calls", tmp_path / "looks", tmp_path / "bin"
    tools.mkdir()
    for name in ("aws", "systemctl", "sleep"):
        (tools / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n', encoding="utf-8")
    (tools / "imds").write_text(
        f'#!/bin/bash\necho "$1" >> {looks}\n[ "$(wc -l < {looks})" -ge 3 ]\n', encoding="utf-8"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "BERTH_TARGET_GROUP": target_group,
        "BERTH_INSTANCE": "i-1",
    }  # fmt: skip
    ran = subprocess.run(
        ["bash", "-c", script.replace("/opt/berth/imds", str(tools / "imds"))],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert looks.read_text(encoding="utf-8").splitlines() == ["meta-data/spot/instance-action"] * 3
    return [line for line in calls.read_text(encoding="utf-8").splitlines() if line != "sleep 5"]


def test_a_spot_host_leaves_the_load_balancer_before_it_stops_serving(tmp_path: Path) -> None:
    assert drained(tmp_path, "arn:tg") == [
        "aws elbv2 deregister-targets --target-group-arn arn:tg --targets Id=i-1",
        "sleep 30",
        "systemctl stop berth-serve",
    ]


def test_a_single_spot_host_stops_serving(tmp_path: Path) -> None:
    assert drained(tmp_path, "") == ["systemctl stop berth-serve"]


@pytest.mark.parametrize("name", ["inference-dev", "inference-prod", "endpoint-prod", "training", "sandbox"])
def test_the_network_logs_its_flows(plan_of: Callable[[str], Plan], name: str) -> None:
    plan = plan_of(name)
    (log,) = plan.of_type("aws:ec2/flowLog:FlowLog")
    groups = {r.inputs["name"]: r.inputs for r in plan.of_type("aws:cloudwatch/logGroup:LogGroup")}
    assert log.inputs["trafficType"] == "ALL"
    assert log.inputs["logDestination"].endswith(f":/berth/flow/{name}")
    assert groups[f"/berth/flow/{name}"]["retentionInDays"] > 0 and groups[f"/berth/flow/{name}"]["kmsKeyId"]


def test_a_group_closes_at_night_and_opens_at_its_size(project: Project) -> None:
    hours = "Mon-Fri 08:00-18:00 Europe/Berlin"
    plan = project.plan({**INFERENCE, "replicas": 2, "max_replicas": 3, "schedule": hours})
    found = {s.inputs["scheduledActionName"]: s.inputs for s in plan.of_type("aws:autoscaling/schedule:Schedule")}
    assert [found["open"][k] for k in ("recurrence", "minSize", "maxSize", "desiredCapacity", "timeZone")] == [
        "0 8 * * MON-FRI", 2, 3, 2, "Europe/Berlin",
    ]  # fmt: skip
    assert [found["closed"][k] for k in ("recurrence", "minSize", "maxSize")] == ["0 18 * * MON-FRI", 0, 0]


def test_a_sleeping_endpoint_is_woken_by_the_first_request_that_waits(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of("endpoint-prod")
    alarms = [
        a.inputs
        for a in plan.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
        if a.inputs["metricName"] == "HasBacklogWithoutCapacity"
    ]
    assert len(alarms) == 1 and (alarms[0]["threshold"], alarms[0]["period"]) == (1, 60)
    policies = {p.inputs["policyType"]: p.inputs for p in plan.of_type("aws:appautoscaling/policy:Policy")}
    steps = policies["StepScaling"]["stepScalingPolicyConfiguration"]["stepAdjustments"]
    assert steps == [{"metricIntervalLowerBound": "0", "scalingAdjustment": 1}]
    metric = policies["TargetTrackingScaling"]["targetTrackingScalingPolicyConfiguration"]
    assert metric["customizedMetricSpecification"]["metricName"] == "ApproximateBacklogSizePerInstance"


def test_what_an_endpoint_keeps_lies_below_its_own_prefix(project: Project) -> None:
    config = project.plan({**ENDPOINT, "capture_percent": 10}).of_type(
        "aws:sagemaker/endpointConfiguration:EndpointConfiguration"
    )[0]
    capture = config.inputs["dataCaptureConfig"]
    assert capture["destinationS3Uri"] == "s3://berth-111122223333-us-east-1-artifacts/output/trial/capture"
    assert capture["kmsKeyId"] and [o["captureMode"] for o in capture["captureOptions"]] == ["Input", "Output"]


def test_hosts_are_watched_for_illness_latency_idleness_disk_and_errors(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of("inference-prod")
    alarms = {a.name: a.inputs for a in plan.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")}
    names = {name.removeprefix("inference-prod-watch-") for name in alarms}
    assert {"unhealthy", "slow", "idle", "disk", "errors", "lb-errors"} <= names
    assert alarms["inference-prod-watch-slow"]["extendedStatistic"] == "p95"
    assert all(a["alarmActions"] for a in alarms.values())
    assert len(plan.of_type("aws:cloudwatch/dashboard:Dashboard")) == 1


@pytest.mark.parametrize(
    ("nat", "endpoint", "way"),
    [
        ("0.045", "0.01", "nat"),
        ("0.045", "0.001", "endpoints"),
        (None, "0.01", "endpoints"),
        ("0.045", None, "endpoints"),
    ],
)
def test_the_way_out_follows_the_prices(nat: str | None, endpoint: str | None, way: str) -> None:
    told = {"nat_gateway": nat, "public_ipv4": "0.005", "interface_endpoint": endpoint}
    prices = ServicePrices(
        {
            ("ec2", item, "eu-test-1"): UnitPrice("ec2", item, "eu-test-1", "hour", Decimal(usd), "2026", "", "a test")
            for item, usd in told.items()
            if usd is not None
        }
    )
    assert choose_egress("auto", "eu-test-1", ["logs"] * 7, 1, prices) == way
    assert choose_egress("nat", "eu-test-1", ["logs"], 1, prices) == "nat", "as asked, whatever it costs"
