"""A plan written as Terraform's HCL, which checkov reads. For checking only: nobody applies it.

Pulumi's AWS provider is made from Terraform's, so types and inputs correspond: names in snake_case, repeated blocks in
the singular. Values that are another resource's id or ARN become references, so that checks across resources work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.plan import Plan, PlannedResource

TYPES: dict[str, str] = {
    "aws:appautoscaling/policy:Policy": "aws_appautoscaling_policy",
    "aws:appautoscaling/target:Target": "aws_appautoscaling_target",
    "aws:autoscaling/group:Group": "aws_autoscaling_group",
    "aws:autoscaling/policy:Policy": "aws_autoscaling_policy",
    "aws:autoscaling/schedule:Schedule": "aws_autoscaling_schedule",
    "aws:budgets/budget:Budget": "aws_budgets_budget",
    "aws:cloudwatch/dashboard:Dashboard": "aws_cloudwatch_dashboard",
    "aws:cloudwatch/logGroup:LogGroup": "aws_cloudwatch_log_group",
    "aws:cloudwatch/metricAlarm:MetricAlarm": "aws_cloudwatch_metric_alarm",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "aws_default_security_group",
    "aws:ec2/eip:Eip": "aws_eip",
    "aws:ec2/flowLog:FlowLog": "aws_flow_log",
    "aws:ec2/instance:Instance": "aws_instance",
    "aws:ec2/internetGateway:InternetGateway": "aws_internet_gateway",
    "aws:ec2/launchTemplate:LaunchTemplate": "aws_launch_template",
    "aws:ec2/natGateway:NatGateway": "aws_nat_gateway",
    "aws:ec2/placementGroup:PlacementGroup": "aws_placement_group",
    "aws:ec2/route:Route": "aws_route",
    "aws:ec2/routeTable:RouteTable": "aws_route_table",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "aws_route_table_association",
    "aws:ec2/securityGroup:SecurityGroup": "aws_security_group",
    "aws:ec2/subnet:Subnet": "aws_subnet",
    "aws:ec2/vpc:Vpc": "aws_vpc",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "aws_vpc_endpoint",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "aws_ecr_lifecycle_policy",
    "aws:ecr/repository:Repository": "aws_ecr_repository",
    "aws:iam/instanceProfile:InstanceProfile": "aws_iam_instance_profile",
    "aws:iam/role:Role": "aws_iam_role",
    "aws:iam/rolePolicy:RolePolicy": "aws_iam_role_policy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "aws_iam_role_policy_attachment",
    "aws:kms/alias:Alias": "aws_kms_alias",
    "aws:kms/key:Key": "aws_kms_key",
    "aws:lb/listener:Listener": "aws_lb_listener",
    "aws:lb/loadBalancer:LoadBalancer": "aws_lb",
    "aws:lb/targetGroup:TargetGroup": "aws_lb_target_group",
    "aws:route53/record:Record": "aws_route53_record",
    "aws:route53/zone:Zone": "aws_route53_zone",
    "aws:s3/bucket:Bucket": "aws_s3_bucket",
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": "aws_s3_bucket_lifecycle_configuration",
    "aws:s3/bucketLogging:BucketLogging": "aws_s3_bucket_logging",
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": "aws_s3_bucket_ownership_controls",
    "aws:s3/bucketPolicy:BucketPolicy": "aws_s3_bucket_policy",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "aws_s3_bucket_public_access_block",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "aws_s3_bucket_server_side_encryption_configuration"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": "aws_s3_bucket_versioning",
    "aws:sagemaker/endpoint:Endpoint": "aws_sagemaker_endpoint",
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": "aws_sagemaker_endpoint_configuration",
    "aws:sagemaker/model:Model": "aws_sagemaker_model",
    "aws:scheduler/schedule:Schedule": "aws_scheduler_schedule",
    "aws:sns/topic:Topic": "aws_sns_topic",
    "aws:sns/topicPolicy:TopicPolicy": "aws_sns_topic_policy",
    "aws:sns/topicSubscription:TopicSubscription": "aws_sns_topic_subscription",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "aws_vpc_security_group_ingress_rule",
}
_SINGULAR = {
    "rules": "rule",
    "initial_lifecycle_hooks": "initial_lifecycle_hook",
    "cost_filters": "cost_filter",
    "notifications": "notification",
    "default_actions": "default_action",
    "encryption_configurations": "encryption_configuration",
    "vpcs": "vpc",
    "step_adjustments": "step_adjustment",
    "s3_data_sources": "s3_data_source",
    "additional_model_data_sources": "additional_model_data_source",
    "metric_dimensions": "metric_dimensions",
    "vpc_zone_identifiers": "vpc_zone_identifier",
}
_MAPS = frozenset({"tags", "dimensions", "environment", "tags_all"})
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake(name: str) -> str:
    """`metadataOptions` as `metadata_options`."""
    return _CAPITAL.sub("_", name).lower()


def to_terraform(plan: Plan) -> str:
    """The plan's AWS resources as HCL. Raises `KeyError` for a type that the table lacks: it would go unchecked."""
    resources = [r for r in plan.resources if r.type.startswith("aws:")]
    references = _references(resources)
    blocks = []
    for resource in resources:
        own = {k: v for k, v in references.items() if not v.startswith(f"{_address(resource)}.")}
        body = "\n".join(_body(resource.inputs, own, 1))
        blocks.append(f'resource "{TYPES[resource.type]}" "{_label(resource.name)}" {{\n{body}\n}}\n')
    return "\n".join(blocks)


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _address(resource: PlannedResource) -> str:
    return f"{TYPES[resource.type]}.{_label(resource.name)}"


def _references(resources: list[PlannedResource]) -> dict[str, str]:
    """Values that stand for another resource, with the expression that names it."""
    found: dict[str, str] = {}
    for resource in resources:
        found[f"{resource.name}-id"] = f"{_address(resource)}.id"
        if resource.type == "aws:s3/bucket:Bucket":
            found[str(resource.inputs.get("bucket"))] = f"{_address(resource)}.bucket"
        if resource.type in ("aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"):
            found[resource.name] = f"{_address(resource)}.name"
    return found


def _body(inputs: Mapping[str, Any], references: Mapping[str, str], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, value in sorted(inputs.items()):
        name = snake(key)
        name = _SINGULAR.get(name, name)
        blocks = value if isinstance(value, list) else [value]
        if name == "tags" and isinstance(value, list):
            name = "tag"
        if name not in _MAPS and blocks and all(isinstance(b, Mapping) for b in blocks):
            for block in blocks:
                yield f"{indent}{name} {{"
                yield from _body(block, references, depth + 1)
                yield f"{indent}}}"
        else:
            yield f"{indent}{name} = {_value(value, references)}"


def _value(value: Any, references: Mapping[str, str]) -> str:
    if isinstance(value, str):
        if value in references:
            return references[value]
        # Template signs of the value itself must not be read as HCL's.
        return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, list):
        return f"[{', '.join(_value(v, references) for v in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(k)} = {_value(v, references)}" for k, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value)
