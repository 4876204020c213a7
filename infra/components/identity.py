"""Who a machine is: one role a purpose, with what it needs by name and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.base import Component, Statement, allow, assumed_by, policy
from infra.context import Context, Shared
from infra.metrics import AGENT_NAMESPACE, NAMESPACE


@dataclass(frozen=True, slots=True)
class IdentityArgs:
    """Prefixes lie in the artifact bucket; repositories are ARNs of ECR."""

    service: str
    """Who takes the role: ec2.amazonaws.com or sagemaker.amazonaws.com."""
    shared: Shared
    read_prefixes: Sequence[str]
    write_prefixes: Sequence[str]
    repositories: Sequence[pulumi.Input[str]]
    log_streams: Sequence[pulumi.Input[str]]
    """ARNs of the log streams that it writes, with * for the part that is not known before."""
    delete_prefixes: Sequence[str] = ()
    """Where it may delete objects: what a run replaces by newer ones. The bucket keeps versions all the same."""
    in_parts: bool = False
    """Whether it uploads files in parts, which an upload that fails must be able to give up."""
    extra: Sequence[Statement] = ()


class Identity(Component):
    """A role, its policy and, for EC2, its instance profile. No keys, no users."""

    def __init__(self, name: str, context: Context, args: IdentityArgs) -> None:
        super().__init__("Identity", name, context)
        on_ec2 = args.service == "ec2.amazonaws.com"
        self.role = aws.iam.Role(
            f"{name}-role",
            description=f"Berth: {context.stack}",
            # EC2 passes no source account when it takes a role for an instance profile.
            assume_role_policy=assumed_by(args.service, "" if on_ec2 else context.account),
            tags=context.tags("role"),
            opts=self.child(),
        )
        self.policy = aws.iam.RolePolicy(
            f"{name}-policy", role=self.role.id, policy=policy(*_statements(context, args)), opts=self.child()
        )
        self.profile: aws.iam.InstanceProfile | None = None
        if on_ec2:
            aws.iam.RolePolicyAttachment(
                f"{name}-session-manager",
                role=self.role.name,
                policy_arn=f"arn:{context.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore",
                opts=self.child(),
            )
            self.profile = aws.iam.InstanceProfile(
                f"{name}-profile", role=self.role.name, tags=context.tags("profile"), opts=self.child()
            )
        self.register_outputs({"role_arn": self.role.arn})


def _statements(context: Context, args: IdentityArgs) -> list[Statement]:
    bucket = args.shared.bucket_arn

    def objects(prefixes: Sequence[str]) -> list[pulumi.Input[str]]:
        return [pulumi.Output.concat(bucket, f"/{prefix}/*") for prefix in prefixes]

    listed = [pattern for p in (*args.read_prefixes, *args.write_prefixes) for pattern in (p, f"{p}/*")]
    statements = [
        allow("ReadArtifacts", ["s3:GetObject"], objects([*args.read_prefixes, *args.write_prefixes])),
        allow("ListArtifacts", ["s3:ListBucket"], [bucket], {"StringLike": {"s3:prefix": listed}}),
        allow(
            "Key",
            ["kms:Decrypt", "kms:GenerateDataKey"],
            [args.shared.key_arn],
            {"StringEquals": {"kms:ViaService": f"s3.{context.region}.amazonaws.com"}},
        ),
        # Logging in to ECR and sending metrics know no resources; AWS permits no narrower one.
        allow("RegistryLogin", ["ecr:GetAuthorizationToken"], ["*"]),
        allow(
            "Metrics",
            ["cloudwatch:PutMetricData"],
            ["*"],
            {"StringEquals": {"cloudwatch:namespace": [NAMESPACE, AGENT_NAMESPACE, "/aws/sagemaker/Endpoints"]}},
        ),
        allow(
            "Logs",
            ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
            args.log_streams,
        ),
    ]
    if args.write_prefixes:
        parts = ["s3:AbortMultipartUpload"] if args.in_parts else []
        statements.append(allow("WriteArtifacts", ["s3:PutObject", *parts], objects(args.write_prefixes)))
    if args.delete_prefixes:
        statements.append(allow("DeleteReplaced", ["s3:DeleteObject"], objects(args.delete_prefixes)))
    if args.repositories:
        statements.append(
            allow(
                "PullImages",
                ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"],
                list(args.repositories),
            )
        )
    return [*statements, *args.extra]
