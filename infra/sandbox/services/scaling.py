"""Auto Scaling of hosts and Application Auto Scaling of endpoints."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, or_gone, pascal, put, take, unless_gone
from infra.sandbox.services.ec2_machines import remove_leavings


def _tags(inputs: Inputs) -> list[dict[str, Any]]:
    return [
        {
            "ResourceId": inputs["name"],
            "ResourceType": "auto-scaling-group",
            "Key": tag["key"],
            "Value": tag["value"],
            "PropagateAtLaunch": bool(tag["propagateAtLaunch"]),
        }
        for tag in inputs.get("tags") or []
    ]


_GROUP = {
    "MinSize": "minSize",
    "MaxSize": "maxSize",
    "HealthCheckType": "healthCheckType",
    "HealthCheckGracePeriod": "healthCheckGracePeriod",
    "DefaultInstanceWarmup": "defaultInstanceWarmup",
    "CapacityRebalance": "capacityRebalance",
}
_NOT_SENT = frozenset({"instanceRefresh", "waitForCapacityTimeout", "initialLifecycleHooks"})
"""What the provider itself does with a group, or gives it at its birth only: no call of Auto Scaling's changes it."""


def _group(inputs: Inputs) -> dict[str, Any]:
    parameters = take(inputs, **_GROUP)
    parameters["VPCZoneIdentifier"] = ",".join(inputs.get("vpcZoneIdentifiers") or [])
    if inputs.get("launchTemplate"):
        given = inputs["launchTemplate"]
        parameters["LaunchTemplate"] = {"LaunchTemplateId": given["id"], "Version": str(given["version"])}
    if inputs.get("mixedInstancesPolicy"):
        parameters["MixedInstancesPolicy"] = pascal(inputs["mixedInstancesPolicy"])
    return parameters


def _create_group(aws: Aws, inputs: Inputs) -> str:
    hooks = [
        {
            "LifecycleHookName": hook["name"],
            **take(
                hook,
                LifecycleTransition="lifecycleTransition",
                HeartbeatTimeout="heartbeatTimeout",
                DefaultResult="defaultResult",
            ),
        }
        for hook in inputs.get("initialLifecycleHooks") or []
    ]
    aws.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=inputs["name"],
        **_group(inputs),
        **take(inputs, TargetGroupARNs="targetGroupArns"),
        **({"LifecycleHookSpecificationList": hooks} if hooks else {}),
        Tags=_tags(inputs),
    )
    return str(inputs["name"])


def _update_group(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    scaling = aws.client("autoscaling")
    scaling.update_auto_scaling_group(AutoScalingGroupName=id_, **_group(new))
    before, after = (set(i.get("targetGroupArns") or []) for i in (old, new))
    for call, moved in (("detach", before - after), ("attach", after - before)):
        if moved:
            getattr(scaling, f"{call}_load_balancer_target_groups")(
                AutoScalingGroupName=id_, TargetGroupARNs=sorted(moved)
            )
    if _tags(new):
        scaling.create_or_update_tags(Tags=_tags(new))
    removed = {t["Key"] for t in _tags(old)} - {t["Key"] for t in _tags(new)}
    if removed:
        scaling.delete_tags(Tags=[t for t in _tags(old) if t["Key"] in removed])


def _read_group(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[id_])["AutoScalingGroups"]
    return {"arn": found[0]["AutoScalingGroupARN"], "name": id_} if found else None


def _delete_group(aws: Aws, id_: str, _inputs: Inputs) -> None:
    scaling = aws.client("autoscaling")
    found = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[id_])["AutoScalingGroups"]
    unless_gone(scaling.delete_auto_scaling_group, AutoScalingGroupName=id_, ForceDelete=True)
    remove_leavings(aws, [instance["InstanceId"] for group in found for instance in group["Instances"]])


def _tracking(given: Inputs) -> dict[str, Any]:
    parameters = pascal(given)
    custom = parameters.get("CustomizedMetricSpecification")
    if custom and "MetricDimensions" in custom:
        custom["Dimensions"] = custom.pop("MetricDimensions")
    return dict(parameters)


def _put_policy(aws: Aws, inputs: Inputs) -> str:
    aws.client("autoscaling").put_scaling_policy(
        AutoScalingGroupName=inputs["autoscalingGroupName"],
        PolicyName=inputs["name"],
        PolicyType=inputs["policyType"],
        TargetTrackingConfiguration=_tracking(inputs["targetTrackingConfiguration"]),
        **take(inputs, EstimatedInstanceWarmup="estimatedInstanceWarmup"),
    )
    return str(inputs["name"])


def _read_policy(aws: Aws, id_: str, inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("autoscaling").describe_policies(
            AutoScalingGroupName=inputs["autoscalingGroupName"], PolicyNames=[id_]
        )["ScalingPolicies"]
        return {"arn": found[0]["PolicyARN"], "name": id_} if found else None

    return or_gone(read)


def _delete_policy(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_policy(aws, id_, inputs) is not None:
        aws.client("autoscaling").delete_policy(AutoScalingGroupName=inputs["autoscalingGroupName"], PolicyName=id_)


def _put_schedule(aws: Aws, inputs: Inputs) -> str:
    aws.client("autoscaling").put_scheduled_update_group_action(
        AutoScalingGroupName=inputs["autoscalingGroupName"],
        ScheduledActionName=inputs["scheduledActionName"],
        **take(
            inputs,
            MinSize="minSize",
            MaxSize="maxSize",
            DesiredCapacity="desiredCapacity",
            Recurrence="recurrence",
            TimeZone="timeZone",
        ),
    )
    return str(inputs["scheduledActionName"])


def _read_schedule(aws: Aws, id_: str, inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("autoscaling").describe_scheduled_actions(
            AutoScalingGroupName=inputs["autoscalingGroupName"], ScheduledActionNames=[id_]
        )["ScheduledUpdateGroupActions"]
        return {"arn": found[0].get("ScheduledActionARN", "")} if found else None

    return or_gone(read)


def _delete_schedule(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_schedule(aws, id_, inputs) is not None:
        aws.client("autoscaling").delete_scheduled_action(
            AutoScalingGroupName=inputs["autoscalingGroupName"], ScheduledActionName=id_
        )


_TARGET = {"ServiceNamespace": "serviceNamespace", "ResourceId": "resourceId", "ScalableDimension": "scalableDimension"}


def _put_target(aws: Aws, inputs: Inputs) -> str:
    aws.client("application-autoscaling").register_scalable_target(
        **take(inputs, **_TARGET, MinCapacity="minCapacity", MaxCapacity="maxCapacity"),
        **({"Tags": inputs["tags"]} if inputs.get("tags") else {}),
    )
    return str(inputs["resourceId"])


def _read_target(aws: Aws, id_: str, inputs: Inputs) -> Found:
    found = aws.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace=inputs["serviceNamespace"],
        ResourceIds=[id_],
        ScalableDimension=inputs["scalableDimension"],
    )["ScalableTargets"]
    return {"arn": found[0].get("ScalableTargetARN", "")} if found else None


def _delete_target(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_target(aws, id_, inputs) is not None:
        aws.client("application-autoscaling").deregister_scalable_target(**take(inputs, **_TARGET))


def _put_endpoint_policy(aws: Aws, inputs: Inputs) -> str:
    parameters: dict[str, Any] = {}
    if inputs.get("targetTrackingScalingPolicyConfiguration"):
        parameters["TargetTrackingScalingPolicyConfiguration"] = pascal(
            inputs["targetTrackingScalingPolicyConfiguration"]
        )
    if inputs.get("stepScalingPolicyConfiguration"):
        steps = pascal(inputs["stepScalingPolicyConfiguration"])
        for step in steps.get("StepAdjustments", []):
            for bound in ("MetricIntervalLowerBound", "MetricIntervalUpperBound"):
                if bound in step:
                    step[bound] = float(step[bound])
        parameters["StepScalingPolicyConfiguration"] = steps
    aws.client("application-autoscaling").put_scaling_policy(
        PolicyName=inputs["name"], PolicyType=inputs["policyType"], **take(inputs, **_TARGET), **parameters
    )
    return str(inputs["name"])


def _read_endpoint_policy(aws: Aws, id_: str, inputs: Inputs) -> Found:
    found = aws.client("application-autoscaling").describe_scaling_policies(
        PolicyNames=[id_], **take(inputs, **_TARGET)
    )["ScalingPolicies"]
    mine = [p for p in found if p["PolicyName"] == id_]  # moto passes PolicyNames over
    return {"arn": mine[0]["PolicyARN"], "name": id_} if mine else None


def _delete_endpoint_policy(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_endpoint_policy(aws, id_, inputs) is not None:
        aws.client("application-autoscaling").delete_scaling_policy(PolicyName=id_, **take(inputs, **_TARGET))


KINDS = (
    Kind(
        "aws:autoscaling/group:Group", _create_group, _read_group, _delete_group, _update_group,
        frozenset({*_GROUP.values(), *_NOT_SENT, "vpcZoneIdentifiers", "launchTemplate", "mixedInstancesPolicy",
                   "targetGroupArns", "tags"}),
        names="name",
    ),
    put(
        "aws:autoscaling/policy:Policy", _put_policy, _read_policy, _delete_policy,
        {"policyType", "targetTrackingConfiguration", "estimatedInstanceWarmup"}, names="name",
    ),
    put(
        "aws:autoscaling/schedule:Schedule", _put_schedule, _read_schedule, _delete_schedule,
        {"minSize", "maxSize", "desiredCapacity", "recurrence", "timeZone"},
    ),
    put(
        "aws:appautoscaling/target:Target", _put_target, _read_target, _delete_target,
        {"minCapacity", "maxCapacity", "tags"},
    ),
    put(
        "aws:appautoscaling/policy:Policy", _put_endpoint_policy, _read_endpoint_policy, _delete_endpoint_policy,
        {"policyType", "targetTrackingScalingPolicyConfiguration", "stepScalingPolicyConfiguration"}, names="name",
    ),
)  # fmt: skip
