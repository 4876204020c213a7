"""IAM: roles, their policies, instance profiles."""

from __future__ import annotations

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, put, take, unless_gone


def _create_role(aws: Aws, inputs: Inputs) -> str:
    made = aws.client("iam").create_role(
        RoleName=inputs["name"],
        AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        Tags=pairs(inputs.get("tags")),
        **take(inputs, Description="description"),
    )
    return str(made["Role"]["RoleName"])


def _read_role(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        role = aws.client("iam").get_role(RoleName=id_)["Role"]
        return {"arn": role["Arn"], "name": role["RoleName"], "uniqueId": role["RoleId"]}

    return or_gone(read)


def _update_role(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    iam = aws.client("iam")
    if old.get("assumeRolePolicy") != new.get("assumeRolePolicy"):
        iam.update_assume_role_policy(RoleName=id_, PolicyDocument=new["assumeRolePolicy"])
    if old.get("description") != new.get("description"):
        iam.update_role(RoleName=id_, Description=new.get("description") or "")
    given, removed = changed_tags(old, new)
    if given:
        iam.tag_role(RoleName=id_, Tags=pairs(given))
    if removed:
        iam.untag_role(RoleName=id_, TagKeys=removed)


def _delete_role(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("iam").delete_role, RoleName=id_)


def _put_policy(aws: Aws, inputs: Inputs) -> str:
    aws.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=inputs["policy"]
    )
    return f"{inputs['role']}:{inputs['name']}"


def _read_policy(aws: Aws, _id: str, inputs: Inputs) -> Found:
    def read() -> Found:
        aws.client("iam").get_role_policy(RoleName=inputs["role"], PolicyName=inputs["name"])
        return {"name": inputs["name"]}

    return or_gone(read)


def _delete_policy(aws: Aws, _id: str, inputs: Inputs) -> None:
    unless_gone(aws.client("iam").delete_role_policy, RoleName=inputs["role"], PolicyName=inputs["name"])


def _attach(aws: Aws, inputs: Inputs) -> str:
    aws.client("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return f"{inputs['role']}/{inputs['policyArn']}"


def _read_attachment(aws: Aws, _id: str, inputs: Inputs) -> Found:
    def read() -> Found:
        attached = aws.client("iam").list_attached_role_policies(RoleName=inputs["role"])["AttachedPolicies"]
        return {} if any(p["PolicyArn"] == inputs["policyArn"] for p in attached) else None

    return or_gone(read)


def _detach(aws: Aws, _id: str, inputs: Inputs) -> None:
    unless_gone(aws.client("iam").detach_role_policy, RoleName=inputs["role"], PolicyArn=inputs["policyArn"])


def _create_profile(aws: Aws, inputs: Inputs) -> str:
    iam = aws.client("iam")
    iam.create_instance_profile(InstanceProfileName=inputs["name"], Tags=pairs(inputs.get("tags")))
    iam.add_role_to_instance_profile(InstanceProfileName=inputs["name"], RoleName=inputs["role"])
    return str(inputs["name"])


def _read_profile(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        profile = aws.client("iam").get_instance_profile(InstanceProfileName=id_)["InstanceProfile"]
        return {"arn": profile["Arn"], "name": id_, "uniqueId": profile["InstanceProfileId"]}

    return or_gone(read)


def _update_profile(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    iam = aws.client("iam")
    if old["role"] != new["role"]:
        unless_gone(iam.remove_role_from_instance_profile, InstanceProfileName=id_, RoleName=old["role"])
        iam.add_role_to_instance_profile(InstanceProfileName=id_, RoleName=new["role"])
    given, removed = changed_tags(old, new)
    if given:
        iam.tag_instance_profile(InstanceProfileName=id_, Tags=pairs(given))
    if removed:
        iam.untag_instance_profile(InstanceProfileName=id_, TagKeys=removed)


def _delete_profile(aws: Aws, id_: str, inputs: Inputs) -> None:
    iam = aws.client("iam")
    unless_gone(iam.remove_role_from_instance_profile, InstanceProfileName=id_, RoleName=inputs["role"])
    unless_gone(iam.delete_instance_profile, InstanceProfileName=id_)


KINDS = (
    Kind(
        "aws:iam/role:Role", _create_role, _read_role, _delete_role, _update_role,
        frozenset({"assumeRolePolicy", "description", "tags"}), names="name", name_limit=64,
    ),
    put(
        "aws:iam/rolePolicy:RolePolicy", _put_policy, _read_policy, _delete_policy, {"policy"},
        names="name", name_limit=128,
    ),
    Kind("aws:iam/rolePolicyAttachment:RolePolicyAttachment", _attach, _read_attachment, _detach),
    Kind(
        "aws:iam/instanceProfile:InstanceProfile", _create_profile, _read_profile, _delete_profile, _update_profile,
        frozenset({"role", "tags"}), names="name", name_limit=128,
    ),
)  # fmt: skip
