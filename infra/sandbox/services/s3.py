"""S3: buckets and the settings that are resources of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, or_gone, pairs, pascal, put, take, unless_gone


def _create_bucket(aws: Aws, inputs: Inputs) -> str:
    place: dict[str, Any] = {}
    if aws.region != "us-east-1":  # the one region that S3 refuses to be told
        place["CreateBucketConfiguration"] = {"LocationConstraint": aws.region}
    aws.client("s3").create_bucket(Bucket=inputs["bucket"], **place)
    _tag_bucket(aws, inputs["bucket"], {}, inputs)
    return str(inputs["bucket"])


def _tag_bucket(aws: Aws, id_: str, _old: Inputs, new: Inputs) -> None:
    s3 = aws.client("s3")
    if new.get("tags"):
        s3.put_bucket_tagging(Bucket=id_, Tagging={"TagSet": pairs(new["tags"])})
    else:
        s3.delete_bucket_tagging(Bucket=id_)


def _read_bucket(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        aws.client("s3").head_bucket(Bucket=id_)
        return {
            "arn": f"arn:aws:s3:::{id_}",
            "bucket": id_,
            "region": aws.region,
            "bucketDomainName": f"{id_}.s3.amazonaws.com",
        }

    return or_gone(read)


def empty_bucket(aws: Aws, bucket: str) -> int:
    """Remove every object and version of a bucket; returns how many. A bucket that is gone has none."""
    s3, removed = aws.client("s3"), 0

    def pages() -> Found:
        nonlocal removed
        if s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Suspended":
            # Where versions are suspended, moto takes a key away with all of them, and fails at a delete marker.
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        # Always the first page: what is removed changes where moto's next one begins.
        while True:
            page = s3.list_object_versions(Bucket=bucket)
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            part = [{"Key": o["Key"], "VersionId": o["VersionId"]} for o in found[:1000]]
            if not part or s3.delete_objects(Bucket=bucket, Delete={"Objects": part, "Quiet": True}).get("Errors"):
                return {}
            removed += len(part)

    or_gone(pages)
    return removed


def _delete_bucket(aws: Aws, id_: str, inputs: Inputs) -> None:
    if inputs.get("forceDestroy"):
        empty_bucket(aws, id_)
    unless_gone(aws.client("s3").delete_bucket, Bucket=id_)


def _setting(
    type_: str,
    write: str,
    read_call: str,
    remove: str | None,
    parameters: Callable[[Inputs], dict[str, Any]],
    in_place: set[str],
    off: Callable[[], dict[str, Any]] = dict,
    **more: Any,
) -> Kind:
    """A setting of a bucket. Where S3 has no call that removes it, `off` are the parameters that undo it."""

    def create(aws: Aws, inputs: Inputs) -> str:
        getattr(aws.client("s3"), write)(Bucket=inputs["bucket"], **parameters(inputs))
        return str(inputs["bucket"])

    def read(aws: Aws, id_: str, _inputs: Inputs) -> Found:
        def found() -> Found:
            answer = getattr(aws.client("s3"), read_call)(Bucket=id_)
            # What was never set or was undone is an empty answer, or one that says so.
            told = {k: v for k, v in answer.items() if k != "ResponseMetadata"}
            return {} if told and told.get("Status") != "Suspended" else None

        return or_gone(found)

    def delete(aws: Aws, id_: str, _inputs: Inputs) -> None:
        unless_gone(getattr(aws.client("s3"), remove or write), Bucket=id_, **off())

    return put(type_, create, read, delete, in_place, **more)


def _for_moto(policy: str) -> str:
    """The policy as moto can keep it.

    Lists of one are written as the one, which means the same: moto's check of log targets reads no lists. The statement
    that refuses plain HTTP is left out: moto takes no notice of `aws:SecureTransport` and would refuse every request.
    """
    document = json.loads(policy)
    document["Statement"] = [s for s in document["Statement"] if not _refuses_plain_http(s)]
    for statement in document["Statement"]:
        for key, value in statement.items():
            if isinstance(value, list) and len(value) == 1:
                statement[key] = value[0]
        principal = statement.get("Principal")
        if isinstance(principal, dict):
            statement["Principal"] = {
                k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in principal.items()
            }
    return json.dumps(document)


def _refuses_plain_http(statement: Inputs) -> bool:
    """Whether a statement denies what comes without TLS, and nothing else."""
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    return bool(statement.get("Effect") == "Deny" and statement.get("Condition") == condition)


def _lifecycle(inputs: Inputs) -> dict[str, Any]:
    rules = []
    for rule in inputs["rules"]:
        made = pascal({k: v for k, v in rule.items() if k != "id"})
        rules.append({**made, **take(rule, ID="id")})
    return {"LifecycleConfiguration": {"Rules": rules}}


def _encryption(inputs: Inputs) -> dict[str, Any]:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": {
                "SSEAlgorithm": rule["applyServerSideEncryptionByDefault"]["sseAlgorithm"],
                **take(rule["applyServerSideEncryptionByDefault"], KMSMasterKeyID="kmsMasterKeyId"),
            },
            **take(rule, BucketKeyEnabled="bucketKeyEnabled"),
        }
        for rule in inputs["rules"]
    ]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def _block(inputs: Inputs) -> dict[str, Any]:
    keys = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    return {"PublicAccessBlockConfiguration": pascal({key: bool(inputs.get(key)) for key in keys})}


def _logging(inputs: Inputs) -> dict[str, Any]:
    target = {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
    return {"BucketLoggingStatus": {"LoggingEnabled": target}}


KINDS = (
    Kind(
        "aws:s3/bucket:Bucket", _create_bucket, _read_bucket, _delete_bucket, _tag_bucket,
        frozenset({"tags", "forceDestroy"}), names="bucket", name_limit=63, delete_first=True,
    ),
    _setting(
        "aws:s3/bucketPolicy:BucketPolicy", "put_bucket_policy", "get_bucket_policy", "delete_bucket_policy",
        lambda i: {"Policy": _for_moto(i["policy"])}, {"policy"},
        omits="the denial of plain HTTP, which moto would apply to every request",
    ),
    _setting(
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", "put_bucket_lifecycle_configuration",
        "get_bucket_lifecycle_configuration", "delete_bucket_lifecycle", _lifecycle, {"rules"},
    ),
    _setting(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "put_bucket_encryption", "get_bucket_encryption", "delete_bucket_encryption", _encryption, {"rules"},
    ),
    _setting(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "put_public_access_block", "get_public_access_block",
        "delete_public_access_block", _block,
        {"blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"},
    ),
    _setting(
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls", "put_bucket_ownership_controls",
        "get_bucket_ownership_controls", "delete_bucket_ownership_controls",
        lambda i: {"OwnershipControls": {"Rules": [pascal(i["rule"])]}}, {"rule"},
    ),
    _setting(
        "aws:s3/bucketVersioning:BucketVersioning", "put_bucket_versioning", "get_bucket_versioning", None,
        lambda i: {"VersioningConfiguration": pascal(i["versioningConfiguration"])}, {"versioningConfiguration"},
        # Versioning cannot be undone, only suspended.
        lambda: {"VersioningConfiguration": {"Status": "Suspended"}},
    ),
    _setting(
        "aws:s3/bucketLogging:BucketLogging", "put_bucket_logging", "get_bucket_logging", None, _logging,
        {"targetBucket", "targetPrefix"}, lambda: {"BucketLoggingStatus": {}},
    ),
)  # fmt: skip
