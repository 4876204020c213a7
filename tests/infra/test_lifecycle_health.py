"""Whether a stack is healthy: what AWS says of hosts, targets, endpoints and nodes; waiting ends, and stops nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from infra_projects import ENDPOINT, INFERENCE, SHARED, TRAINING
from lifecycle_sandbox import AsAws, World

from infra import metrics
from infra.lifecycle.engine import Resource
from infra.lifecycle.health import Health, address, look, start_seconds, wait_healthy
from infra.settings import Settings, read_settings
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model

SINCE = datetime.now(UTC) - timedelta(minutes=5)


def machine(world: World) -> Resource:
    return Resource("aws:ec2/instance:Instance", "host", world.machine("trial"))


def say(world: World, name: str, value: float, stack: str = "trial") -> None:
    world.aws.client("cloudwatch").put_metric_data(
        Namespace=metrics.NAMESPACE,
        MetricData=[
            {
                "MetricName": name,
                "Value": value,
                "Dimensions": [{"Name": metrics.STACK_DIMENSION, "Value": stack}],
                "Timestamp": datetime.now(UTC),
            }
        ],
    )


def settings(values: dict[str, object]) -> Settings:
    return read_settings(values, "trial")


def test_a_host_is_healthy_when_it_says_so_itself(world: World) -> None:
    cloud, resources, own = AsAws(world.aws), [machine(world)], settings(INFERENCE)
    say(world, metrics.HEALTHY, 1, stack="another")
    assert look("trial", own, resources, cloud, SINCE).state == "starting"
    say(world, metrics.HEALTHY, 1)
    assert look("trial", own, resources, cloud, SINCE).state == "healthy"
    # What an earlier life of the stack said counts nothing.
    assert look("trial", own, resources, cloud, datetime.now(UTC) + timedelta(minutes=2)).state == "starting"


def test_a_host_that_was_not_ready_in_time_or_is_gone_has_failed(world: World) -> None:
    cloud, resources, own = AsAws(world.aws), [machine(world)], settings(INFERENCE)
    say(world, metrics.READY, 0)
    found = look("trial", own, resources, cloud, SINCE)
    assert (found.state, "not ready in time" in found.said) == ("failed", True)
    world.aws.client("ec2").terminate_instances(InstanceIds=[resources[0].id])
    assert f"{resources[0].id} is terminated" in look("trial", own, resources, cloud, SINCE).said


def test_in_the_sandbox_nothing_claims_to_answer(world: World) -> None:
    found = look("trial", settings(INFERENCE), [machine(world)], world.aws, SINCE)
    assert (found.state, "moto runs no machine" in found.said) == ("unknown", True)


def test_hosts_behind_a_balancer_are_counted(world: World) -> None:
    elb, ec2 = world.aws.client("elbv2"), world.aws.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = elb.create_target_group(Name="trial", Protocol="HTTP", Port=8080, VpcId=vpc)["TargetGroups"][0]
    resources = [Resource("aws:lb/targetGroup:TargetGroup", "targets", group["TargetGroupArn"])]
    own, cloud = settings({**INFERENCE, "replicas": 2}), AsAws(world.aws)
    assert look("trial", own, resources, cloud, SINCE) == Health("starting", "0 of 2 hosts answer the load balancer")
    elb.register_targets(
        TargetGroupArn=group["TargetGroupArn"], Targets=[{"Id": world.machine("trial")} for _ in range(2)]
    )
    assert look("trial", own, resources, cloud, SINCE) == Health("healthy", "2 hosts answer the load balancer")


def test_an_endpoint_is_what_sagemaker_says(world: World) -> None:
    sagemaker = world.aws.client("sagemaker")
    role = "arn:aws:iam::123456789012:role/r"
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"})
    variant = {"VariantName": "a", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.g4dn.xlarge"}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    resources = [Resource("aws:sagemaker/endpoint:Endpoint", "endpoint", "e")]
    own = settings(ENDPOINT)
    assert look("trial", own, resources, world.aws, SINCE) == Health("healthy", "endpoint e is InService")
    assert address({}, resources) == "SageMaker endpoint e"
    assert look("trial", own, [], world.aws, SINCE).state == "failed"


def test_nodes_are_running_or_have_ended(world: World) -> None:
    node, own = machine(world), settings(TRAINING)
    assert look("trial", own, [node], world.aws, SINCE).state == "healthy"
    world.aws.client("ec2").terminate_instances(InstanceIds=[node.id])
    assert look("trial", own, [node], world.aws, SINCE) == Health("failed", f"{node.id} is terminated")


class Ticking:
    """A clock on which sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_ends_when_it_is_healthy_and_tells_each_change_once() -> None:
    answers = [Health("starting", "a"), Health("starting", "a"), Health("starting", "b"), Health("healthy", "c")]
    told: list[str] = []
    clock = Ticking()
    found = wait_healthy(lambda: answers.pop(0), timeout_s=600, tell=lambda h: told.append(h.said), clock=clock)
    assert (found.state, told, clock.now) == ("healthy", ["a", "b", "c"], 45.0)


def test_waiting_ends_at_its_time_and_with_ctrl_c() -> None:
    found = wait_healthy(lambda: Health("starting", "it loads"), timeout_s=60, clock=Ticking())
    assert found == Health("failed", "not healthy within 60 s: it loads")

    def interrupted() -> Health:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_healthy(interrupted, timeout_s=60, clock=Ticking())


def test_the_time_for_a_start_comes_from_sizing() -> None:
    hardware = load_hardware()
    small = start_seconds(settings({**INFERENCE, "model": "google/flan-t5-small"}), hardware, resolve_model)
    large = start_seconds(settings({**INFERENCE, "model": "google/flan-t5-xl"}), hardware, resolve_model)
    assert 600 <= small <= large
    assert start_seconds(settings(SHARED), hardware, resolve_model) == 0
