"""EC2's machines: instances, launch templates, placement groups."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, lacking, or_gone, pairs, pascal, take, unless_gone
from infra.sandbox.services.ec2_network import TAGS, arn, retag, tag_specification

_FLAGS = frozenset({"EbsOptimized", "Encrypted", "DeleteOnTermination", "AssociatePublicIpAddress"})
"""Given as text by launch templates of the provider and as booleans to EC2."""


def _typed(value: Any) -> Any:
    """EC2's parameters with flags as booleans and without the text that the provider writes them as."""
    if isinstance(value, dict):
        return {k: v == "true" if k in _FLAGS and isinstance(v, str) else _typed(v) for k, v in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else value


def _run_parameters(aws: Aws, inputs: Inputs) -> dict[str, Any]:
    parameters = take(
        inputs,
        ImageId="ami",
        InstanceType="instanceType",
        SubnetId="subnetId",
        SecurityGroupIds="vpcSecurityGroupIds",
        UserData="userData",
        EbsOptimized="ebsOptimized",
        InstanceInitiatedShutdownBehavior="instanceInitiatedShutdownBehavior",
    )
    for key in ("metadataOptions", "capacityReservationSpecification", "instanceMarketOptions"):
        if inputs.get(key):
            parameters[key[:1].upper() + key[1:]] = pascal(inputs[key])
    if inputs.get("iamInstanceProfile"):
        parameters["IamInstanceProfile"] = {"Name": inputs["iamInstanceProfile"]}
    if inputs.get("placementGroup"):
        parameters["Placement"] = {"GroupName": inputs["placementGroup"]}
    if inputs.get("launchTemplate"):
        given = inputs["launchTemplate"]
        parameters["LaunchTemplate"] = {"LaunchTemplateId": given["id"], "Version": str(given["version"])}
    if inputs.get("rootBlockDevice"):
        disk = {k: v for k, v in inputs["rootBlockDevice"].items() if k != "tags"}
        if disk:
            image = aws.client("ec2").describe_images(ImageIds=[_image(aws, inputs)])["Images"][0]
            parameters["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": pascal(disk)}]
    return parameters


def _image(aws: Aws, inputs: Inputs) -> str:
    """The machine image, which may stand in the launch template only."""
    if inputs.get("ami"):
        return str(inputs["ami"])
    template = inputs["launchTemplate"]
    versions = aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=template["id"], Versions=[str(template["version"])]
    )
    return str(versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"])


def _create_instance(aws: Aws, inputs: Inputs) -> str:
    disk = inputs.get("rootBlockDevice") or {}
    made = aws.client("ec2").run_instances(
        MinCount=1,
        MaxCount=1,
        **_run_parameters(aws, inputs),
        TagSpecifications=[*tag_specification("instance", inputs), *tag_specification("volume", disk)],
    )
    return str(made["Instances"][0]["InstanceId"])


def _read_instance(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ec2").describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
        if found["State"]["Name"] in ("terminated", "shutting-down"):
            return None
        return {
            "arn": arn(aws, "instance", id_),
            "instanceState": found["State"]["Name"],
            "privateIp": found.get("PrivateIpAddress", ""),
            "privateDns": found.get("PrivateDnsName", ""),
            "primaryNetworkInterfaceId": next((n["NetworkInterfaceId"] for n in found["NetworkInterfaces"]), ""),
        }

    return or_gone(read)


_STOPPED = {"instanceType": "InstanceType", "ebsOptimized": "EbsOptimized", "userData": "UserData"}
"""Attributes that EC2 changes on a stopped machine only: the provider stops it, changes them, starts it again."""
_DISK = frozenset({"volumeSize", "volumeType", "iops", "throughput"})
"""Of a root volume, what EC2 changes on a living one."""


def _replaced(old: Inputs, new: Inputs) -> set[str]:
    def fixed(inputs: Inputs) -> dict[str, Any]:
        disk = inputs.get("rootBlockDevice") or {}
        return {k: v for k, v in disk.items() if k not in {*_DISK, "tags"}}

    found = {"userData"} if new.get("userDataReplaceOnChange") else set()
    return found | ({"rootBlockDevice"} if fixed(old) != fixed(new) else set())


def _update_instance(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    ec2 = aws.client("ec2")
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    if "vpcSecurityGroupIds" in changed:
        ec2.modify_instance_attribute(InstanceId=id_, Groups=new["vpcSecurityGroupIds"])
    if "instanceInitiatedShutdownBehavior" in changed:
        ec2.modify_instance_attribute(
            InstanceId=id_, InstanceInitiatedShutdownBehavior={"Value": new["instanceInitiatedShutdownBehavior"]}
        )
    if "metadataOptions" in changed:
        ec2.modify_instance_metadata_options(InstanceId=id_, **pascal(new["metadataOptions"]))
    if "iamInstanceProfile" in changed:
        _change_profile(aws, id_, new["iamInstanceProfile"])
    if "rootBlockDevice" in changed:
        _change_disk(aws, id_, new["rootBlockDevice"])
    if still := [key for key in _STOPPED if key in changed]:
        ec2.stop_instances(InstanceIds=[id_])
        for key in still:
            ec2.modify_instance_attribute(InstanceId=id_, **{_STOPPED[key]: {"Value": new[key]}})
        ec2.start_instances(InstanceIds=[id_])
    retag(aws, id_, old, new)


def _change_profile(aws: Aws, id_: str, name: str) -> None:
    ec2 = aws.client("ec2")
    found = ec2.describe_iam_instance_profile_associations(Filters=[{"Name": "instance-id", "Values": [id_]}])
    profile = {"Name": name}
    if standing := found["IamInstanceProfileAssociations"]:
        ec2.replace_iam_instance_profile_association(
            AssociationId=standing[0]["AssociationId"], IamInstanceProfile=profile
        )
    else:
        ec2.associate_iam_instance_profile(InstanceId=id_, IamInstanceProfile=profile)


def _change_disk(aws: Aws, id_: str, disk: Inputs) -> None:
    ec2 = aws.client("ec2")
    machine = ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
    root = next(m for m in machine["BlockDeviceMappings"] if m["DeviceName"] == machine["RootDeviceName"])
    volume = root["Ebs"]["VolumeId"]
    ec2.modify_volume(
        VolumeId=volume, **take(disk, Size="volumeSize", VolumeType="volumeType", Iops="iops", Throughput="throughput")
    )
    ec2.create_tags(Resources=[volume], Tags=pairs(disk.get("tags")))


def _delete_instance(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("ec2").terminate_instances, InstanceIds=[id_])
    remove_leavings(aws, [id_])


def remove_leavings(aws: Aws, instances: list[str]) -> None:
    """Remove the interfaces of terminated instances, which AWS takes away and moto leaves."""
    ec2 = aws.client("ec2")
    for interface in ec2.describe_network_interfaces()["NetworkInterfaces"]:
        if interface.get("Attachment", {}).get("InstanceId") in instances:
            unless_gone(ec2.delete_network_interface, NetworkInterfaceId=interface["NetworkInterfaceId"])


def _template_data(inputs: Inputs) -> dict[str, Any]:
    data = {
        key: inputs[key]
        for key in (
            "imageId", "instanceType", "userData", "ebsOptimized", "instanceInitiatedShutdownBehavior",
            "iamInstanceProfile", "metadataOptions", "blockDeviceMappings", "instanceMarketOptions", "placement",
        )
        if inputs.get(key) is not None
    }  # fmt: skip
    parameters = _typed(pascal(data))
    if inputs.get("networkInterfaces"):
        cards = _typed(pascal(inputs["networkInterfaces"]))
        parameters["NetworkInterfaces"] = [
            {"Groups" if k == "SecurityGroups" else k: v for k, v in card.items()} for card in cards
        ]
    if inputs.get("tagSpecifications"):
        parameters["TagSpecifications"] = [
            {"ResourceType": s["resourceType"], "Tags": pairs(s["tags"])} for s in inputs["tagSpecifications"]
        ]
    return parameters


def _create_template(aws: Aws, inputs: Inputs) -> str:
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=inputs["name"],
        LaunchTemplateData=_template_data(inputs),
        TagSpecifications=tag_specification("launch-template", inputs),
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def _update_template(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    ec2 = aws.client("ec2")
    if _template_data(old) != _template_data(new):
        # moto fails at starting a machine from a later version that has user data: it leaves that one undecoded.
        data = {k: v for k, v in _template_data(new).items() if k != "UserData"}
        version = ec2.create_launch_template_version(LaunchTemplateId=id_, LaunchTemplateData=data)
        if new.get("updateDefaultVersion"):
            number = version["LaunchTemplateVersion"]["VersionNumber"]
            ec2.modify_launch_template(LaunchTemplateId=id_, DefaultVersion=str(number))
    retag(aws, id_, old, new)


def _read_template(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ec2").describe_launch_templates(LaunchTemplateIds=[id_])["LaunchTemplates"]
        if not found:
            return None
        return {
            "arn": arn(aws, "launch-template", id_),
            "latestVersion": found[0]["LatestVersionNumber"],
            "defaultVersion": found[0]["DefaultVersionNumber"],
            "name": found[0]["LaunchTemplateName"],
        }

    return or_gone(read)


def _delete_template(aws: Aws, id_: str, _inputs: Inputs) -> None:
    unless_gone(aws.client("ec2").delete_launch_template, LaunchTemplateId=id_)


_TEMPLATE = frozenset(
    {
        "imageId", "instanceType", "userData", "ebsOptimized", "instanceInitiatedShutdownBehavior",
        "iamInstanceProfile", "metadataOptions", "blockDeviceMappings", "instanceMarketOptions", "placement",
        "networkInterfaces", "tagSpecifications", "updateDefaultVersion",
    }
)  # fmt: skip

KINDS = (
    Kind(
        "aws:ec2/instance:Instance", _create_instance, _read_instance, _delete_instance, _update_instance,
        TAGS | {*_STOPPED, "vpcSecurityGroupIds", "instanceInitiatedShutdownBehavior", "userDataReplaceOnChange",
                "metadataOptions", "iamInstanceProfile", "rootBlockDevice"},
        replaced=_replaced, note="is listed as terminated for a while, as in AWS",
    ),
    Kind(
        "aws:ec2/launchTemplate:LaunchTemplate", _create_template, _read_template, _delete_template, _update_template,
        TAGS | _TEMPLATE, moving=frozenset({"latestVersion", "defaultVersion"}), names="name", name_limit=128,
        omits="the user data of a later version, from which moto cannot start a machine",
    ),
    lacking("aws:ec2/placementGroup:PlacementGroup", "placement groups", "name"),
)  # fmt: skip
