"""A SageMaker endpoint that serves the same container and model folder as a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.base import Component
from infra.context import Context, Shared
from infra.settings import EndpointSettings

VARIANT = "main"
WEIGHTS_CHANNEL = "weights"
WEIGHTS_FOLDER = "/opt/ml/additional-model-data-sources"
"""Where SageMaker puts a channel's files; the LMI model folder itself is at /opt/ml/model."""
INVOCATIONS_PER_INSTANCE = 60.0
"""Invocations a minute at which auto scaling adds an instance: one a second, until `berth verify` has measured more."""
BACKLOG_PER_INSTANCE = 5.0


@dataclass(frozen=True, slots=True)
class EndpointArgs:
    """Prefixes in the artifact bucket: the LMI model folder, the weights, and where the endpoint writes."""

    settings: EndpointSettings
    asynchronous: bool
    shared: Shared
    image: str
    bundle_prefix: str
    artifact_prefix: str
    output_prefix: str
    environment: Mapping[str, str]
    role_arn: pulumi.Input[str]
    role_policy: pulumi.Resource
    vpc_id: pulumi.Input[str]
    subnets: Sequence[pulumi.Input[str]]
    start_up_seconds: int
    ami_version: str


def endpoint_logs(context: Context) -> str:
    """The log group to which SageMaker writes for the stack's endpoint: it names it itself."""
    return f"/aws/sagemaker/Endpoints/{context.project}-{context.stack}"


class Endpoint(Component):
    """Model, configuration and endpoint; scales with its load, to zero where it is asynchronous."""

    def __init__(self, name: str, context: Context, args: EndpointArgs) -> None:
        super().__init__("Endpoint", name, context)
        self.args = args
        group = aws.ec2.SecurityGroup(
            f"{name}-group",
            description="Berth: the endpoint's containers",
            vpc_id=args.vpc_id,
            tags=context.tags("endpoint"),
            opts=self.child(),
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-https",
            security_group_id=group.id,
            description="The artifact bucket",
            cidr_ipv4="0.0.0.0/0",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=context.tags(),
            opts=self.child(),
        )
        self.model = aws.sagemaker.Model(
            f"{name}-model",
            execution_role_arn=args.role_arn,
            primary_container={
                "image": args.image,
                "environment": {**args.environment, "BERTH_MODEL_DIR": f"{WEIGHTS_FOLDER}/{WEIGHTS_CHANNEL}"},
                "model_data_source": {"s3_data_sources": [self._source(args.bundle_prefix)]},
                "additional_model_data_sources": [
                    {"channel_name": WEIGHTS_CHANNEL, "s3_data_sources": [self._source(args.artifact_prefix)]}
                ],
            },
            vpc_config={"subnets": list(args.subnets), "security_group_ids": [group.id]},
            enable_network_isolation=True,
            tags=context.tags("model"),
            # SageMaker reads the model while it makes it: the role must be allowed to by then.
            opts=self.child(depends_on=[args.role_policy]),
        )
        self.configuration = self._configuration()
        self.endpoint = aws.sagemaker.Endpoint(
            f"{name}-endpoint",
            name=f"{context.project}-{context.stack}",
            endpoint_config_name=self.configuration.name,
            tags=context.tags("endpoint"),
            opts=self.child(custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m")),
        )
        aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=endpoint_logs(context),
            retention_in_days=args.settings.log_retention_days,
            kms_key_id=args.shared.key_arn,
            tags=context.tags("logs"),
            opts=self.child(),
        )
        self._scaling()
        self.register_outputs({"endpoint": self.endpoint.name})

    def _source(self, prefix: str) -> dict[str, Any]:
        uri = pulumi.Output.concat("s3://", self.args.shared.bucket, f"/{prefix}/")
        return {"s3_uri": uri, "s3_data_type": "S3Prefix", "compression_type": "None"}

    def _configuration(self) -> aws.sagemaker.EndpointConfiguration:
        args, context, settings = self.args, self.context, self.args.settings
        local = bool(context.instance and context.instance.local_nvme_gb)
        output = pulumi.Output.concat("s3://", args.shared.bucket, f"/{args.output_prefix}")
        capture = None
        if settings.capture_percent and not args.asynchronous:
            capture = {
                "enable_capture": True,
                "initial_sampling_percentage": settings.capture_percent,
                "destination_s3_uri": pulumi.Output.concat(output, "/capture"),
                "kms_key_id": args.shared.key_arn,
                "capture_options": [{"capture_mode": "Input"}, {"capture_mode": "Output"}],
            }
        asynchronous = None
        if args.asynchronous:
            asynchronous = {
                "output_config": {
                    "s3_output_path": pulumi.Output.concat(output, "/async"),
                    "s3_failure_path": pulumi.Output.concat(output, "/async-failures"),
                    "kms_key_id": args.shared.key_arn,
                },
                "client_config": {"max_concurrent_invocations_per_instance": settings.batch},
            }
        return aws.sagemaker.EndpointConfiguration(
            f"{self.name}-config",
            # SageMaker takes no key for instances whose own disks are encrypted by the hardware.
            kms_key_arn=None if local else args.shared.key_arn,
            production_variants=[
                {
                    "variant_name": VARIANT,
                    "model_name": self.model.name,
                    "instance_type": f"ml.{settings.instance_type}",
                    "initial_instance_count": settings.replicas,
                    "initial_variant_weight": 1,
                    "inference_ami_version": args.ami_version,
                    "container_startup_health_check_timeout_in_seconds": min(3600, max(60, args.start_up_seconds)),
                    "model_data_download_timeout_in_seconds": min(3600, max(60, args.start_up_seconds)),
                }
            ],
            data_capture_config=capture,
            async_inference_config=asynchronous,
            tags=context.tags("config"),
            opts=self.child(),
        )

    def _scaling(self) -> None:
        settings = self.args.settings
        least = 0 if self.args.asynchronous else settings.replicas
        if least == settings.most_replicas:
            return
        target = aws.appautoscaling.Target(
            f"{self.name}-scaling",
            service_namespace="sagemaker",
            resource_id=pulumi.Output.concat("endpoint/", self.endpoint.name, f"/variant/{VARIANT}"),
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            min_capacity=least,
            max_capacity=settings.most_replicas,
            tags=self.context.tags("scaling"),
            opts=self.child(),
        )
        if self.args.asynchronous:
            self._asynchronous_scaling(target)
            return
        metric = {"predefined_metric_type": "SageMakerVariantInvocationsPerInstance"}
        self._track(target, "load", INVOCATIONS_PER_INSTANCE, 300, predefined_metric_specification=metric)

    def _track(
        self, target: aws.appautoscaling.Target, name: str, value: float, scale_in_s: int, **metric: Any
    ) -> None:
        """A policy that holds a metric at `value`."""
        aws.appautoscaling.Policy(
            f"{self.name}-{name}",
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            resource_id=target.resource_id,
            scalable_dimension=target.scalable_dimension,
            target_tracking_scaling_policy_configuration={
                "target_value": value,
                **metric,
                "scale_in_cooldown": scale_in_s,
                "scale_out_cooldown": 60,
            },
            opts=self.child(),
        )

    def _asynchronous_scaling(self, target: aws.appautoscaling.Target) -> None:
        metric = {
            "namespace": "AWS/SageMaker",
            "metric_name": "ApproximateBacklogSizePerInstance",
            "statistic": "Average",
            "dimensions": [{"name": "EndpointName", "value": self.endpoint.name}],
        }
        self._track(target, "backlog", BACKLOG_PER_INSTANCE, 600, customized_metric_specification=metric)
        # Without an instance there is no backlog per instance: this one starts the first.
        wake = aws.appautoscaling.Policy(
            f"{self.name}-wake",
            policy_type="StepScaling",
            service_namespace=target.service_namespace,
            resource_id=target.resource_id,
            scalable_dimension=target.scalable_dimension,
            step_scaling_policy_configuration={
                "adjustment_type": "ChangeInCapacity",
                "metric_aggregation_type": "Average",
                "cooldown": 300,
                "step_adjustments": [{"metric_interval_lower_bound": "0", "scaling_adjustment": 1}],
            },
            opts=self.child(),
        )
        aws.cloudwatch.MetricAlarm(
            f"{self.name}-waiting",
            alarm_description=f"{self.context.stack}: requests wait and no instance runs",
            namespace="AWS/SageMaker",
            metric_name="HasBacklogWithoutCapacity",
            dimensions={"EndpointName": self.endpoint.name},
            statistic="Average",
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            period=60,
            evaluation_periods=1,
            treat_missing_data="missing",
            alarm_actions=[wake.arn],
            tags=self.context.tags("waiting"),
            opts=self.child(),
        )
