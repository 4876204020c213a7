"""CloudWatch and CloudWatch Logs: log groups, alarms, dashboards."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, put, take, unless_gone


def _create_log_group(aws: Aws, inputs: Inputs) -> str:
    logs, name = aws.client("logs"), inputs["name"]
    logs.create_log_group(logGroupName=name, **take(inputs, kmsKeyId="kmsKeyId", tags="tags"))
    if inputs.get("retentionInDays"):
        logs.put_retention_policy(logGroupName=name, retentionInDays=int(inputs["retentionInDays"]))
    return str(name)


def _read_log_group(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    for group in aws.client("logs").describe_log_groups(logGroupNamePrefix=id_)["logGroups"]:
        if group["logGroupName"] == id_:
            return {"arn": group["arn"].removesuffix(":*"), "name": id_}
    return None


def _update_log_group(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    logs = aws.client("logs")
    if old.get("retentionInDays") != new.get("retentionInDays"):
        if new.get("retentionInDays"):
            logs.put_retention_policy(logGroupName=id_, retentionInDays=int(new["retentionInDays"]))
        else:
            logs.delete_retention_policy(logGroupName=id_)
    if old.get("kmsKeyId") != new.get("kmsKeyId"):
        if new.get("kmsKeyId"):
            logs.associate_kms_key(logGroupName=id_, kmsKeyId=new["kmsKeyId"])
        else:
            logs.disassociate_kms_key(logGroupName=id_)
    given, removed = changed_tags(old, new)
    if given:
        logs.tag_log_group(logGroupName=id_, tags=given)
    if removed:
        logs.untag_log_group(logGroupName=id_, tags=removed)


def _delete_log_group(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("logs").delete_log_group, logGroupName=id_)


_ALARM = {
    "AlarmDescription": "alarmDescription",
    "Namespace": "namespace",
    "MetricName": "metricName",
    "Statistic": "statistic",
    "ExtendedStatistic": "extendedStatistic",
    "ComparisonOperator": "comparisonOperator",
    "Threshold": "threshold",
    "Period": "period",
    "EvaluationPeriods": "evaluationPeriods",
    "TreatMissingData": "treatMissingData",
    "AlarmActions": "alarmActions",
    "OKActions": "okActions",
}


def _put_alarm(aws: Aws, inputs: Inputs) -> str:
    tags: dict[str, Any] = {"Tags": pairs(inputs["tags"])} if inputs.get("tags") else {}
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=inputs["name"],
        Dimensions=pairs(inputs.get("dimensions"), "Name"),
        **take(inputs, **_ALARM),
        **tags,
    )
    return str(inputs["name"])


def _read_alarm(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=[id_])["MetricAlarms"]
    return {"arn": found[0]["AlarmArn"], "name": id_} if found else None


def _update_alarm(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    # On a living alarm PutMetricAlarm passes its tags over.
    _put_alarm(aws, {k: v for k, v in new.items() if k != "tags"})
    given, removed = changed_tags(old, new)
    found = _read_alarm(aws, id_, new) or {}
    if given:
        aws.client("cloudwatch").tag_resource(ResourceARN=found["arn"], Tags=pairs(given))
    if removed:
        aws.client("cloudwatch").untag_resource(ResourceARN=found["arn"], TagKeys=removed)


def _delete_alarm(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("cloudwatch").delete_alarms, AlarmNames=[id_])


def _put_dashboard(aws: Aws, inputs: Inputs) -> str:
    aws.client("cloudwatch").put_dashboard(DashboardName=inputs["dashboardName"], DashboardBody=inputs["dashboardBody"])
    return str(inputs["dashboardName"])


def _read_dashboard(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        return {"dashboardArn": aws.client("cloudwatch").get_dashboard(DashboardName=id_)["DashboardArn"]}

    return or_gone(read)


def _delete_dashboard(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("cloudwatch").delete_dashboards, DashboardNames=[id_])


KINDS = (
    Kind(
        "aws:cloudwatch/logGroup:LogGroup", _create_log_group, _read_log_group, _delete_log_group, _update_log_group,
        frozenset({"retentionInDays", "kmsKeyId", "tags"}), names="name",
    ),
    Kind(
        "aws:cloudwatch/metricAlarm:MetricAlarm", _put_alarm, _read_alarm, _delete_alarm, _update_alarm,
        frozenset({*_ALARM.values(), "dimensions", "tags"}), names="name",
    ),
    put(
        "aws:cloudwatch/dashboard:Dashboard", _put_dashboard, _read_dashboard, _delete_dashboard, {"dashboardBody"},
        names="dashboardName",
    ),
)  # fmt: skip
