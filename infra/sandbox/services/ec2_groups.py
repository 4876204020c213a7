"""EC2's security groups and their rules."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, or_gone, take, unless_gone
from infra.sandbox.services.ec2_network import TAGS, arn, retag, tag_specification
from sizing.errors import UserError


def _create_group(aws: Aws, inputs: Inputs) -> str:
    id_ = aws.client("ec2").create_security_group(
        GroupName=inputs["name"],
        Description=inputs.get("description") or "Managed by Pulumi",
        VpcId=inputs["vpcId"],
        TagSpecifications=tag_specification("security-group", inputs),
    )["GroupId"]
    _close(aws, id_)  # the provider takes away the rule to everywhere that EC2 gives every group
    return str(id_)


def _group(aws: Aws, id_: str) -> dict[str, Any]:
    return dict(aws.client("ec2").describe_security_groups(GroupIds=[id_])["SecurityGroups"][0])


def _close(aws: Aws, id_: str) -> None:
    group, ec2 = _group(aws, id_), aws.client("ec2")
    if group["IpPermissionsEgress"]:
        ec2.revoke_security_group_egress(GroupId=id_, IpPermissions=group["IpPermissionsEgress"])
    if group["IpPermissions"]:
        ec2.revoke_security_group_ingress(GroupId=id_, IpPermissions=group["IpPermissions"])


def _read_group(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        group = _group(aws, id_)
        return {"arn": arn(aws, "security-group", id_), "name": group["GroupName"], "vpcId": group["VpcId"]}

    return or_gone(read)


def _delete_group(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("ec2").delete_security_group, GroupId=id_)


def _adopt_default(aws: Aws, inputs: Inputs) -> str:
    """A VPC's default group is not made but taken over, and emptied. Raises `UserError` for rules of its own."""
    if inputs.get("ingress") or inputs.get("egress"):
        raise UserError("the sandbox only empties a VPC's default security group; give it no rules")
    found = aws.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [inputs["vpcId"]]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"]
    id_ = str(found[0]["GroupId"])
    _close(aws, id_)
    retag(aws, id_, {}, inputs)
    return id_


def _leave_default(_aws: Aws, _id: str, _inputs: Inputs) -> None:
    """EC2 keeps a VPC's default group as long as the VPC."""


_EITHER = {"IpProtocol": "ipProtocol", "FromPort": "fromPort", "ToPort": "toPort"}
_RULE = frozenset({*_EITHER.values(), "description", "cidrIpv4", "referencedSecurityGroupId"})


def _permission(inputs: Inputs) -> dict[str, Any]:
    permission = take(inputs, **_EITHER)
    described = take(inputs, Description="description")
    if inputs.get("cidrIpv4"):
        permission["IpRanges"] = [{"CidrIp": inputs["cidrIpv4"], **described}]
    else:
        permission["UserIdGroupPairs"] = [{"GroupId": inputs["referencedSecurityGroupId"], **described}]
    return permission


def _rule(direction: str, egress: bool) -> Kind:
    def create(aws: Aws, inputs: Inputs) -> str:
        made = getattr(aws.client("ec2"), f"authorize_security_group_{direction}")(
            GroupId=inputs["securityGroupId"],
            IpPermissions=[_permission(inputs)],
            TagSpecifications=tag_specification("security-group-rule", inputs),
        )
        return str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def read(aws: Aws, id_: str, inputs: Inputs) -> Found:
        def found() -> Found:
            rules = aws.client("ec2").describe_security_group_rules(
                Filters=[{"Name": "group-id", "Values": [inputs["securityGroupId"]]}]
            )["SecurityGroupRules"]
            mine = [r for r in rules if r["SecurityGroupRuleId"] == id_ and r["IsEgress"] is egress]
            return {"securityGroupRuleId": id_, "arn": arn(aws, "security-group-rule", id_)} if mine else None

        return or_gone(found)

    def update(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
        if any(old.get(key) != new.get(key) for key in _RULE):
            rule = {
                **take(new, **_EITHER, Description="description"),
                **take(new, CidrIpv4="cidrIpv4", ReferencedGroupId="referencedSecurityGroupId"),
            }
            aws.client("ec2").modify_security_group_rules(
                GroupId=new["securityGroupId"],
                SecurityGroupRules=[{"SecurityGroupRuleId": id_, "SecurityGroupRule": rule}],
            )
        retag(aws, id_, old, new)

    def delete(aws: Aws, id_: str, inputs: Inputs) -> None:
        # A rule that is not there is reported under the group's name in moto and by its own in AWS.
        if read(aws, id_, inputs) is not None:
            getattr(aws.client("ec2"), f"revoke_security_group_{direction}")(
                GroupId=inputs["securityGroupId"], SecurityGroupRuleIds=[id_]
            )

    name = f"SecurityGroup{direction.capitalize()}Rule"
    return Kind(f"aws:vpc/s{name[1:]}:{name}", create, read, delete, update, TAGS | _RULE, delete_first=True)


KINDS = (
    Kind(
        "aws:ec2/securityGroup:SecurityGroup", _create_group, _read_group, _delete_group, retag, TAGS, names="name"
    ),
    Kind(
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", _adopt_default, _read_group, _leave_default, retag, TAGS,
        note="goes with its VPC",
    ),
    _rule("egress", True),
    _rule("ingress", False),
)  # fmt: skip
