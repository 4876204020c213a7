"""What every component of a stack needs to know: where it is, whose, until when, and what the shared stack offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pulumi

from infra.durations import write_instant
from infra.places import BUCKET_OUTPUT
from infra.settings import PROJECT, Settings
from sizing.hardware.load import Hardware
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts

NEVER = "never"


@dataclass(frozen=True, slots=True)
class Context:
    """A stack that is being declared. `instance` and `model` are None for the shared stack."""

    stack: str
    region: str
    account: str
    settings: Settings
    hardware: Hardware
    instance: InstanceType | None = None
    model: ModelFacts | None = None
    expires_at: datetime | None = None
    project: str = PROJECT
    partition: str = "aws"
    warnings: tuple[str, ...] = field(default=())

    @property
    def expiry(self) -> str:
        return write_instant(self.expires_at) if self.expires_at else NEVER

    def tags(self, name: str = "") -> dict[str, str]:
        """The tags of every resource that can have some; with a Name where one is given."""
        tags = {"project": self.project, "stack": self.stack, "owner": self.settings.owner, "expiry": self.expiry}
        own = f"{self.stack}-"
        return {**tags, "Name": own + name.removeprefix(own)} if name else tags

    def arn(self, service: str, resource: str, *, region: bool = True, account: bool = True) -> str:
        """An ARN in this account and region."""
        where = self.region if region else ""
        whose = self.account if account else ""
        return f"arn:{self.partition}:{service}:{where}:{whose}:{resource}"


@dataclass(frozen=True, slots=True)
class Shared:
    """What a stack takes from the shared one, as outputs that are known once that stack is up."""

    bucket: pulumi.Input[str]
    bucket_arn: pulumi.Input[str]
    logs_bucket: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    repository_url: pulumi.Input[str]
    repository_arn: pulumi.Input[str]
    log_group: pulumi.Input[str]
    """The group of the stack's role."""
    log_group_arn: pulumi.Input[str]

    def log_streams(self, stack: str) -> pulumi.Output[str]:
        """ARN of the streams that a stack's machines write in the group of their role."""
        return pulumi.Output.concat(self.log_group_arn, f":log-stream:{stack}/*")

    @classmethod
    def read(cls, stack: str, role: str) -> Shared:
        """From the outputs of the shared stack, through a StackReference."""
        reference = pulumi.StackReference(stack)

        def output(name: str) -> pulumi.Output[Any]:
            return reference.require_output(name)

        return cls(
            bucket=output(BUCKET_OUTPUT),
            bucket_arn=output("artifacts_bucket_arn"),
            logs_bucket=output("logs_bucket"),
            key_arn=output("key_arn"),
            repository_url=output("repository_url"),
            repository_arn=output("repository_arn"),
            log_group=output(f"log_group_{role}"),
            log_group_arn=output(f"log_group_{role}_arn"),
        )
