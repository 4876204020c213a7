"""Machines that fine-tune a model and end themselves; several of them share an EFA network and a placement group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components import machine
from infra.components.base import Component, base64_text
from infra.context import Context
from infra.settings import TrainingSettings
from sizing.tables import read_rows

_CARDS = Path(__file__).parent.parent / "efa.csv"


@cache
def network_cards(instance_type: str) -> int:
    """Network cards of a type with EFA: 1 for those that the table does not name."""
    rows = read_rows(_CARDS, ("instance_type", "network_cards", "as_of", "source"))
    known = {row.text("instance_type"): row.integer("network_cards") for row in rows}
    return known.get(instance_type) or 1


def zone_name(context: Context) -> str:
    return f"{context.stack}.{context.project}.internal"


def first_node(context: Context) -> str:
    """The internal name of the node of rank 0, where the others meet it."""
    return f"node-0.{zone_name(context)}"


@dataclass(frozen=True, slots=True)
class TrainingNodesArgs:
    """All nodes stand in one subnet: EFA does not leave a zone."""

    settings: TrainingSettings
    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    profile: pulumi.Input[str]
    profile_arn: pulumi.Input[str]
    user_data: Sequence[pulumi.Output[str]]
    """One script a node: they differ in their rank."""
    after: Sequence[pulumi.Resource]
    """What nodes use at their start and do not name: their permissions, their way to AWS's APIs."""


class TrainingNodes(Component):
    """One instance a node; its own shutdown is its termination."""

    def __init__(self, name: str, context: Context, args: TrainingNodesArgs) -> None:
        super().__init__("TrainingNodes", name, context)
        self.args = args
        self.group = machine.security_group(self, f"{name}-group", "Berth: training", args.vpc_id)
        many = args.settings.nodes > 1
        self.efa = many and context.instance is not None and context.instance.efa
        if many:
            self._let_nodes_talk()
        self.placement: aws.ec2.PlacementGroup | None = None
        if many:
            self.placement = aws.ec2.PlacementGroup(
                f"{name}-together", strategy="cluster", tags=context.tags("together"), opts=self.child()
            )
        self.instances = [self._node(rank) for rank in range(args.settings.nodes)]
        if many:
            self._name_the_first()
        self.register_outputs({"instances": [i.id for i in self.instances]})

    def _name_the_first(self) -> None:
        """The nodes find each other at the name of the first, which their scripts know before it has an address."""
        zone = aws.route53.Zone(
            f"{self.name}-zone",
            name=zone_name(self.context),
            comment=f"Berth: {self.context.stack}",
            vpcs=[{"vpc_id": self.args.vpc_id}],
            tags=self.context.tags("zone"),
            opts=self.child(),
        )
        aws.route53.Record(
            f"{self.name}-first",
            zone_id=zone.zone_id,
            name=first_node(self.context),
            type="A",
            ttl=10,
            records=[self.instances[0].private_ip],
            opts=self.child(),
        )

    def _let_nodes_talk(self) -> None:
        """EFA needs all traffic to and from the group itself."""
        rules: dict[str, Any] = {
            "description": "Between the nodes",
            "security_group_id": self.group.id,
            "referenced_security_group_id": self.group.id,
            "ip_protocol": "-1",
            "tags": self.context.tags(),
        }
        aws.vpc.SecurityGroupIngressRule(f"{self.name}-nodes-in", **rules, opts=self.child())
        aws.vpc.SecurityGroupEgressRule(f"{self.name}-nodes-out", **rules, opts=self.child())

    def _node(self, rank: int) -> aws.ec2.Instance:
        args, settings, context = self.args, self.args.settings, self.context
        tags = context.tags(f"node-{rank}")
        size = machine.disk_gib(context)
        common: dict[str, Any] = {
            "instance_type": settings.instance_type,
            "instance_initiated_shutdown_behavior": "terminate",
            "user_data_replace_on_change": True,
            "tags": tags,
            "opts": self.child(
                # Its script runs at its first start alone: a change of it, as of a moved expiry, replaces no machine.
                ignore_changes=["ami", "userData"],
                depends_on=list(args.after),
                custom_timeouts=pulumi.CustomTimeouts(create="10m"),
            ),
        }
        image = machine.machine_image(settings, self)
        if not self.efa:
            return aws.ec2.Instance(
                f"{self.name}-{rank}",
                ami=image,
                subnet_id=args.subnet_id,
                vpc_security_group_ids=[self.group.id],
                associate_public_ip_address=False,
                iam_instance_profile=args.profile,
                metadata_options=machine.METADATA,
                root_block_device=machine.root_volume(size, tags),
                ebs_optimized=True,
                placement_group=self.placement.name if self.placement else None,
                instance_market_options=machine.market(settings.purchase),
                capacity_reservation_specification=_block(settings),
                user_data=args.user_data[rank],
                **common,
            )
        template = self._template(rank, image, size, tags)
        return aws.ec2.Instance(
            f"{self.name}-{rank}",
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            metadata_options=machine.METADATA,
            root_block_device=machine.root_volume(size, tags),
            **common,
        )

    def _template(self, rank: int, image: pulumi.Input[str], size: int, tags: dict[str, str]) -> aws.ec2.LaunchTemplate:
        """An instance itself cannot ask for EFA; its launch template can, one interface a network card."""
        args, settings = self.args, self.args.settings
        cards = network_cards(settings.instance_type)
        interfaces = [
            {
                "network_card_index": card,
                "device_index": 0 if card == 0 else 1,
                "interface_type": "efa",
                "subnet_id": args.subnet_id,
                "security_groups": [self.group.id],
                "delete_on_termination": "true",
                **({"associate_public_ip_address": "false"} if cards == 1 else {}),
            }
            for card in range(cards)
        ]
        return aws.ec2.LaunchTemplate(
            f"{self.name}-{rank}-template",
            image_id=image,
            instance_type=settings.instance_type,
            iam_instance_profile={"arn": args.profile_arn},
            metadata_options=machine.METADATA,
            block_device_mappings=[machine.block_device(size)],
            ebs_optimized="true",
            instance_initiated_shutdown_behavior="terminate",
            instance_market_options=machine.market(settings.purchase),
            capacity_reservation_specification=_block(settings),
            placement={"group_name": self.placement.name} if self.placement else None,
            network_interfaces=interfaces,
            user_data=args.user_data[rank].apply(base64_text),
            update_default_version=True,
            tag_specifications=[{"resource_type": "volume", "tags": tags}],
            tags=self.context.tags(f"node-{rank}-template"),
            opts=self.child(ignore_changes=["imageId", "userData"]),
        )


def _block(settings: TrainingSettings) -> dict[str, Any] | None:
    if not settings.capacity_block_id:
        return None
    return {"capacity_reservation_target": {"capacity_reservation_id": settings.capacity_block_id}}
