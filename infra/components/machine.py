"""Parts that every EC2 machine of Berth has: its image, disk, metadata service, security group."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.base import Component
from infra.context import Context
from infra.settings import MachineSettings
from sizing.start_up import checkpoint_bytes, constant
from sizing.units import GIB

AMI_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
ROOT_DEVICE = "/dev/sda1"
SYSTEM_GIB = 60
"""Root volume beside image and model: AWS's image with its CUDA versions, logs, and room to spare."""
UNPACKED = 2.5
"""Bytes on disk for one byte of a compressed image: layers as pulled and as unpacked."""
SERVICE_PORT = 8080
FEEDBACK_PORT = 8081
"""Of the second server on a host, which takes feedback."""

METADATA: dict[str, Any] = {
    "http_endpoint": "enabled",
    "http_tokens": "required",
    # Containers are one hop further than the host; a limit of 1 would cut them off the role.
    "http_put_response_hop_limit": 2,
    "instance_metadata_tags": "enabled",
}


def machine_image(settings: MachineSettings, parent: pulumi.Resource) -> pulumi.Input[str]:
    """The image named in the stack file, else AWS's newest Deep Learning AMI; resources ignore its later changes."""
    if settings.ami:
        return settings.ami
    found = aws.ssm.get_parameter_output(name=AMI_PARAMETER, opts=pulumi.InvokeOptions(parent=parent))
    return found.value


def disk_gib(context: Context) -> int:
    """Size of the root volume: as given, else system, image and model (twice where it is not kept on local NVMe)."""
    settings, model, instance = context.settings, context.model, context.instance
    if not isinstance(settings, MachineSettings) or model is None or instance is None:
        raise TypeError(f"{context.stack} has no machine")
    if settings.disk_gib:
        return settings.disk_gib
    image = constant("image", "bytes") * UNPACKED
    weights = 0.0 if instance.local_nvme_gb else 2 * checkpoint_bytes(model)
    return -(-int(SYSTEM_GIB + (image + weights) / GIB) // 10) * 10


def root_volume(size_gib: int, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "volume_type": "gp3",
        "volume_size": size_gib,
        "encrypted": True,
        "delete_on_termination": True,
        "tags": tags,
    }


def block_device(size_gib: int) -> dict[str, Any]:
    """The root volume as a launch template writes it."""
    ebs = {"volume_type": "gp3", "volume_size": size_gib, "encrypted": "true", "delete_on_termination": "true"}
    return {"device_name": ROOT_DEVICE, "ebs": ebs}


def market(purchase: str) -> dict[str, Any] | None:
    """Spot and Capacity Blocks are asked for; reservations and savings plans apply by themselves."""
    if purchase == "spot":
        return {
            "market_type": "spot",
            "spot_options": {"spot_instance_type": "one-time", "instance_interruption_behavior": "terminate"},
        }
    return {"market_type": "capacity-block"} if purchase == "capacity-block" else None


def security_group(
    component: Component, name: str, description: str, vpc_id: pulumi.Input[str]
) -> aws.ec2.SecurityGroup:
    """A group without inbound rules; outwards HTTPS only, and only as far as the subnet's routes lead."""
    group = aws.ec2.SecurityGroup(
        name, description=description, vpc_id=vpc_id, tags=component.context.tags(name), opts=component.child()
    )
    aws.vpc.SecurityGroupEgressRule(
        f"{name}-https",
        security_group_id=group.id,
        description="AWS's APIs",
        cidr_ipv4="0.0.0.0/0",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        tags=component.context.tags(),
        opts=component.child(),
    )
    return group


def let_in(
    component: Component,
    group: aws.ec2.SecurityGroup,
    name: str,
    port: int,
    description: str,
    *,
    cidr: pulumi.Input[str] | None = None,
    source: pulumi.Input[str] | None = None,
) -> None:
    """One inbound rule: a block of addresses, or the members of another group."""
    aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=group.id,
        description=description,
        cidr_ipv4=cidr,
        referenced_security_group_id=source,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        tags=component.context.tags(),
        opts=component.child(),
    )
