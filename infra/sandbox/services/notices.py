"""SNS, EventBridge Scheduler and Budgets: who is told, what ends a machine, what a month may cost."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, pascal, put, take, unless_gone


def _create_topic(aws: Aws, inputs: Inputs) -> str:
    attributes = take(inputs, DisplayName="displayName", KmsMasterKeyId="kmsMasterKeyId")
    made = aws.client("sns").create_topic(Name=inputs["name"], Attributes=attributes, Tags=pairs(inputs.get("tags")))
    return str(made["TopicArn"])


def _read_topic(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        aws.client("sns").get_topic_attributes(TopicArn=id_)
        return {"arn": id_, "name": id_.rsplit(":", 1)[-1]}

    return or_gone(read)


def _update_topic(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    sns = aws.client("sns")
    for key, attribute in (("displayName", "DisplayName"), ("kmsMasterKeyId", "KmsMasterKeyId")):
        if old.get(key) != new.get(key):
            sns.set_topic_attributes(TopicArn=id_, AttributeName=attribute, AttributeValue=new.get(key) or "")
    given, removed = changed_tags(old, new)
    if given:
        sns.tag_resource(ResourceArn=id_, Tags=pairs(given))
    if removed:
        sns.untag_resource(ResourceArn=id_, TagKeys=removed)


def _delete_topic(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("sns").delete_topic, TopicArn=id_)


def _put_topic_policy(aws: Aws, inputs: Inputs) -> str:
    aws.client("sns").set_topic_attributes(
        TopicArn=inputs["arn"], AttributeName="Policy", AttributeValue=inputs["policy"]
    )
    return str(inputs["arn"])


def _leave_topic_policy(_aws: Aws, _id: str, _inputs: Inputs) -> None:
    """SNS has no call that removes a topic's policy: it goes with the topic."""


def _subscribe(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("sns").subscribe(
            TopicArn=inputs["topic"],
            Protocol=inputs["protocol"],
            Endpoint=inputs["endpoint"],
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]
    )


def _read_subscription(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        aws.client("sns").get_subscription_attributes(SubscriptionArn=id_)
        return {"arn": id_}

    return or_gone(read)


def _unsubscribe(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("sns").unsubscribe, SubscriptionArn=id_)


def _schedule(inputs: Inputs) -> dict[str, Any]:
    target = dict(inputs["target"])
    window = inputs["flexibleTimeWindow"]
    return {
        "Name": inputs["name"],
        "FlexibleTimeWindow": pascal(window),
        "Target": pascal(target),
        **take(
            inputs,
            ScheduleExpression="scheduleExpression",
            ScheduleExpressionTimezone="scheduleExpressionTimezone",
            ActionAfterCompletion="actionAfterCompletion",
            Description="description",
        ),
    }


def _create_schedule(aws: Aws, inputs: Inputs) -> str:
    aws.client("scheduler").create_schedule(**_schedule(inputs))
    return f"default/{inputs['name']}"


def _update_schedule(aws: Aws, _id: str, _old: Inputs, new: Inputs) -> None:
    aws.client("scheduler").update_schedule(**_schedule(new))


def _read_schedule(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("scheduler").get_schedule(Name=id_.split("/", 1)[1])
        return {"arn": found["Arn"], "name": found["Name"]}

    return or_gone(read)


def _delete_schedule(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("scheduler").delete_schedule, Name=id_.split("/", 1)[1])


def _budget(inputs: Inputs) -> dict[str, Any]:
    filters = {f["name"]: f["values"] for f in inputs.get("costFilters") or []}
    return {
        "BudgetName": inputs["name"],
        "BudgetType": inputs["budgetType"],
        "TimeUnit": inputs["timeUnit"],
        "BudgetLimit": {"Amount": inputs["limitAmount"], "Unit": inputs["limitUnit"]},
        **({"CostFilters": filters} if filters else {}),
    }


def _notifications(inputs: Inputs) -> list[dict[str, Any]]:
    made = []
    for given in inputs.get("notifications") or []:
        subscribers = [
            *({"SubscriptionType": "SNS", "Address": a} for a in given.get("subscriberSnsTopicArns") or []),
            *({"SubscriptionType": "EMAIL", "Address": a} for a in given.get("subscriberEmailAddresses") or []),
        ]
        notification = take(
            given,
            NotificationType="notificationType",
            ComparisonOperator="comparisonOperator",
            Threshold="threshold",
            ThresholdType="thresholdType",
        )
        made.append({"Notification": notification, "Subscribers": subscribers})
    return made


def _create_budget(aws: Aws, inputs: Inputs) -> str:
    tags = {"ResourceTags": pairs(inputs["tags"])} if inputs.get("tags") else {}
    aws.client("budgets").create_budget(
        AccountId=aws.account, Budget=_budget(inputs), NotificationsWithSubscribers=_notifications(inputs), **tags
    )
    return f"{aws.account}:{inputs['name']}"


def _read_budget(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    account, name = id_.split(":", 1)

    def read() -> Found:
        aws.client("budgets").describe_budget(AccountId=account, BudgetName=name)
        return {"arn": f"arn:aws:budgets::{account}:budget/{name}", "name": name, "accountId": account}

    return or_gone(read)


def _update_budget(aws: Aws, id_: str, _old: Inputs, new: Inputs) -> None:
    """moto has no UpdateBudget: the budget of the same name is made anew, which keeps its id and its ARN."""
    _delete_budget(aws, id_, new)
    _create_budget(aws, new)


def _delete_budget(aws: Aws, id_: str, _inputs: Inputs) -> None:
    account, name = id_.split(":", 1)
    unless_gone(aws.client("budgets").delete_budget, AccountId=account, BudgetName=name)


KINDS = (
    Kind(
        "aws:sns/topic:Topic", _create_topic, _read_topic, _delete_topic, _update_topic,
        frozenset({"displayName", "kmsMasterKeyId", "tags"}), names="name",
    ),
    put(
        "aws:sns/topicPolicy:TopicPolicy", _put_topic_policy, _read_topic, _leave_topic_policy, {"policy"},
        note="goes with its topic",
    ),
    Kind("aws:sns/topicSubscription:TopicSubscription", _subscribe, _read_subscription, _unsubscribe),
    Kind(
        "aws:scheduler/schedule:Schedule", _create_schedule, _read_schedule, _delete_schedule, _update_schedule,
        frozenset(
            {
                "scheduleExpression", "scheduleExpressionTimezone", "flexibleTimeWindow", "target", "description",
                "actionAfterCompletion",
            }
        ),
        names="name", name_limit=64,
    ),
    Kind(
        "aws:budgets/budget:Budget", _create_budget, _read_budget, _delete_budget, _update_budget,
        frozenset({"budgetType", "timeUnit", "limitAmount", "limitUnit", "costFilters", "notifications", "tags"}),
        names="name", name_limit=100,
    ),
)  # fmt: skip
