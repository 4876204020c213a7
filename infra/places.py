"""Where things lie in the artifact bucket, and what the buckets are called."""

from __future__ import annotations

import re

from infra.settings import PROJECT, MachineSettings, TrainingSettings

BUCKET_OUTPUT = "artifacts_bucket"
"""The shared stack's output that names the artifact bucket."""


def bucket_name(purpose: str, account: str, region: str, project: str = PROJECT) -> str:
    """The name of the bucket for `artifacts` or `logs`: known from account and region, before it exists."""
    return f"{project}-{account}-{region}-{purpose}"


def slug(model: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-")


def artifact_prefix(settings: MachineSettings) -> str:
    """Where the model's files lie in the artifact bucket."""
    return settings.artifact or f"models/{slug(settings.model)}"


def bundle_prefix(settings: MachineSettings, stack: str) -> str:
    """Where the model_runtime bundle lies in the artifact bucket."""
    return settings.bundle or f"bundles/{stack}"


def output_prefix(stack: str) -> str:
    """Where a stack writes."""
    return f"output/{stack}"


def run_prefix(settings: TrainingSettings, stack: str) -> str:
    """Where a training run writes: a place of its own where the run has a name."""
    return output_prefix(stack) + (f"/{settings.run}" if settings.run else "")


def feedback_prefix(stack: str) -> str:
    """Where a stack's feedback is shipped to."""
    return f"{output_prefix(stack)}/feedback"


def requests_prefix(stack: str) -> str:
    """Where a host's request log is shipped to."""
    return f"{output_prefix(stack)}/requests"


def capture_prefix(stack: str) -> str:
    """Where SageMaker's data capture of an endpoint lies."""
    return f"{output_prefix(stack)}/capture"
