"""ECR: repositories and what they keep."""

from __future__ import annotations

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, put, take, unless_gone


def _create_repository(aws: Aws, inputs: Inputs) -> str:
    parameters = take(inputs, imageTagMutability="imageTagMutability")
    if inputs.get("imageScanningConfiguration"):
        parameters["imageScanningConfiguration"] = inputs["imageScanningConfiguration"]
    if inputs.get("encryptionConfigurations"):
        parameters["encryptionConfiguration"] = inputs["encryptionConfigurations"][0]
    aws.client("ecr").create_repository(repositoryName=inputs["name"], tags=pairs(inputs.get("tags")), **parameters)
    return str(inputs["name"])


def _read_repository(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ecr").describe_repositories(repositoryNames=[id_])["repositories"][0]
        return {
            "arn": found["repositoryArn"],
            "name": id_,
            "repositoryUrl": found["repositoryUri"],
            "registryId": found["registryId"],
        }

    return or_gone(read)


def _update_repository(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    ecr = aws.client("ecr")
    if old.get("imageTagMutability") != new.get("imageTagMutability"):
        ecr.put_image_tag_mutability(repositoryName=id_, imageTagMutability=new["imageTagMutability"])
    if old.get("imageScanningConfiguration") != new.get("imageScanningConfiguration"):
        ecr.put_image_scanning_configuration(
            repositoryName=id_, imageScanningConfiguration=new["imageScanningConfiguration"]
        )
    given, removed = changed_tags(old, new)
    arn = (_read_repository(aws, id_, new) or {}).get("arn", "")
    if given:
        ecr.tag_resource(resourceArn=arn, tags=pairs(given))
    if removed:
        ecr.untag_resource(resourceArn=arn, tagKeys=removed)


def _delete_repository(aws: Aws, id_: str, inputs: Inputs) -> None:
    unless_gone(aws.client("ecr").delete_repository, repositoryName=id_, force=bool(inputs.get("forceDelete")))


def _put_lifecycle(aws: Aws, inputs: Inputs) -> str:
    aws.client("ecr").put_lifecycle_policy(repositoryName=inputs["repository"], lifecyclePolicyText=inputs["policy"])
    return str(inputs["repository"])


def _read_lifecycle(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        return {"registryId": aws.client("ecr").get_lifecycle_policy(repositoryName=id_)["registryId"]}

    return or_gone(read)


def _delete_lifecycle(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("ecr").delete_lifecycle_policy, repositoryName=id_)


KINDS = (
    Kind(
        "aws:ecr/repository:Repository", _create_repository, _read_repository, _delete_repository, _update_repository,
        frozenset({"imageTagMutability", "imageScanningConfiguration", "forceDelete", "tags"}), names="name",
        delete_first=True,
    ),
    put(
        "aws:ecr/lifecyclePolicy:LifecyclePolicy", _put_lifecycle, _read_lifecycle, _delete_lifecycle, {"policy"},
    ),
)  # fmt: skip
