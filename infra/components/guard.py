"""What ends machines and watches their cost: a schedule at the expiry, a budget, a topic that tells people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.base import Component, allow, assumed_by, policy
from infra.context import Context, Shared
from infra.durations import once_at
from infra.endings import schedule_at

WARN_PERCENT = (80, 100)


@dataclass(frozen=True, slots=True)
class NoticeArgs:
    """`budget`: US dollars a month for everything with the stack's tag."""

    budget: int
    email: str
    shared: Shared


class Notice(Component):
    """A topic for alarms, with the person's address, and the monthly budget that writes to it."""

    def __init__(self, name: str, context: Context, args: NoticeArgs) -> None:
        super().__init__("Notice", name, context)
        self.topic = aws.sns.Topic(
            f"{name}-topic",
            display_name=f"Berth {context.stack}",
            kms_master_key_id=args.shared.key_arn,
            tags=context.tags("topic"),
            opts=self.child(),
        )
        aws.sns.TopicPolicy(
            f"{name}-topic-policy",
            arn=self.topic.arn,
            policy=policy(
                allow(
                    "AlarmsAndBudget",
                    ["sns:Publish"],
                    [self.topic.arn],
                    {"StringEquals": {"aws:SourceAccount": context.account}},
                    {"Service": ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]},
                )
            ),
            opts=self.child(),
        )
        if args.email:
            aws.sns.TopicSubscription(
                f"{name}-email", topic=self.topic.arn, protocol="email", endpoint=args.email, opts=self.child()
            )
        # Billing data are hours late: the budget is a backstop, the schedule below is the guard.
        aws.budgets.Budget(
            f"{name}-budget",
            budget_type="COST",
            limit_amount=str(args.budget),
            limit_unit="USD",
            time_unit="MONTHLY",
            cost_filters=[{"name": "TagKeyValue", "values": [f"user:stack${context.stack}"]}],
            notifications=[
                self._notification(percent, kind)
                for kind, percents in (("ACTUAL", WARN_PERCENT), ("FORECASTED", (100,)))
                for percent in percents
            ],
            tags=context.tags("budget"),
            opts=self.child(),
        )
        self.register_outputs({"topic": self.topic.arn})

    def _notification(self, percent: int, kind: str) -> dict[str, Any]:
        return {
            "comparison_operator": "GREATER_THAN",
            "threshold": percent,
            "threshold_type": "PERCENTAGE",
            "notification_type": kind,
            "subscriber_sns_topic_arns": [self.topic.arn],
        }


@dataclass(frozen=True, slots=True)
class ExpiryArgs:
    """What is called at the expiry: `service:action` of the SDK, its input, and the permission that it takes.

    With several inputs each is a call of its own: AWS refuses a call as a whole for the sake of one machine that it
    knows no more, and the others would live on (Amazon EC2 API reference, TerminateInstances).
    """

    call: str
    inputs: Sequence[pulumi.Input[str]]
    actions: Sequence[str]
    resources: Sequence[pulumi.Input[str]]


class Expiry(Component):
    """Schedules, once, when the stack's machines must be gone, one a call; their role can end what carries the stack's
    tag and nothing else."""

    def __init__(self, name: str, context: Context, args: ExpiryArgs) -> None:
        super().__init__("Expiry", name, context)
        if context.expires_at is None:
            raise ValueError(f"{context.stack} never expires")
        moment = schedule_at(context.settings, context.expires_at)
        role = scheduler_role(self, name, args.actions, args.resources)
        for number, given in enumerate(args.inputs):
            aws.scheduler.Schedule(
                f"{name}-at" + (f"-{number}" if number else ""),
                description=f"Ends {context.stack}",
                schedule_expression=once_at(moment),
                schedule_expression_timezone="UTC",
                flexible_time_window={"mode": "OFF"},
                action_after_completion="DELETE",
                target={
                    "arn": f"arn:{context.partition}:scheduler:::aws-sdk:{args.call}",
                    "role_arn": role.arn,
                    "input": given,
                    "retry_policy": {"maximum_retry_attempts": 185, "maximum_event_age_in_seconds": 86_400},
                },
                opts=self.child(),
            )
        self.register_outputs({})


def scheduler_role(
    component: Component, name: str, actions: Sequence[str], resources: Sequence[pulumi.Input[str]]
) -> aws.iam.Role:
    """A role for EventBridge Scheduler: `actions` on `resources` that carry the stack's tag."""
    context = component.context
    role = aws.iam.Role(
        f"{name}-role",
        assume_role_policy=assumed_by("scheduler.amazonaws.com", context.account),
        tags=context.tags(name),
        opts=component.child(),
    )
    aws.iam.RolePolicy(
        f"{name}-policy",
        role=role.id,
        policy=policy(allow("OwnOnly", actions, resources, {"StringEquals": {"aws:ResourceTag/stack": context.stack}})),
        opts=component.child(),
    )
    return role
