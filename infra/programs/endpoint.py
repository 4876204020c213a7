"""The endpoint stack: the same model folder and container, run by SageMaker."""

from __future__ import annotations

from typing import Any

import pulumi

from infra.components.endpoint import VARIANT, Endpoint, EndpointArgs, endpoint_logs
from infra.components.guard import Expiry, ExpiryArgs, Notice, NoticeArgs
from infra.components.identity import Identity, IdentityArgs
from infra.components.observability import Observability, ObservabilityArgs, Watch
from infra.context import Context, Shared
from infra.images import ecr_repository_arn, image_of
from infra.places import artifact_prefix, bundle_prefix, output_prefix
from infra.programs.parts import IDLE_PERCENT, machine_of, network_of
from infra.settings import EndpointSettings
from infra.start_up import start_up_seconds
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts
from sizing.start_up import start_up

AMI_VERSION = "al2023-ami-sagemaker-inference-gpu-4-1"
"""SageMaker's host image (InferenceAmiVersion) with driver 580 and CUDA 13.0, new enough for every pinned image."""
NAMESPACE = "AWS/SageMaker"
HOST_NAMESPACE = "/aws/sagemaker/Endpoints"


def is_asynchronous(settings: EndpointSettings, model: ModelFacts, instance: InstanceType) -> bool:
    """As asked; `auto`: where callers tolerate the start of an instance, it need not run when nobody calls."""
    if settings.invocation != "auto":
        return settings.invocation == "async"
    return settings.start_up_tolerance_seconds >= start_up(model, instance).total.likely


def declare(context: Context) -> dict[str, Any]:
    settings, instance, model = machine_of(context)
    if not isinstance(settings, EndpointSettings):
        raise TypeError(f"{context.stack} is no endpoint stack")
    shared = Shared.read(settings.shared_stack, "endpoint")
    # SageMaker fetches the image and ships the logs itself: the containers need the bucket only.
    network = network_of(context, shared, [], "none")
    asynchronous = is_asynchronous(settings, model, instance)
    image = image_of(settings, model, context.region)
    repository = ecr_repository_arn(image, context.partition)
    identity = Identity(
        f"{context.stack}-identity",
        context,
        IdentityArgs(
            service="sagemaker.amazonaws.com",
            shared=shared,
            read_prefixes=[artifact_prefix(settings), bundle_prefix(settings, context.stack)],
            write_prefixes=[output_prefix(context.stack)],
            in_parts=True,
            repositories=[repository] if repository else [],
            log_streams=[context.arn("logs", f"log-group:{endpoint_logs(context)}:log-stream:*")],
            extra=_network_statements(context),
        ),
    )
    endpoint = Endpoint(
        f"{context.stack}-sm",
        context,
        EndpointArgs(
            settings=settings,
            asynchronous=asynchronous,
            shared=shared,
            image=image,
            bundle_prefix=bundle_prefix(settings, context.stack),
            artifact_prefix=artifact_prefix(settings),
            output_prefix=output_prefix(context.stack),
            environment={"HF_HUB_OFFLINE": "1", "OPT_OUT_TRACKING": "true", "BERTH_STACK": context.stack},
            role_arn=identity.role.arn,
            role_policy=identity.policy,
            vpc_id=network.vpc_id,
            subnets=network.private_subnets,
            start_up_seconds=start_up_seconds(model, instance),
            ami_version=AMI_VERSION,
        ),
    )
    notice = Notice(
        f"{context.stack}-notice", context, NoticeArgs(settings.budget_per_month, settings.alarm_email, shared)
    )
    if context.expires_at is not None:
        Expiry(
            f"{context.stack}-expiry",
            context,
            ExpiryArgs(
                "sagemaker:deleteEndpoint",
                [pulumi.Output.json_dumps({"EndpointName": endpoint.endpoint.name})],
                ["sagemaker:DeleteEndpoint"],
                [endpoint.endpoint.arn],
            ),
        )
    _observe(context, settings, notice, endpoint, asynchronous)
    return {
        "endpoint": endpoint.endpoint.name,
        "invocation": "async" if asynchronous else "real-time",
        "image": image,
        "topic": notice.topic.arn,
        "expires_at": context.expiry,
    }


def _network_statements(context: Context) -> list[dict[str, Any]]:
    """SageMaker puts its interfaces into the VPC with this role; describing knows no resources."""
    return [
        {
            "Sid": "DescribeNetwork",
            "Effect": "Allow",
            "Action": [
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeVpcs",
                "ec2:DescribeSubnets",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeDhcpOptions",
            ],
            "Resource": ["*"],
        },
        {
            "Sid": "OwnInterfaces",
            "Effect": "Allow",
            "Action": [
                "ec2:CreateNetworkInterface",
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            "Resource": [context.arn("ec2", f"{kind}/*") for kind in ("network-interface", "subnet", "security-group")],
        },
    ]


def _observe(
    context: Context, settings: EndpointSettings, notice: Notice, endpoint: Endpoint, asynchronous: bool
) -> None:
    own: dict[str, pulumi.Input[str]] = {"EndpointName": endpoint.endpoint.name, "VariantName": VARIANT}
    latency = "ModelLatency"
    watches = [
        Watch(
            "slow", f"1 of 20 requests takes longer than {settings.alarm_seconds:g} s", NAMESPACE, latency, own,
            "p95", ">", settings.alarm_seconds * 1e6,  # SageMaker counts microseconds
        ),
        Watch("errors", "the container fails requests", NAMESPACE, "Invocation5XXErrors", own, "Sum", ">", 5),
        Watch("disk", "the disk is nearly full", HOST_NAMESPACE, "DiskUtilization", own, "Maximum", ">", 85.0),
    ]  # fmt: skip
    if not asynchronous:  # an asynchronous endpoint ends its idle instances itself
        watches.append(
            Watch(
                "idle", "the GPU has had nothing to do for 3 hours", HOST_NAMESPACE, "GPUUtilization", own, "Average",
                "<", IDLE_PERCENT, 900, 12,
            )
        )  # fmt: skip
    charts = {
        "Latency (µs)": [(NAMESPACE, latency, own, s) for s in ("p50", "p95", "p99")],
        "Requests": [(NAMESPACE, "Invocations", own, "Sum")],
        "Errors": [(NAMESPACE, name, own, "Sum") for name in ("Invocation4XXErrors", "Invocation5XXErrors")],
        "GPU use (%)": [(HOST_NAMESPACE, "GPUUtilization", own, "Average")],
        "GPU memory (%)": [(HOST_NAMESPACE, "GPUMemoryUtilization", own, "Maximum")],
    }
    Observability(f"{context.stack}-watch", context, ObservabilityArgs(notice.topic.arn, watches, charts))
