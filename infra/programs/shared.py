"""The shared stack: what outlives the machines."""

from __future__ import annotations

from typing import Any

from infra.components.shared import SharedArgs, SharedServices
from infra.context import Context
from infra.places import BUCKET_OUTPUT
from infra.settings import SharedSettings


def declare(context: Context) -> dict[str, Any]:
    settings = context.settings
    if not isinstance(settings, SharedSettings):
        raise TypeError(f"{context.stack} is no shared stack")
    services = SharedServices(
        context.stack, context, SharedArgs(settings.keep_versions_days, settings.log_retention_days)
    )
    outputs: dict[str, Any] = {
        BUCKET_OUTPUT: services.storage.artifacts.bucket,
        "artifacts_bucket_arn": services.storage.artifacts.arn,
        "logs_bucket": services.storage.logs.bucket,
        "key_arn": services.storage.key.arn,
        "repository_url": services.repository.repository_url,
        "repository_arn": services.repository.arn,
    }
    for role, group in services.log_groups.items():
        outputs[f"log_group_{role}"] = group.name
        outputs[f"log_group_{role}_arn"] = group.arn
    return outputs
