"""`berth metrics`: what was seen, what it cost, what would do better; and unknown where nothing is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from infra_projects import ENDPOINT, INFERENCE, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra import metrics
from infra.bill.bill import bill_of
from infra.operations.advice import advise
from infra.operations.clients import WithoutPercentiles, sandbox_clients
from infra.operations.cloudwatch import Query, finest_period, read
from infra.operations.machines import Machines, find
from infra.operations.observed import Observed, Quantiles, observe
from infra.operations.reached import reached
from infra.sandbox import server
from infra.sandbox.server import sandbox_dir
from infra.stack_files import read_stack
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model

Run = Callable[..., Any]
REGION = "us-east-1"
GIB = 2**30


def now() -> datetime:
    """Asked for anew: the command's window ends when it runs, which may be minutes after this file was read."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    from moto import mock_aws

    with mock_aws():
        yield lambda service: boto3.client(service, region_name=REGION)


@pytest.fixture
def told(run_berth: Run) -> Callable[..., dict[str, Any]]:
    def ask(*arguments: Any) -> dict[str, Any]:
        ran = run_berth("metrics", "trial", *arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        document: dict[str, Any] = json.loads(ran.out)
        Draft202012Validator(load("metrics") | {"additionalProperties": False}).validate(document)
        return document

    return ask


class Percentiles:
    """A CloudWatch that knows percentiles, which moto does not: canned values by metric and statistic, in one span."""

    def __init__(self, real: Any, known: dict[tuple[str, str], float]) -> None:
        self.real, self.known = WithoutPercentiles(real), known

    def get_metric_data(self, **given: Any) -> Any:
        answer = self.real.get_metric_data(**given)
        asked = {query["Id"]: query["MetricStat"] for query in given["MetricDataQueries"]}
        for result in answer["MetricDataResults"]:
            stat = asked[result["Id"]]
            value = self.known.get((stat["Metric"]["MetricName"], stat["Stat"]))
            if value is not None:
                result |= {"Timestamps": [given["StartTime"]], "Values": [value]}
        return answer


def put(cloudwatch: Any, namespace: str, name: str, values: list[float], minutes: float, **dimensions: str) -> None:
    """Values a minute apart, from so many minutes ago on."""
    start = now() - timedelta(minutes=minutes)
    named = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    data = [
        {"MetricName": name, "Dimensions": named, "Timestamp": start + timedelta(minutes=n), "Value": value}
        for n, value in enumerate(values)
    ]
    for at in range(0, len(data), 500):
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=data[at : at + 500])


def serve(cloudwatch: Any, a_minute: float, minutes: int = 58, hosts: int = 1, **tokens: float) -> None:
    """An hour of a host: requests every minute, each batch of two."""
    for name, each in {
        "BatchSize": a_minute, "InputTokens": a_minute * tokens.get("read", 200.0),
        "OutputTokens": a_minute * tokens.get("written", 50.0), "Errors": 0.0, "ServerErrors": 0.0,
        "GpuMemory": 11.0 * GIB, metrics.HEALTHY: 1.0,
    }.items():  # fmt: skip
        for _ in range(hosts if name == metrics.HEALTHY else 1):
            put(cloudwatch, metrics.NAMESPACE, name, [each] * minutes, minutes + 1, Stack="trial")


def seen(**given: Any) -> Observed:
    requests = given.pop("requests", 36_000.0)
    tokens = {"input_tokens": 200.0 * requests, "output_tokens": 50.0 * requests}
    whole = {"requests": requests, "busiest_hour": requests / 24 * 2, "host_hours": 24.0, "stood_hours": 24.0}
    return Observed(now() - timedelta(days=1), now(), **{**whole, **tokens, **given})


def advised(project: Project, observed: Observed, values: dict[str, Any]) -> Any:
    project.write("trial", values)
    file = read_stack("trial", project.root)
    return advise(file.settings, file.region, resolve_model("google/flan-t5-xl"), load_hardware(), observed)


def test_advice_counts_ram_by_the_stack_s_way_of_loading(project: Project) -> None:
    """Of the small machine: kept where weights are mapped; a larger one is advised where they are not."""
    small = {**INFERENCE, "instance_type": "g4dn.xlarge"}
    kept = advised(project, seen(requests=1000.0), {**small, "loading": "mmap"})
    assert (kept.kind, kept.instance_type) == ("keep", "g4dn.xlarge")
    plain = advised(project, seen(requests=1000.0), small)
    assert (plain.kind, plain.instance_type) == ("larger", "g4dn.2xlarge")
    assert "system RAM" in plain.reasons[0]


def test_an_hour_of_a_host(project: Project, aws: Any, told: Any) -> None:
    project.write("trial", {**INFERENCE, "requests_per_day": 20_000, "latency_ms": 5000})
    host = aws("ec2").run_instances(
        ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="g4dn.2xlarge",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "project", "Value": "berth"},
                                                                 {"Key": "stack", "Value": "trial"}]}],
    )["Instances"][0]["InstanceId"]  # fmt: skip
    serve(aws("cloudwatch"), 6.0)
    put(aws("cloudwatch"), metrics.AGENT_NAMESPACE, metrics.GPU_USE, [40.0] * 58, 59, InstanceId=host)
    put(aws("cloudwatch"), metrics.AGENT_NAMESPACE, metrics.GPU_MEMORY, [12_000.0] * 58, 59, InstanceId=host)
    found = told("--since", "1h")
    had = found["observed"]
    assert had["requests"] == 348
    assert had["requests_per_s"] == pytest.approx(0.1)
    assert (had["input_tokens_per_request"], had["output_tokens_per_request"]) == (200, 50)
    assert (had["gpu_percent"], had["gpu_memory_bytes"]) == (40, 12_000 * 2**20)
    assert had["host_hours"] == had["stood_hours"] == pytest.approx(58 / 60)
    assert found["machines"]["instances"] == [host]
    # g4dn.2xlarge at $0.752 an hour and what stands beside it, over 58 minutes and 348 requests.
    assert found["cost"]["usd_spent"] == pytest.approx((0.752 + 0.072) * 58 / 60, rel=0.02)
    assert found["cost"]["usd_per_1000_requests"] == pytest.approx(found["cost"]["usd_spent"] / 0.348)
    assert found["cost"]["planned_usd_per_1000_requests"] == pytest.approx(0.98, rel=0.05)
    assert found["advice"]["kind"] in ("keep", "cheaper")


def test_what_nobody_measured_is_unknown_and_never_0(project: Project, aws: Any, told: Any, run_berth: Run) -> None:
    project.write("trial", INFERENCE)
    found = told()
    had = found["observed"]
    assert {name for name, value in had.items() if value is not None and not isinstance(value, dict)} == {"hours"}
    assert had["latency"] == {"p50_s": None, "p95_s": None}
    assert (found["cost"]["usd_spent"], found["cost"]["usd_per_1000_requests"]) == (None, None)
    assert found["cost"]["unknown_because"] == "how long machines ran is not known"
    assert found["advice"]["kind"] == "unknown"
    out = run_berth("metrics", "trial").out
    assert out.count("unknown") >= 10
    assert "No suggestion: no requests are known" in out


def test_a_stack_that_stood_and_nobody_asked_says_what_it_cost(project: Project, aws: Any, told: Any) -> None:
    project.write("trial", INFERENCE)
    put(aws("cloudwatch"), metrics.NAMESPACE, metrics.HEALTHY, [1.0] * 30, 40, Stack="trial")
    cost = told()["cost"]
    assert cost["usd_spent"] > 0.3
    assert (cost["usd_per_1000_requests"], cost["unknown_because"]) == (None, "no requests are known")


def test_latencies_are_read_in_seconds_whatever_cloudwatch_counts_in(project: Project, aws: Any) -> None:
    project.write("trial", INFERENCE)
    file = read_stack("trial", project.root)
    serve(aws("cloudwatch"), 6.0)
    put(aws("cloudwatch"), metrics.NAMESPACE, "Latency", [900.0] * 58, 59, Stack="trial")
    cloudwatch = Percentiles(aws("cloudwatch"), {("Latency", "p50"): 900.0, ("Latency", "p95"): 2100.0})
    had = observe(lambda _: cloudwatch, file, Machines(), now() - timedelta(hours=1), now())
    assert had.latency == Quantiles(0.9, 2.1)
    assert had.queue == Quantiles(None, None)

    project.write("trial", ENDPOINT)
    endpoint = read_stack("trial", project.root)
    own = {"EndpointName": "berth-trial", "VariantName": "main"}
    put(aws("cloudwatch"), "AWS/SageMaker", "ModelLatency", [1.5e6] * 10, 30, **own)
    put(aws("cloudwatch"), "AWS/SageMaker", "Invocations", [12.0] * 10, 30, **own)
    put(aws("cloudwatch"), "AWS/SageMaker", "Invocation5XXErrors", [1.0] * 10, 30, **own)
    put(aws("cloudwatch"), "/aws/sagemaker/Endpoints", "GPUMemoryUtilization", [70.0] * 10, 30, **own)
    cloudwatch = Percentiles(aws("cloudwatch"), {("ModelLatency", "p50"): 1.5e6, ("ModelLatency", "p95"): 2.5e6})
    machines = Machines(endpoint="berth-trial", endpoint_since=now() - timedelta(minutes=30), endpoint_count=2)
    had = observe(lambda _: cloudwatch, endpoint, machines, now() - timedelta(hours=1), now())
    assert had.latency == Quantiles(1.5, 2.5)
    assert (had.requests, had.server_errors, had.gpu_memory_percent) == (120, 10, 70)
    assert (had.host_hours, had.stood_hours) == (pytest.approx(1.0), pytest.approx(0.5))
    assert had.tokens_per_request is None
    # Two instances for ten minutes, then none: scaled to zero, it costs what ran.
    for _ in range(2):
        put(aws("cloudwatch"), "/aws/sagemaker/Endpoints", "CPUUtilization", [5.0] * 10, 30, **own)
    had = observe(lambda _: cloudwatch, endpoint, machines, now() - timedelta(hours=1), now())
    assert (had.host_hours, had.stood_hours, had.notes) == (pytest.approx(1 / 3), pytest.approx(1 / 6), ())


def test_an_endpoint_s_hours_are_those_since_it_was_made(project: Project, aws: Any, told: Any) -> None:
    project.write("trial", ENDPOINT)
    missing = told()
    assert missing["notes"] == ["there is no endpoint berth-trial now"]
    sagemaker = aws("sagemaker")
    sagemaker.create_model(ModelName="m", PrimaryContainer={"Image": "i"}, ExecutionRoleArn="arn:aws:iam::1:role/r" * 2)
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[{"VariantName": "main", "ModelName": "m", "InitialInstanceCount": 2,
                             "InstanceType": "ml.g4dn.2xlarge", "InitialVariantWeight": 1.0}],
    )  # fmt: skip
    sagemaker.create_endpoint(EndpointName="berth-trial", EndpointConfigName="c")
    found = told("--since", "7d")
    assert found["machines"]["endpoint"] == "berth-trial"
    assert found["observed"]["host_hours"] < 0.1


def test_two_hosts_cost_twice_and_what_stands_beside_them_once(project: Project) -> None:
    values = {**INFERENCE, "replicas": 2}
    plan = project.plan(values)
    bill = bill_of(plan)
    one = reached(bill, plan.settings, seen(host_hours=24.0, stood_hours=24.0)).spent
    two = reached(bill, plan.settings, seen(host_hours=48.0, stood_hours=24.0)).spent
    assert one is not None
    assert two is not None
    disk = 110 * 0.08 / 730
    assert two - one == pytest.approx(24 * (0.752 + disk), rel=1e-3)


def test_a_window_is_read_in_periods_that_are_still_kept() -> None:
    for days, period in ((1, 60), (20, 300), (100, 3600), (500, 3600)):
        assert finest_period(now() - timedelta(days=days), now()) == period


def test_every_page_of_an_answer_is_read() -> None:
    class Pages:
        def get_metric_data(self, **given: Any) -> Any:
            second = given.get("NextToken") == "more"
            values = [3.0] if second else [1.0, 2.0]
            part = {"Id": "q0", "Timestamps": [now()] * len(values), "Values": values}
            return {"MetricDataResults": [part]} | ({} if second else {"NextToken": "more"})

    query = {"a": Query("n", "m", (), "Sum", 60)}
    assert read(lambda _: Pages(), REGION, query, now() - timedelta(hours=1), now())["a"].values == (1.0, 2.0, 3.0)


def test_a_machine_too_large_for_its_work_has_a_cheaper_one_named(project: Project) -> None:
    found = advised(project, seen(requests=500.0), {**INFERENCE, "instance_type": "p4d.24xlarge", "latency_ms": 20_000})
    assert found.kind == "cheaper"
    assert found.instance_type != "p4d.24xlarge"
    assert found.usd_per_month < found.now_usd_per_month / 2
    assert "less a month for the work that was seen" in found.reasons[0]


def test_a_machine_too_small_for_its_work_has_a_larger_one_named(project: Project) -> None:
    found = advised(project, seen(requests=400_000.0), {**INFERENCE, "latency_ms": 10_000})
    assert found.kind == "larger"
    assert found.hosts > 1 or found.instance_type != "g4dn.2xlarge"
    slow = advised(project, seen(requests=500.0, latency=Quantiles(3.0, 9.0)), {**INFERENCE, "latency_ms": 5000})
    assert "1 of 20 requests took 9.00 s or longer, 5 s are wished" in slow.reasons[0]


def test_a_smaller_machine_must_hold_the_longest_request_not_the_mean(project: Project) -> None:
    few = seen(requests=500.0)
    short = advised(project, few, {**INFERENCE, "instance_type": "p4d.24xlarge"})
    long = advised(project, few, {**INFERENCE, "instance_type": "p4d.24xlarge", "input_tokens": 60_000})
    assert short.usd_per_month < long.usd_per_month


def test_too_few_requests_say_nothing(project: Project) -> None:
    found = advised(project, seen(requests=99.0), INFERENCE)
    assert (found.kind, found.workload) == ("unknown", None)
    assert "only 99 requests came" in found.reasons[0]


def test_a_stack_that_serves_nobody_is_one_line(run_berth: Run, project: Project) -> None:
    ran = run_berth("metrics", "shared")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    project.write("trial", {k: v for k, v in INFERENCE.items() if k != "instance_type"})
    assert "has no machine recorded; `berth settings trial --record`" in run_berth("metrics", "trial").err


def test_people_read_a_table_and_the_command_that_goes_on(
    run_berth: Run, project: Project, aws: Any, tmp_path: Path
) -> None:
    project.write("trial", {**INFERENCE, "instance_type": "p4d.24xlarge", "latency_ms": 20_000})
    serve(aws("cloudwatch"), 6.0)
    out = run_berth("metrics", "trial").out
    assert "1 × p4d.24xlarge in us-east-1" in out
    assert "200 and 50" in out
    assert "Cheaper: 1 × " in out
    next_command = next(line.strip() for line in out.splitlines() if line.strip().startswith("berth size"))
    again = run_berth(*next_command.split()[1:], "--json")
    assert again.code == 0, again.err


def test_the_sandbox_is_asked_where_it_is_wished(run_berth: Run, project: Project, told: Any, cache_dir: Path) -> None:
    project.write("trial", INFERENCE)
    assert "the sandbox does not run" in run_berth("metrics", "trial", "--sandbox").err
    with server.locked(sandbox_dir()):
        local = server.start(sandbox_dir())
    try:
        client = sandbox_clients(REGION)("cloudwatch")
        serve(client, 6.0)
        put(client, metrics.NAMESPACE, "Latency", [900.0] * 58, 59, Stack="trial")
        found = told("--sandbox")
    finally:
        server.stop(sandbox_dir())
    assert local.endpoint.startswith("http://127.0.0.1:")
    assert found["observed"]["requests"] == 348
    assert found["observed"]["latency"]["p95_s"] is None


def test_a_balanced_stack_is_read_at_its_group_and_its_balancer(project: Project, aws: Any) -> None:
    project.write("trial", {**INFERENCE, "replicas": 2})
    file = read_stack("trial", project.root)
    assert find(aws, file) == Machines(group="berth-trial")
    subnets = [s["SubnetId"] for s in aws("ec2").describe_subnets()["Subnets"][:2]]
    made = aws("elbv2").create_load_balancer(
        Name="trial", Subnets=subnets, Tags=[{"Key": "project", "Value": "berth"}, {"Key": "stack", "Value": "trial"}]
    )["LoadBalancers"][0]["LoadBalancerArn"]
    machines = find(aws, file)
    assert made.endswith(f":loadbalancer/{machines.balancer}")
    assert machines.balancer.startswith("app/trial/")
    start = now() - timedelta(hours=1)
    put(aws("cloudwatch"), "AWS/ApplicationELB", "RequestCount", [4.0] * 30, 40, LoadBalancer=machines.balancer)
    put(aws("cloudwatch"), "AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", [1.0], 40, LoadBalancer=machines.balancer)
    put(aws("cloudwatch"), metrics.AGENT_NAMESPACE, metrics.GPU_USE, [20.0] * 5, 30, AutoScalingGroupName="berth-trial")
    cloudwatch = Percentiles(aws("cloudwatch"), {("TargetResponseTime", "p95"): 1.5})
    seen_now = observe(lambda _: cloudwatch, file, machines, start, now())
    assert seen_now.balancer_latency.p95 == 1.5
    assert seen_now.gpu_percent == 20
    assert ["the handler wrote no metrics" in note for note in seen_now.notes] == [True, False]
