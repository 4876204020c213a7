"""One EC2 host that serves a model, behind an internal DNS name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components import machine
from infra.components.base import Component
from infra.context import Context
from infra.settings import InferenceSettings

FEEDBACK_ROUTE = "/predictions/feedback"
"""DJL Serving's route of the model folder `feedback`."""


@dataclass(frozen=True, slots=True)
class InferenceHostArgs:
    """`callers` are CIDR blocks that reach the service's port, and that of feedback where it is on."""

    settings: InferenceSettings
    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    callers: Sequence[pulumi.Input[str]]
    profile: pulumi.Input[str]
    user_data: pulumi.Input[str]
    after: Sequence[pulumi.Resource]
    """What the host uses at its start and does not name: its permissions, its way to AWS's APIs."""


class InferenceHost(Component):
    """Replaced only when its type, subnet or user data change; a newer AMI leaves it as it is."""

    def __init__(self, name: str, context: Context, args: InferenceHostArgs) -> None:
        super().__init__("InferenceHost", name, context)
        settings = args.settings
        group = machine.security_group(self, f"{name}-group", "Berth: the model server", args.vpc_id)
        for number, block in enumerate(args.callers):
            machine.let_in(
                self, group, f"{name}-caller-{number}", machine.SERVICE_PORT, "Callers of the service", cidr=block
            )
            if settings.feedback:
                machine.let_in(
                    self, group, f"{name}-feedback-{number}", machine.FEEDBACK_PORT, "Feedback of callers", cidr=block
                )
        tags = context.tags("host")
        self.instance = aws.ec2.Instance(
            f"{name}-instance",
            ami=machine.machine_image(settings, self),
            instance_type=settings.instance_type,
            subnet_id=args.subnet_id,
            vpc_security_group_ids=[group.id],
            associate_public_ip_address=False,
            iam_instance_profile=args.profile,
            metadata_options=machine.METADATA,
            root_block_device=machine.root_volume(machine.disk_gib(context), tags),
            ebs_optimized=True,
            instance_market_options=machine.market(settings.purchase),
            # Office hours stop and start it, so its own shutdown must not end it.
            instance_initiated_shutdown_behavior="terminate" if settings.purchase == "spot" else "stop",
            user_data=args.user_data,
            user_data_replace_on_change=True,
            tags=tags,
            opts=self.child(
                ignore_changes=["ami"],
                depends_on=list(args.after),
                # Without capacity the provider would try for the best part of an hour.
                custom_timeouts=pulumi.CustomTimeouts(create="10m"),
            ),
        )
        zone = aws.route53.Zone(
            f"{name}-zone",
            name=f"{context.stack}.{context.project}.internal",
            comment=f"Berth: {context.stack}",
            vpcs=[{"vpc_id": args.vpc_id}],
            tags=context.tags("zone"),
            opts=self.child(),
        )
        self.record = aws.route53.Record(
            f"{name}-name",
            zone_id=zone.zone_id,
            name=f"{context.stack}.{context.project}.internal",
            type="A",
            ttl=30,
            records=[self.instance.private_ip],
            opts=self.child(),
        )
        address = f"http://{context.stack}.{context.project}.internal"
        self.url = f"{address}:{machine.SERVICE_PORT}"
        self.feedback_url = f"{address}:{machine.FEEDBACK_PORT}{FEEDBACK_ROUTE}" if settings.feedback else ""
        if settings.office_hours is not None:
            self._office_hours(settings)
        self.register_outputs({"url": self.url, "instance_id": self.instance.id})

    def _office_hours(self, settings: InferenceSettings) -> None:
        from infra.components.guard import scheduler_role  # noqa: PLC0415 (guard builds on no host)

        hours = settings.office_hours
        if hours is None:
            return
        role = scheduler_role(
            self,
            f"{self.name}-hours",
            ["ec2:StartInstances", "ec2:StopInstances"],
            [self.context.arn("ec2", "instance/*")],
        )
        for verb, minutes in (("start", hours.start), ("stop", hours.stop)):
            aws.scheduler.Schedule(
                f"{self.name}-{verb}",
                description=f"Office hours of {self.context.stack}: {verb}",
                schedule_expression=hours.scheduler_cron(minutes),
                schedule_expression_timezone=hours.zone,
                end_date=self.context.expiry if self.context.expires_at else None,
                flexible_time_window={"mode": "OFF"},
                target={
                    "arn": f"arn:{self.context.partition}:scheduler:::aws-sdk:ec2:{verb}Instances",
                    "role_arn": role.arn,
                    "input": pulumi.Output.json_dumps({"InstanceIds": [self.instance.id]}),
                    "retry_policy": {"maximum_retry_attempts": 10},
                },
                opts=self.child(),
            )
