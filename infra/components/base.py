"""What components share: their type's name, options of their children, policy documents."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from infra.context import Context

Statement = Mapping[str, Any]


class Component(pulumi.ComponentResource):
    """A component of Berth of the type `berth:components:Kind`; its children have it as their parent."""

    def __init__(self, kind: str, name: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"berth:components:{kind}", name, None, opts)
        self.context = context
        self.name = name

    def child(self, **options: Any) -> pulumi.ResourceOptions:
        """Options of a child of this component."""
        return pulumi.ResourceOptions(parent=self, **options)


def policy(*statements: Statement) -> pulumi.Output[str]:
    """An IAM or resource policy as JSON; its parts may be outputs."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[pulumi.Input[str]],
    condition: Mapping[str, Any] | None = None,
    principal: Mapping[str, Any] | None = None,
    effect: str = "Allow",
) -> Statement:
    """One statement of a policy."""
    statement: dict[str, Any] = {"Sid": sid, "Effect": effect, "Action": list(actions), "Resource": list(resources)}
    if principal is not None:
        statement["Principal"] = dict(principal)
    if condition is not None:
        statement["Condition"] = dict(condition)
    return statement


def assumed_by(service: str, account: str = "") -> pulumi.Output[str]:
    """The trust policy of a role for one AWS service; with `account`, only on behalf of that account's resources."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if account:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
    return policy(statement)


def short_name(name: str, limit: int) -> str:
    """A logical name cut so that the provider's suffix of eight characters still fits `limit`."""
    return name[: limit - 8].rstrip("-")


def base64_text(text: str) -> str:
    """Text as launch templates take user data."""
    return base64.b64encode(text.encode()).decode()
