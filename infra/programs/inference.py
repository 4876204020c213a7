"""The inference stack: one host behind a name, or several behind a load balancer."""

from __future__ import annotations

from typing import Any

import pulumi

from infra import metrics
from infra.components.base import allow
from infra.components.guard import Expiry, ExpiryArgs, Notice, NoticeArgs
from infra.components.identity import Identity, IdentityArgs
from infra.components.inference_group import (
    HOOK,
    InferenceBalancer,
    InferenceGroup,
    InferenceGroupArgs,
    LoadBalancerArgs,
    group_name,
)
from infra.components.inference_host import InferenceHost, InferenceHostArgs
from infra.components.observability import Observability, ObservabilityArgs, Watch
from infra.context import Context, Shared
from infra.egress import choose_egress
from infra.host.user_data import memory_limit, user_data
from infra.images import ecr_repository_arn, image_of
from infra.places import artifact_prefix, bundle_prefix, output_prefix
from infra.programs.parts import (
    DISK_PERCENT,
    GROUP_SERVICES,
    HOST_SERVICES,
    IDLE_PERCENT,
    fetched,
    machine_of,
    network_of,
    zones_of,
)
from infra.settings import InferenceSettings
from infra.start_up import start_up_seconds

IDLE_HOURS = 3


def declare(context: Context) -> dict[str, Any]:
    settings, instance, model = machine_of(context)
    if not isinstance(settings, InferenceSettings):
        raise TypeError(f"{context.stack} is no inference stack")
    shared = Shared.read(settings.shared_stack, "inference")
    balanced = settings.balanced
    services = (*HOST_SERVICES, *GROUP_SERVICES) if balanced else HOST_SERVICES
    spread = len(zones_of(context)) if balanced and not settings.vpc_id else 1
    egress = choose_egress(settings.egress, context.region, services, spread)
    network = network_of(context, shared, services, egress, public=settings.internet_facing, spread=balanced)
    callers: list[pulumi.Input[str]] = [*settings.callers] or [*network.cidrs]

    balancer: InferenceBalancer | None = None
    if balanced:
        subnets = network.public_subnets if settings.internet_facing else network.private_subnets
        balancer = InferenceBalancer(
            f"{context.stack}-lb",
            context,
            LoadBalancerArgs(settings, network.vpc_id, subnets, callers, shared),
        )
    identity = _identity(context, settings, shared, balancer)
    image = image_of(settings, model, context.region)
    ready = start_up_seconds(model, instance)
    environment: dict[str, pulumi.Input[str]] = {
        "BERTH_IMAGE": image,
        **fetched(context),
        "BERTH_OUTPUT": output_prefix(context.stack),
        "BERTH_SPOT": "yes" if settings.purchase == "spot" else "no",
        "BERTH_GROUP": group_name(context) if balancer else "",
        "BERTH_HOOK": HOOK if balancer else "",
        "BERTH_TARGET_GROUP": balancer.targets.arn if balancer else "",
    }
    script = user_data(
        "inference",
        context,
        shared,
        environment,
        {"MEMORY": memory_limit(instance.memory_bytes, feedback=settings.feedback), "READY_SECONDS": str(ready)},
        grouped=balancer is not None,
        feedback=settings.feedback,
    )
    notice = Notice(
        f"{context.stack}-notice", context, NoticeArgs(settings.budget_per_month, settings.alarm_email, shared)
    )
    if identity.profile is None:
        raise TypeError("a host's identity has a profile")
    dimensions: dict[str, pulumi.Input[str]]
    own: dict[str, Any] = {}
    if balancer is not None:
        group = InferenceGroup(
            f"{context.stack}-group",
            context,
            InferenceGroupArgs(
                settings, balancer, network.private_subnets, identity.profile.arn, script, ready, [network, identity]
            ),
        )
        dimensions = {"AutoScalingGroupName": group.group.name}
        url: pulumi.Input[str] = balancer.url
        end = ExpiryArgs(
            "autoscaling:deleteAutoScalingGroup",
            [pulumi.Output.json_dumps({"AutoScalingGroupName": group.group.name, "ForceDelete": True})],
            ["autoscaling:DeleteAutoScalingGroup"],
            [context.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{group_name(context)}")],
        )
    else:
        host = InferenceHost(
            f"{context.stack}-host",
            context,
            InferenceHostArgs(
                settings,
                network.vpc_id,
                network.private_subnets[0],
                callers,
                identity.profile.name,
                script,
                [network, identity],
            ),
        )
        dimensions = {"InstanceId": host.instance.id}
        url = host.url
        own = {"feedback_url": host.feedback_url} if settings.feedback else {}
        end = ExpiryArgs(
            "ec2:terminateInstances",
            [pulumi.Output.json_dumps({"InstanceIds": [host.instance.id]})],
            ["ec2:TerminateInstances"],
            [context.arn("ec2", "instance/*")],
        )
    if context.expires_at is not None:
        Expiry(f"{context.stack}-expiry", context, end)
    _observe(context, settings, notice, dimensions, balancer)
    return {"url": url, "image": image, "topic": notice.topic.arn, "expires_at": context.expiry, **own}


def _identity(
    context: Context, settings: InferenceSettings, shared: Shared, balancer: InferenceBalancer | None
) -> Identity:
    extra = []
    if balancer is not None:
        group = context.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{group_name(context)}")
        extra = [
            allow("SayReady", ["autoscaling:CompleteLifecycleAction"], [group]),
            allow("Drain", ["elasticloadbalancing:DeregisterTargets"], [balancer.targets.arn]),
            # CloudWatch's agent finds the name of its group, the dimension of its metrics, among its tags.
            allow("OwnTags", ["ec2:DescribeTags"], ["*"]),
        ]
    _, _, model = machine_of(context)
    repository = ecr_repository_arn(image_of(settings, model, context.region), context.partition)
    return Identity(
        f"{context.stack}-identity",
        context,
        IdentityArgs(
            service="ec2.amazonaws.com",
            shared=shared,
            read_prefixes=[artifact_prefix(settings), bundle_prefix(settings, context.stack)],
            write_prefixes=[output_prefix(context.stack)],
            repositories=[repository] if repository else [],
            log_streams=[shared.log_streams(context.stack)],
            extra=extra,
        ),
    )


def _observe(
    context: Context,
    settings: InferenceSettings,
    notice: Notice,
    dimensions: dict[str, pulumi.Input[str]],
    balancer: InferenceBalancer | None,
) -> None:
    own: dict[str, pulumi.Input[str]] = {metrics.STACK_DIMENSION: context.stack}
    # Outside office hours no host sends anything, and that is right.
    silence = "notBreaching" if settings.schedule else "breaching"
    watches = [
        Watch(
            "unhealthy", "a host does not answer", metrics.NAMESPACE, metrics.HEALTHY, own, "Minimum", "<", 1, 60, 5,
            silence,
        ),
        Watch(
            "slow", f"1 of 20 requests takes longer than {settings.alarm_seconds:g} s", metrics.NAMESPACE,
            metrics.LATENCY, own, "p95", ">", settings.alarm_seconds * 1000.0,
        ),
        Watch(
            "idle", f"the GPU has had nothing to do for {IDLE_HOURS} hours", metrics.AGENT_NAMESPACE, metrics.GPU_USE,
            dimensions, "Average", "<", IDLE_PERCENT, 900, 4 * IDLE_HOURS,
        ),
        Watch(
            "disk", "the root volume is nearly full", metrics.AGENT_NAMESPACE, metrics.DISK_USE, dimensions, "Maximum",
            ">", DISK_PERCENT,
        ),
        Watch("errors", "the server fails requests", metrics.NAMESPACE, metrics.ERRORS, own, "Sum", ">", 5),
    ]  # fmt: skip
    if balancer is not None:
        behind: dict[str, pulumi.Input[str]] = {"LoadBalancer": balancer.balancer.arn_suffix}
        watches.append(
            Watch(
                "lb-errors", "the load balancer answers with 5xx", "AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count",
                behind, "Sum", ">", 5,
            )
        )  # fmt: skip
    charts = {
        "Latency (ms)": [(metrics.NAMESPACE, metrics.LATENCY, own, s) for s in ("p50", "p95", "p99")],
        "Errors": [(metrics.NAMESPACE, metrics.ERRORS, own, "Sum")],
        "Queue (ms)": [(metrics.NAMESPACE, metrics.QUEUE_TIME, own, "p95")],
        "GPU use (%)": [(metrics.AGENT_NAMESPACE, metrics.GPU_USE, dimensions, "Average")],
        "GPU memory (MiB)": [(metrics.AGENT_NAMESPACE, metrics.GPU_MEMORY, dimensions, "Maximum")],
        "Healthy": [(metrics.NAMESPACE, metrics.HEALTHY, own, "Minimum")],
    }
    Observability(f"{context.stack}-watch", context, ObservabilityArgs(notice.topic.arn, watches, charts))
