"""Route 53: private zones and their records."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, put, unless_gone


def _create_zone(aws: Aws, inputs: Inputs) -> str:
    place: dict[str, Any] = {}
    if inputs.get("vpcs"):
        place = {"VPC": {"VPCRegion": aws.region, "VPCId": inputs["vpcs"][0]["vpcId"]}}
    made = aws.client("route53").create_hosted_zone(
        Name=inputs["name"],
        CallerReference=uuid4().hex,
        HostedZoneConfig={"Comment": inputs.get("comment") or "", "PrivateZone": bool(place)},
        **place,
    )
    id_ = str(made["HostedZone"]["Id"]).rsplit("/", 1)[-1]
    _tag_zone(aws, id_, {}, inputs)
    return id_


def _tag_zone(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    given, removed = changed_tags(old, new)
    change: dict[str, Any] = {}
    if given:
        change["AddTags"] = pairs(given)
    if removed:
        change["RemoveTagKeys"] = removed
    if change:
        aws.client("route53").change_tags_for_resource(ResourceType="hostedzone", ResourceId=id_, **change)


def _update_zone(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    if old.get("comment") != new.get("comment"):
        aws.client("route53").update_hosted_zone_comment(Id=id_, Comment=new.get("comment") or "")
    _tag_zone(aws, id_, old, new)


def _read_zone(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("route53").get_hosted_zone(Id=id_)
        servers = found.get("DelegationSet", {}).get("NameServers", [])
        return {"arn": f"arn:aws:route53:::hostedzone/{id_}", "zoneId": id_, "nameServers": servers}

    return or_gone(read)


def _delete_zone(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("route53").delete_hosted_zone, Id=id_)


def _record_set(inputs: Inputs) -> dict[str, Any]:
    return {
        "Name": inputs["name"],
        "Type": inputs["type"],
        "TTL": int(inputs["ttl"]),
        "ResourceRecords": [{"Value": value} for value in inputs["records"]],
    }


def _change(aws: Aws, action: str, zone: str, records: dict[str, Any]) -> None:
    aws.client("route53").change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": records}]}
    )


def _put_record(aws: Aws, inputs: Inputs) -> str:
    _change(aws, "UPSERT", inputs["zoneId"], _record_set(inputs))
    return f"{inputs['zoneId']}_{inputs['name']}_{inputs['type']}"


def _standing(aws: Aws, inputs: Inputs) -> dict[str, Any] | None:
    for page in (
        aws.client("route53").get_paginator("list_resource_record_sets").paginate(HostedZoneId=inputs["zoneId"])
    ):
        for found in page["ResourceRecordSets"]:
            if found["Name"].rstrip(".") == inputs["name"].rstrip(".") and found["Type"] == inputs["type"]:
                return dict(found)
    return None


def _read_record(aws: Aws, _id: str, inputs: Inputs) -> Found:
    def read() -> Found:
        return {"fqdn": inputs["name"]} if _standing(aws, inputs) else None

    return or_gone(read)


def _delete_record(aws: Aws, id_: str, inputs: Inputs) -> None:
    # Route 53 removes a record only under the values that it has.
    if _read_record(aws, id_, inputs) is not None and (found := _standing(aws, inputs)):
        _change(aws, "DELETE", inputs["zoneId"], found)


KINDS = (
    Kind("aws:route53/zone:Zone", _create_zone, _read_zone, _delete_zone, _update_zone, frozenset({"comment", "tags"})),
    put("aws:route53/record:Record", _put_record, _read_record, _delete_record, {"records", "ttl"}),
)
