"""KMS: keys and their aliases."""

from __future__ import annotations

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, take, unless_gone


def _create_key(aws: Aws, inputs: Inputs) -> str:
    kms = aws.client("kms")
    key = str(
        kms.create_key(
            **take(inputs, Description="description", Policy="policy"),
            Tags=pairs(inputs.get("tags"), "TagKey", "TagValue"),
        )["KeyMetadata"]["KeyId"]
    )
    if inputs.get("enableKeyRotation"):
        kms.enable_key_rotation(KeyId=key)
    return key


def _read_key(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        key = aws.client("kms").describe_key(KeyId=id_)["KeyMetadata"]
        if key["KeyState"] == "PendingDeletion":  # the provider takes it for gone as well
            return None
        return {"arn": key["Arn"], "keyId": key["KeyId"]}

    return or_gone(read)


def _update_key(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    kms = aws.client("kms")
    if old.get("policy") != new.get("policy"):
        kms.put_key_policy(KeyId=id_, PolicyName="default", Policy=new["policy"])
    if old.get("description") != new.get("description"):
        kms.update_key_description(KeyId=id_, Description=new.get("description") or "")
    if bool(old.get("enableKeyRotation")) != bool(new.get("enableKeyRotation")):
        (kms.enable_key_rotation if new.get("enableKeyRotation") else kms.disable_key_rotation)(KeyId=id_)
    given, removed = changed_tags(old, new)
    if given:
        kms.tag_resource(KeyId=id_, Tags=pairs(given, "TagKey", "TagValue"))
    if removed:
        kms.untag_resource(KeyId=id_, TagKeys=removed)


def _delete_key(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_key(aws, id_, inputs) is not None:
        aws.client("kms").schedule_key_deletion(
            KeyId=id_, PendingWindowInDays=int(inputs.get("deletionWindowInDays") or 30)
        )


def _create_alias(aws: Aws, inputs: Inputs) -> str:
    aws.client("kms").create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
    return str(inputs["name"])


def _read_alias(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    for page in aws.client("kms").get_paginator("list_aliases").paginate():
        for alias in page["Aliases"]:
            if alias["AliasName"] == id_:
                return {"arn": alias["AliasArn"], "name": id_, "targetKeyId": alias.get("TargetKeyId", "")}
    return None


def _update_alias(aws: Aws, id_: str, _old: Inputs, new: Inputs) -> None:
    aws.client("kms").update_alias(AliasName=id_, TargetKeyId=new["targetKeyId"])


def _delete_alias(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("kms").delete_alias, AliasName=id_)


KINDS = (
    Kind(
        "aws:kms/key:Key", _create_key, _read_key, _delete_key, _update_key,
        frozenset({"policy", "description", "enableKeyRotation", "deletionWindowInDays", "tags"}),
        note="waits for its deletion, as in AWS",
    ),
    Kind("aws:kms/alias:Alias", _create_alias, _read_alias, _delete_alias, _update_alias, frozenset({"targetKeyId"})),
)  # fmt: skip
