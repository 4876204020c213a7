"""What the programs of machines share: their network, zones, what a host fetches, and when alarms ring."""

from __future__ import annotations

from collections.abc import Sequence

from infra.components.network import ExistingNetwork, Network, NetworkArgs
from infra.context import Context, Shared
from infra.places import artifact_prefix, bundle_prefix
from infra.recommend import zones_for
from infra.settings import MachineSettings
from sizing.errors import UserError
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts

GROUP_SERVICES = ("autoscaling", "elasticloadbalancing", "ec2")
"""What a host of a group calls besides: it says that it is ready, leaves the load balancer, reads its group's name."""
HOST_SERVICES = ("ecr.api", "ecr.dkr", "logs", "monitoring", "ssm", "ssmmessages", "ec2messages")
"""AWS's APIs that a host calls: image, logs, metrics, Session Manager."""
IDLE_PERCENT = 5.0
"""Use of a GPU below which it has nothing to do."""
DISK_PERCENT = 85.0


def machine_of(context: Context) -> tuple[MachineSettings, InstanceType, ModelFacts]:
    """Settings, instance type and model of a stack with machines."""
    settings, instance, model = context.settings, context.instance, context.model
    if not isinstance(settings, MachineSettings) or instance is None or model is None:
        raise TypeError(f"{context.stack} has no machines")
    return settings, instance, model


def fetched(context: Context) -> dict[str, str]:
    """What a host fetches at its start, bundle and model with the SHA-256 of their manifests, as its environment."""
    settings, _, _ = machine_of(context)
    return {
        "BERTH_BUNDLE": bundle_prefix(settings, context.stack),
        "BERTH_BUNDLE_SHA256": settings.bundle_manifest_sha256,
        "BERTH_ARTIFACT": artifact_prefix(settings),
        "BERTH_ARTIFACT_SHA256": settings.artifact_manifest_sha256,
    }


def zones_of(context: Context) -> list[str]:
    """The stack's zone ids, those recorded or those that offer its type. Raises `UserError` where none is known."""
    settings, instance, _ = machine_of(context)
    if settings.zones:
        return settings.zones
    zones = zones_for(instance.name, context.region, context.hardware, settings.zone_count)
    if not zones:
        raise UserError(
            f"stack {context.stack}: no zone of {context.region} is known to offer {instance.name}; "
            f"name zone ids under zones, or `berth catalog refresh --region {context.region}`"
        )
    return list(zones)


def network_of(
    context: Context,
    shared: Shared,
    services: Sequence[str],
    egress: str,
    *,
    public: bool = False,
    spread: bool = True,
    deletes: Sequence[str] = (),
) -> Network | ExistingNetwork:
    """The stack's own VPC, or the existing one that it names. Without `spread` one zone is enough.

    `deletes` are prefixes of the artifact bucket in which the stack's role may delete.
    """
    settings, _, _ = machine_of(context)
    name = f"{context.stack}-network"
    if settings.vpc_id:
        return ExistingNetwork(name, context, settings.vpc_id, settings.subnet_ids)
    zones = zones_of(context)
    return Network(
        name,
        context,
        NetworkArgs(
            cidr=settings.vpc_cidr,
            zones=zones if spread else zones[:1],
            egress=egress,
            services=services,
            public=public,
            shared=shared,
            log_retention_days=settings.log_retention_days,
            deletes=deletes,
        ),
    )
