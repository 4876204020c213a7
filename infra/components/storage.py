"""Where artifacts live: an encrypted, versioned bucket, its key, and a bucket for access logs."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.base import Component, allow, policy
from infra.context import Context
from infra.places import bucket_name

LOG_DAYS = 90
ACCESS_LOGS = "s3/artifacts/"
"""Prefix in the log bucket under which S3 notes who read the artifacts."""


@dataclass(frozen=True, slots=True)
class StorageArgs:
    """`keep_versions_days`: how long replaced and deleted versions of an artifact are kept."""

    keep_versions_days: int


class Storage(Component):
    """Bucket names follow from account and region, so that they are known before the buckets exist."""

    def __init__(self, name: str, context: Context, args: StorageArgs) -> None:
        super().__init__("Storage", name, context)
        kept = self.child(protect=True, retain_on_delete=True)
        self.key = aws.kms.Key(
            f"{name}-key",
            description=f"Berth: artifacts, logs and alarms of {context.project}",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=_key_policy(context),
            tags=context.tags("key"),
            opts=kept,
        )
        aws.kms.Alias(
            f"{name}-key-alias",
            name=f"alias/{context.project}-{context.stack}",
            target_key_id=self.key.key_id,
            opts=self.child(),
        )
        self.logs = self._bucket("logs", kept)
        self._close("logs", self.logs)
        self._expire_logs()
        self.logs_policy = self._logs_policy()
        self.artifacts = self._bucket("artifacts", kept)
        self._close("artifacts", self.artifacts)
        self._artifacts(args)
        self.register_outputs({"artifacts": self.artifacts.bucket, "logs": self.logs.bucket, "key": self.key.arn})

    def _bucket(self, purpose: str, opts: pulumi.ResourceOptions) -> aws.s3.Bucket:
        context = self.context
        return aws.s3.Bucket(
            f"{self.name}-{purpose}",
            bucket=bucket_name(purpose, context.account, context.region, context.project),
            tags=context.tags(purpose),
            opts=opts,
        )

    def _close(self, purpose: str, bucket: aws.s3.Bucket) -> None:
        """Nothing public, no ACLs, versions kept."""
        aws.s3.BucketPublicAccessBlock(
            f"{self.name}-{purpose}-private",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self.child(),
        )
        aws.s3.BucketOwnershipControls(
            f"{self.name}-{purpose}-owner",
            bucket=bucket.id,
            rule={"object_ownership": "BucketOwnerEnforced"},
            opts=self.child(),
        )
        aws.s3.BucketVersioning(
            f"{self.name}-{purpose}-versions",
            bucket=bucket.id,
            versioning_configuration={"status": "Enabled"},
            opts=self.child(),
        )

    def _expire_logs(self) -> None:
        # Log delivery writes with S3's own key only.
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{self.name}-logs-encryption",
            bucket=self.logs.id,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=self.child(),
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{self.name}-logs-lifecycle",
            bucket=self.logs.id,
            rules=[
                {
                    "id": "expire",
                    "status": "Enabled",
                    "filter": {},
                    "expiration": {"days": LOG_DAYS},
                    "noncurrent_version_expiration": {"noncurrent_days": 1},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 1},
                }
            ],
            opts=self.child(),
        )

    def _logs_policy(self) -> aws.s3.BucketPolicy:
        context, arn = self.context, self.logs.arn
        own = {"StringEquals": {"aws:SourceAccount": context.account}}
        return aws.s3.BucketPolicy(
            f"{self.name}-logs-policy",
            bucket=self.logs.id,
            policy=policy(
                allow(
                    "BucketAccessLogs",
                    ["s3:PutObject"],
                    [pulumi.Output.concat(arn, f"/{ACCESS_LOGS}*")],
                    own,
                    {"Service": "logging.s3.amazonaws.com"},
                ),
                allow(
                    "LoadBalancerLogs",
                    ["s3:PutObject"],
                    [pulumi.Output.concat(arn, f"/lb/*/AWSLogs/{context.account}/*")],
                    None,
                    {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
                ),
                _tls_only(arn),
            ),
            opts=self.child(),
        )

    def _artifacts(self, args: StorageArgs) -> None:
        bucket = self.artifacts
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{self.name}-artifacts-encryption",
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": self.key.arn,
                    },
                    # One data key for many objects: a hundredth of the requests to KMS.
                    "bucket_key_enabled": True,
                }
            ],
            opts=self.child(),
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{self.name}-artifacts-lifecycle",
            bucket=bucket.id,
            rules=[
                {
                    "id": "replaced-versions",
                    "status": "Enabled",
                    "filter": {},
                    "noncurrent_version_expiration": {"noncurrent_days": args.keep_versions_days},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            opts=self.child(),
        )
        aws.s3.BucketLogging(
            f"{self.name}-artifacts-logging",
            bucket=bucket.id,
            target_bucket=self.logs.id,
            target_prefix=ACCESS_LOGS,
            # S3 may refuse a target that does not yet let it write.
            opts=self.child(depends_on=[self.logs_policy]),
        )
        aws.s3.BucketPolicy(
            f"{self.name}-artifacts-policy", bucket=bucket.id, policy=policy(_tls_only(bucket.arn)), opts=self.child()
        )


def _tls_only(arn: pulumi.Output[str]) -> dict[str, object]:
    return dict(
        allow(
            "TlsOnly",
            ["s3:*"],
            [arn, pulumi.Output.concat(arn, "/*")],
            {"Bool": {"aws:SecureTransport": "false"}},
            {"AWS": "*"},
            "Deny",
        )
    )


def _key_policy(context: Context) -> pulumi.Output[str]:
    """The account decides through IAM; logs, alarms and budgets may use the key for what they write for it.

    In a key's policy the resource `*` is the key itself.
    """
    own = {"StringEquals": {"aws:SourceAccount": context.account}}
    use = [
        "kms:Encrypt",
        "kms:Decrypt",
        "kms:ReEncryptFrom",
        "kms:ReEncryptTo",
        "kms:GenerateDataKey",
        "kms:DescribeKey",
    ]
    groups = context.arn("logs", "log-group:*")
    return policy(
        allow("Account", ["kms:*"], ["*"], None, {"AWS": context.arn("iam", "root", region=False)}),
        allow(
            "Logs",
            use,
            ["*"],
            {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
            {"Service": f"logs.{context.region}.amazonaws.com"},
        ),
        allow(
            "Alarms",
            ["kms:Decrypt", "kms:GenerateDataKey"],
            ["*"],
            own,
            {"Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]},
        ),
    )
