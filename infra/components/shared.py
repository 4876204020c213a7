"""What outlives every other stack: storage, the image repository, and a log group a role."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.base import Component
from infra.components.storage import Storage, StorageArgs
from infra.context import Context

LOGGING_ROLES = ("inference", "endpoint", "training")


@dataclass(frozen=True, slots=True)
class SharedArgs:
    """Days that replaced artifacts and logs are kept."""

    keep_versions_days: int
    log_retention_days: int


class SharedServices(Component):
    """Protected: `pulumi destroy` stops at it, and deleting the stack leaves bucket, key and repository."""

    def __init__(self, name: str, context: Context, args: SharedArgs) -> None:
        super().__init__("SharedServices", name, context)
        self.storage = Storage(f"{name}-storage", context, StorageArgs(args.keep_versions_days))
        kept = self.child(protect=True, retain_on_delete=True)
        self.repository = aws.ecr.Repository(
            f"{name}-images",
            name=f"{context.project}/{context.stack}",
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scan_on_push": True},
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": self.storage.key.arn}],
            tags=context.tags("images"),
            opts=kept,
        )
        aws.ecr.LifecyclePolicy(
            f"{name}-images-lifecycle",
            repository=self.repository.name,
            policy=pulumi.Output.json_dumps(
                {
                    "rules": [
                        {
                            "rulePriority": 1,
                            "description": "untagged images go after two weeks",
                            "selection": {
                                "tagStatus": "untagged",
                                "countType": "sinceImagePushed",
                                "countUnit": "days",
                                "countNumber": 14,
                            },
                            "action": {"type": "expire"},
                        }
                    ]
                }
            ),
            opts=self.child(),
        )
        self.log_groups = {
            role: aws.cloudwatch.LogGroup(
                f"{name}-logs-{role}",
                name=f"/{context.project}/{role}",
                retention_in_days=args.log_retention_days,
                kms_key_id=self.storage.key.arn,
                tags=context.tags(f"logs-{role}"),
                opts=kept,
            )
            for role in LOGGING_ROLES
        }
        self.register_outputs({"repository": self.repository.repository_url})
