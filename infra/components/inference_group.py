"""Several EC2 hosts that serve a model: launch template, auto scaling group, load balancer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra import metrics
from infra.components import machine
from infra.components.base import Component, base64_text, short_name
from infra.context import Context, Shared
from infra.settings import InferenceSettings

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
HOOK = "ready"
GPU_TARGET_PERCENT = 70.0
"""Average GPU use that auto scaling aims at."""


@dataclass(frozen=True, slots=True)
class LoadBalancerArgs:
    """`subnets`: public ones where callers come from the internet, private ones otherwise."""

    settings: InferenceSettings
    vpc_id: pulumi.Input[str]
    subnets: Sequence[pulumi.Input[str]]
    callers: Sequence[pulumi.Input[str]]
    shared: Shared


class InferenceBalancer(Component):
    """The load balancer, its target group and the group of its hosts; made before the hosts, which know it by name."""

    def __init__(self, name: str, context: Context, args: LoadBalancerArgs) -> None:
        super().__init__("InferenceBalancer", name, context)
        settings = args.settings
        secure = bool(settings.certificate_arn)
        port = 443 if secure else 80
        group = aws.ec2.SecurityGroup(
            f"{name}-group",
            description="Berth: the load balancer",
            vpc_id=args.vpc_id,
            tags=context.tags(name),
            opts=self.child(),
        )
        for number, block in enumerate(args.callers):
            machine.let_in(self, group, f"{name}-caller-{number}", port, "Callers of the service", cidr=block)
        self.host_group = machine.security_group(self, f"{name}-hosts", "Berth: the model servers", args.vpc_id)
        machine.let_in(
            self, self.host_group, f"{name}-to-hosts", machine.SERVICE_PORT, "The load balancer", source=group.id
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-out",
            security_group_id=group.id,
            description="The model servers",
            referenced_security_group_id=self.host_group.id,
            ip_protocol="tcp",
            from_port=machine.SERVICE_PORT,
            to_port=machine.SERVICE_PORT,
            tags=context.tags(),
            opts=self.child(),
        )
        self.balancer = aws.lb.LoadBalancer(
            short_name(name, 32),
            load_balancer_type="application",
            internal=not settings.internet_facing,
            security_groups=[group.id],
            subnets=list(args.subnets),
            drop_invalid_header_fields=True,
            idle_timeout=max(60, int(settings.alarm_seconds * 4)),
            access_logs={"bucket": args.shared.logs_bucket, "prefix": f"lb/{context.stack}", "enabled": True},
            tags=context.tags("balancer"),
            opts=self.child(),
        )
        self.targets = aws.lb.TargetGroup(
            short_name(f"{name}-hosts", 32),
            vpc_id=args.vpc_id,
            port=machine.SERVICE_PORT,
            protocol="HTTP",
            target_type="instance",
            deregistration_delay=60,
            load_balancing_algorithm_type="least_outstanding_requests",
            health_check={
                "path": "/ping",
                "matcher": "200",
                "interval": 15,
                "timeout": 10,
                "healthy_threshold": 2,
                "unhealthy_threshold": 3,
            },
            tags=context.tags("hosts"),
            opts=self.child(),
        )
        aws.lb.Listener(
            f"{name}-listener",
            load_balancer_arn=self.balancer.arn,
            port=port,
            protocol="HTTPS" if secure else "HTTP",
            certificate_arn=settings.certificate_arn or None,
            ssl_policy=TLS_POLICY if secure else None,
            default_actions=[{"type": "forward", "target_group_arn": self.targets.arn}],
            tags=context.tags(),
            opts=self.child(),
        )
        scheme = "https" if secure else "http"
        self.url = pulumi.Output.concat(f"{scheme}://", self.balancer.dns_name)
        self.register_outputs({"url": self.url})


@dataclass(frozen=True, slots=True)
class InferenceGroupArgs:
    """`start_up_seconds`: how long a host may take until it must answer."""

    settings: InferenceSettings
    balancer: InferenceBalancer
    subnets: Sequence[pulumi.Input[str]]
    profile_arn: pulumi.Input[str]
    user_data: pulumi.Output[str]
    start_up_seconds: int
    after: Sequence[pulumi.Resource]
    """What hosts use at their start and do not name: their permissions, their way to AWS's APIs."""


def group_name(context: Context) -> str:
    """Fixed, because the hosts must know it before the group exists."""
    return f"{context.project}-{context.stack}"


class InferenceGroup(Component):
    """Hosts that a load balancer checks and auto scaling keeps at the wished number."""

    def __init__(self, name: str, context: Context, args: InferenceGroupArgs) -> None:
        super().__init__("InferenceGroup", name, context)
        settings, tags = args.settings, context.tags("host")
        self.template = aws.ec2.LaunchTemplate(
            f"{name}-template",
            image_id=machine.machine_image(settings, self),
            instance_type=settings.instance_type,
            iam_instance_profile={"arn": args.profile_arn},
            metadata_options=machine.METADATA,
            block_device_mappings=[machine.block_device(machine.disk_gib(context))],
            ebs_optimized="true",
            instance_market_options=_market(settings.purchase),
            network_interfaces=[
                {
                    "associate_public_ip_address": "false",
                    "delete_on_termination": "true",
                    "security_groups": [args.balancer.host_group.id],
                }
            ],
            user_data=args.user_data.apply(base64_text),
            update_default_version=True,
            tag_specifications=[{"resource_type": kind, "tags": tags} for kind in ("instance", "volume")],
            tags=context.tags("template"),
            opts=self.child(ignore_changes=["imageId"]),
        )
        self.group = aws.autoscaling.Group(
            f"{name}-hosts",
            name=group_name(context),
            min_size=settings.replicas,
            max_size=settings.most_replicas,
            vpc_zone_identifiers=list(args.subnets),
            launch_template={"id": self.template.id, "version": self.template.latest_version.apply(str)},
            target_group_arns=[args.balancer.targets.arn],
            health_check_type="ELB",
            health_check_grace_period=args.start_up_seconds,
            default_instance_warmup=args.start_up_seconds,
            capacity_rebalance=settings.purchase == "spot",
            # A host counts from the moment that it says it is ready.
            initial_lifecycle_hooks=[
                {
                    "name": HOOK,
                    "lifecycle_transition": "autoscaling:EC2_INSTANCE_LAUNCHING",
                    "heartbeat_timeout": min(7200, args.start_up_seconds),
                    "default_result": "ABANDON",
                }
            ],
            instance_refresh={"strategy": "Rolling", "preferences": {"min_healthy_percentage": 90}},
            wait_for_capacity_timeout=f"{args.start_up_seconds + 600}s",
            tags=[
                {"key": key, "value": value, "propagate_at_launch": True} for key, value in context.tags("host").items()
            ],
            opts=self.child(ignore_changes=["desiredCapacity"], depends_on=list(args.after)),
        )
        if settings.most_replicas > settings.replicas:
            self._scale()
        if settings.office_hours is not None:
            self._office_hours(settings)
        self.register_outputs({"group": self.group.name})

    def _scale(self) -> None:
        aws.autoscaling.Policy(
            f"{self.name}-gpu",
            autoscaling_group_name=self.group.name,
            policy_type="TargetTrackingScaling",
            target_tracking_configuration={
                "target_value": GPU_TARGET_PERCENT,
                "customized_metric_specification": {
                    "namespace": metrics.AGENT_NAMESPACE,
                    "metric_name": metrics.GPU_USE,
                    "statistic": "Average",
                    "metric_dimensions": [{"name": "AutoScalingGroupName", "value": group_name(self.context)}],
                },
            },
            opts=self.child(),
        )

    def _office_hours(self, settings: InferenceSettings) -> None:
        hours = settings.office_hours
        if hours is None:
            return
        sizes = {"open": (hours.start, settings.replicas, settings.most_replicas), "closed": (hours.stop, 0, 0)}
        for state, (minutes, least, most) in sizes.items():
            aws.autoscaling.Schedule(
                f"{self.name}-{state}",
                scheduled_action_name=state,
                autoscaling_group_name=self.group.name,
                recurrence=hours.cron(minutes),
                time_zone=hours.zone,
                min_size=least,
                max_size=most,
                desired_capacity=least,
                # Nothing opens any more once the stack has expired.
                end_time=self.context.expiry if self.context.expires_at else None,
                opts=self.child(),
            )


def _market(purchase: str) -> dict[str, str] | None:
    # Auto scaling asks for one-time spot requests itself and refuses any other option.
    return {"market_type": "spot"} if purchase == "spot" else None
