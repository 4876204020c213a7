"""What the tests of the sandbox share: providers that fail on purpose, and a count of everything that moto holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Inputs, Outputs
from infra.sandbox.provider import RefusedError, SandboxProvider


class FailingAt(SandboxProvider):
    """Refuses the `number`-th create, counted from 1, as AWS would for want of capacity."""

    def __init__(self, aws: Aws, number: int) -> None:
        super().__init__(aws)
        self.number, self.asked = number, 0

    def create(
        self, type_: str, name: str, inputs: Inputs, made: Callable[[str], None] = lambda _: None
    ) -> tuple[str, Outputs]:
        self.asked += 1
        if self.asked == self.number:
            raise RefusedError(f"{type_} {name}: AWS refuses to make it: InsufficientCapacity")
        return super().create(type_, name, inputs, made)


class KeepingOne(SandboxProvider):
    """Cannot remove resources of one type."""

    def __init__(self, aws: Aws, type_: str) -> None:
        super().__init__(aws)
        self.kept = type_

    def delete(self, type_: str, name: str, id_: str, inputs: Inputs) -> None:
        if type_ == self.kept:
            raise RefusedError(f"{type_} {name}: AWS refuses to remove it: DependencyViolation")
        super().delete(type_, name, id_, inputs)


def inventory(aws: Aws) -> dict[str, Any]:
    """What moto holds of what stacks are made of, with tags and without, but for what comes with every account."""
    ec2, iam, s3, kms = (aws.client(name) for name in ("ec2", "iam", "s3", "kms"))
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    ended = {i["InstanceId"] for i in instances if i["State"]["Name"] == "terminated"}
    own = {a.get("TargetKeyId") for a in kms.list_aliases()["Aliases"] if a["AliasName"].startswith("alias/aws/")}
    return {
        "vpcs": [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]],
        "subnets": [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"] if not s["DefaultForAz"]],
        "groups": [
            g["GroupId"] for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] != "default"
        ],
        "addresses": ec2.describe_addresses()["Addresses"],
        "interfaces": ec2.describe_network_interfaces()["NetworkInterfaces"],
        # moto keeps the root volumes of a group's terminated hosts, attached to them, and removes none.
        "volumes": [
            v["VolumeId"]
            for v in ec2.describe_volumes()["Volumes"]
            if not {a["InstanceId"] for a in v["Attachments"]} & ended
        ],
        "gateways": ec2.describe_internet_gateways()["InternetGateways"],
        "nat": [n for n in ec2.describe_nat_gateways()["NatGateways"] if n["State"] != "deleted"],
        "endpoints": [e for e in ec2.describe_vpc_endpoints()["VpcEndpoints"] if e["State"] != "deleted"],
        "flow logs": ec2.describe_flow_logs()["FlowLogs"],
        "templates": ec2.describe_launch_templates()["LaunchTemplates"],
        "instances": [i["InstanceId"] for i in instances if i["State"]["Name"] != "terminated"],
        "groups of hosts": aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        "balancers": aws.client("elbv2").describe_load_balancers()["LoadBalancers"],
        "targets": aws.client("elbv2").describe_target_groups()["TargetGroups"],
        "roles": iam.list_roles()["Roles"],
        "profiles": iam.list_instance_profiles()["InstanceProfiles"],
        "buckets": s3.list_buckets()["Buckets"],
        "keys": [
            key["KeyId"]
            for key in (kms.describe_key(KeyId=k["KeyId"])["KeyMetadata"] for k in kms.list_keys()["Keys"])
            if key["KeyState"] != "PendingDeletion" and key["KeyId"] not in own
        ],
        "log groups": aws.client("logs").describe_log_groups()["logGroups"],
        "alarms": aws.client("cloudwatch").describe_alarms()["MetricAlarms"],
        "dashboards": aws.client("cloudwatch").list_dashboards()["DashboardEntries"],
        "topics": aws.client("sns").list_topics()["Topics"],
        "subscriptions": aws.client("sns").list_subscriptions()["Subscriptions"],
        "schedules": aws.client("scheduler").list_schedules()["Schedules"],
        "budgets": aws.client("budgets").describe_budgets(AccountId=aws.account)["Budgets"],
        "zones": aws.client("route53").list_hosted_zones()["HostedZones"],
        "repositories": aws.client("ecr").describe_repositories()["repositories"],
        "endpoints of models": aws.client("sagemaker").list_endpoints()["Endpoints"],
        "models": aws.client("sagemaker").list_models()["Models"],
        "configurations": aws.client("sagemaker").list_endpoint_configs()["EndpointConfigs"],
        "scaled": aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")[
            "ScalableTargets"
        ],
    }


def held(aws: Aws) -> dict[str, Any]:
    """Only what there is some of."""
    return {name: found for name, found in inventory(aws).items() if found}
