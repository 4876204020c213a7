"""Elastic Load Balancing (v2): application load balancers, their listeners and target groups."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, pascal, take, unless_gone


def _elb(aws: Aws) -> Any:
    return aws.client("elbv2")


def _attributes(inputs: Inputs, names: dict[str, str]) -> list[dict[str, str]]:
    found = []
    for key, attribute in names.items():
        value = inputs.get(key)
        if value is not None:
            found.append({"Key": attribute, "Value": str(value).lower() if isinstance(value, bool) else str(value)})
    return found


def _tags(inputs: Inputs) -> dict[str, Any]:
    return {"Tags": pairs(inputs["tags"])} if inputs.get("tags") else {}


def _retag(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    given, removed = changed_tags(old, new)
    if given:
        _elb(aws).add_tags(ResourceArns=[id_], Tags=pairs(given))
    if removed:
        _elb(aws).remove_tags(ResourceArns=[id_], TagKeys=removed)


_BALANCER = {
    "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
    "idleTimeout": "idle_timeout.timeout_seconds",
}


def _balancer_attributes(inputs: Inputs) -> list[dict[str, str]]:
    logs = inputs.get("accessLogs") or {}
    named = {"enabled": "access_logs.s3.enabled", "bucket": "access_logs.s3.bucket", "prefix": "access_logs.s3.prefix"}
    return _attributes(inputs, _BALANCER) + _attributes(logs, named)


def _create_balancer(aws: Aws, inputs: Inputs) -> str:
    made = _elb(aws).create_load_balancer(
        Name=inputs["name"],
        Scheme="internal" if inputs.get("internal") else "internet-facing",
        **take(inputs, Type="loadBalancerType", Subnets="subnets", SecurityGroups="securityGroups"),
        **_tags(inputs),
    )
    id_ = str(made["LoadBalancers"][0]["LoadBalancerArn"])
    _elb(aws).modify_load_balancer_attributes(LoadBalancerArn=id_, Attributes=_balancer_attributes(inputs))
    return id_


def _update_balancer(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    _elb(aws).modify_load_balancer_attributes(LoadBalancerArn=id_, Attributes=_balancer_attributes(new))
    if old.get("securityGroups") != new.get("securityGroups"):
        _elb(aws).set_security_groups(LoadBalancerArn=id_, SecurityGroups=new["securityGroups"])
    if old.get("subnets") != new.get("subnets"):
        _elb(aws).set_subnets(LoadBalancerArn=id_, Subnets=new["subnets"])
    _retag(aws, id_, old, new)


def _read_balancer(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = _elb(aws).describe_load_balancers(LoadBalancerArns=[id_])["LoadBalancers"][0]
        return {
            "arn": id_,
            "arnSuffix": id_.split(":loadbalancer/", 1)[1],
            "dnsName": found["DNSName"],
            "zoneId": found.get("CanonicalHostedZoneId", ""),
            "name": found["LoadBalancerName"],
        }

    return or_gone(read)


def _delete_balancer(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(_elb(aws).delete_load_balancer, LoadBalancerArn=id_)


_GROUP = {
    "deregistrationDelay": "deregistration_delay.timeout_seconds",
    "loadBalancingAlgorithmType": "load_balancing.algorithm.type",
}


def _health(inputs: Inputs) -> dict[str, Any]:
    given = inputs.get("healthCheck") or {}
    found = take(
        given,
        HealthCheckIntervalSeconds="interval",
        HealthCheckTimeoutSeconds="timeout",
        HealthCheckPath="path",
        HealthyThresholdCount="healthyThreshold",
        UnhealthyThresholdCount="unhealthyThreshold",
    )
    return {**found, "Matcher": {"HttpCode": given["matcher"]}} if given.get("matcher") else found


def _create_group(aws: Aws, inputs: Inputs) -> str:
    made = _elb(aws).create_target_group(
        Name=inputs["name"],
        **take(inputs, Protocol="protocol", Port="port", VpcId="vpcId", TargetType="targetType"),
        **_health(inputs),
        **_tags(inputs),
    )
    id_ = str(made["TargetGroups"][0]["TargetGroupArn"])
    _elb(aws).modify_target_group_attributes(TargetGroupArn=id_, Attributes=_attributes(inputs, _GROUP))
    return id_


def _update_group(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    _elb(aws).modify_target_group(TargetGroupArn=id_, **_health(new))
    _elb(aws).modify_target_group_attributes(TargetGroupArn=id_, Attributes=_attributes(new, _GROUP))
    _retag(aws, id_, old, new)


def _read_group(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = _elb(aws).describe_target_groups(TargetGroupArns=[id_])["TargetGroups"][0]
        return {"arn": id_, "arnSuffix": id_.rsplit(":", 1)[1], "name": found["TargetGroupName"]}

    return or_gone(read)


def _delete_group(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(_elb(aws).delete_target_group, TargetGroupArn=id_)


def _listener(inputs: Inputs) -> dict[str, Any]:
    given = take(inputs, Port="port", Protocol="protocol", SslPolicy="sslPolicy")
    if inputs.get("certificateArn"):
        given["Certificates"] = [{"CertificateArn": inputs["certificateArn"]}]
    return {**given, "DefaultActions": pascal(inputs["defaultActions"])}


def _create_listener(aws: Aws, inputs: Inputs) -> str:
    made = _elb(aws).create_listener(LoadBalancerArn=inputs["loadBalancerArn"], **_listener(inputs), **_tags(inputs))
    return str(made["Listeners"][0]["ListenerArn"])


def _update_listener(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    _elb(aws).modify_listener(ListenerArn=id_, **_listener(new))
    _retag(aws, id_, old, new)


def _read_listener(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = _elb(aws).describe_listeners(ListenerArns=[id_])["Listeners"]
        return {"arn": id_} if found else None

    return or_gone(read)


def _delete_listener(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(_elb(aws).delete_listener, ListenerArn=id_)


KINDS = (
    Kind(
        "aws:lb/loadBalancer:LoadBalancer", _create_balancer, _read_balancer, _delete_balancer, _update_balancer,
        frozenset({*_BALANCER, "accessLogs", "securityGroups", "subnets", "tags"}), names="name", name_limit=32,
    ),
    Kind(
        "aws:lb/targetGroup:TargetGroup", _create_group, _read_group, _delete_group, _update_group,
        frozenset({*_GROUP, "healthCheck", "tags"}), names="name", name_limit=32,
    ),
    Kind(
        "aws:lb/listener:Listener", _create_listener, _read_listener, _delete_listener, _update_listener,
        frozenset({"port", "protocol", "sslPolicy", "certificateArn", "defaultActions", "tags"}), delete_first=True,
    ),
)  # fmt: skip
