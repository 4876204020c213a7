"""EC2's network: VPCs, subnets, gateways, routes, endpoints, flow logs."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, take, unless_gone


def tag_specification(kind: str, inputs: Inputs) -> list[dict[str, Any]]:
    """The `TagSpecifications` of a create call; none where there are no tags, which EC2 refuses to be empty."""
    tags = inputs.get("tags")
    return [{"ResourceType": kind, "Tags": pairs(tags)}] if tags else []


def retag(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    """Bring the tags of any EC2 resource to those of `new`."""
    given, removed = changed_tags(old, new)
    if given:
        aws.client("ec2").create_tags(Resources=[id_], Tags=pairs(given))
    if removed:
        aws.client("ec2").delete_tags(Resources=[id_], Tags=[{"Key": key} for key in removed])


def arn(aws: Aws, kind: str, id_: str) -> str:
    return f"arn:aws:ec2:{aws.region}:{aws.account}:{kind}/{id_}"


TAGS = frozenset({"tags"})


def _create_vpc(aws: Aws, inputs: Inputs) -> str:
    vpc = aws.client("ec2").create_vpc(
        CidrBlock=inputs["cidrBlock"], TagSpecifications=tag_specification("vpc", inputs)
    )["Vpc"]["VpcId"]
    _update_vpc(aws, vpc, inputs, inputs)
    return str(vpc)


def _update_vpc(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    for key, attribute in (("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")):
        if key in new:
            aws.client("ec2").modify_vpc_attribute(VpcId=id_, **{attribute: {"Value": bool(new[key])}})
    retag(aws, id_, old, new)


def _read_vpc(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        vpc = aws.client("ec2").describe_vpcs(VpcIds=[id_])["Vpcs"][0]
        return {"arn": arn(aws, "vpc", id_), "cidrBlock": vpc["CidrBlock"], "ownerId": vpc["OwnerId"]}

    return or_gone(read)


def _create_subnet(aws: Aws, inputs: Inputs) -> str:
    subnet = aws.client("ec2").create_subnet(
        **take(inputs, VpcId="vpcId", CidrBlock="cidrBlock", AvailabilityZoneId="availabilityZoneId"),
        TagSpecifications=tag_specification("subnet", inputs),
    )["Subnet"]["SubnetId"]
    _update_subnet(aws, subnet, inputs, inputs)
    return str(subnet)


def _update_subnet(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    if "mapPublicIpOnLaunch" in new:
        aws.client("ec2").modify_subnet_attribute(
            SubnetId=id_, MapPublicIpOnLaunch={"Value": bool(new["mapPublicIpOnLaunch"])}
        )
    retag(aws, id_, old, new)


def _read_subnet(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        subnet = aws.client("ec2").describe_subnets(SubnetIds=[id_])["Subnets"][0]
        return {"arn": subnet["SubnetArn"], "availabilityZone": subnet["AvailabilityZone"]}

    return or_gone(read)


def _create_internet_gateway(aws: Aws, inputs: Inputs) -> str:
    ec2 = aws.client("ec2")
    gateway = ec2.create_internet_gateway(TagSpecifications=tag_specification("internet-gateway", inputs))
    id_ = str(gateway["InternetGateway"]["InternetGatewayId"])
    ec2.attach_internet_gateway(InternetGatewayId=id_, VpcId=inputs["vpcId"])
    return id_


def _read_internet_gateway(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        aws.client("ec2").describe_internet_gateways(InternetGatewayIds=[id_])
        return {"arn": arn(aws, "internet-gateway", id_)}

    return or_gone(read)


def _delete_internet_gateway(aws: Aws, id_: str, inputs: Inputs) -> None:
    ec2 = aws.client("ec2")
    unless_gone(ec2.detach_internet_gateway, InternetGatewayId=id_, VpcId=inputs["vpcId"])
    unless_gone(ec2.delete_internet_gateway, InternetGatewayId=id_)


def _create_eip(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("ec2").allocate_address(
            **take(inputs, Domain="domain"), TagSpecifications=tag_specification("elastic-ip", inputs)
        )["AllocationId"]
    )


def _read_eip(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        address = aws.client("ec2").describe_addresses(AllocationIds=[id_])["Addresses"][0]
        return {
            "allocationId": id_,
            "publicIp": address["PublicIp"],
            "arn": arn(aws, "elastic-ip", id_),
        }

    return or_gone(read)


def _create_nat(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("ec2").create_nat_gateway(
            **take(inputs, SubnetId="subnetId", AllocationId="allocationId"),
            TagSpecifications=tag_specification("natgateway", inputs),
        )["NatGateway"]["NatGatewayId"]
    )


def _read_nat(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ec2").describe_nat_gateways(NatGatewayIds=[id_])["NatGateways"]
        living = [n for n in found if n["State"] not in ("deleted", "deleting")]
        return {"publicIp": living[0]["NatGatewayAddresses"][0].get("PublicIp", "")} if living else None

    return or_gone(read)


def _delete_nat(aws: Aws, id_: str, inputs: Inputs) -> None:
    if _read_nat(aws, id_, inputs) is None:
        return
    ec2 = aws.client("ec2")
    addresses = ec2.describe_nat_gateways(NatGatewayIds=[id_])["NatGateways"][0]["NatGatewayAddresses"]
    ec2.delete_nat_gateway(NatGatewayId=id_)
    for address in addresses:  # moto leaves the gateway's interface behind, which AWS takes away
        if address.get("NetworkInterfaceId"):
            unless_gone(ec2.delete_network_interface, NetworkInterfaceId=address["NetworkInterfaceId"])


def _create_table(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("ec2").create_route_table(
            VpcId=inputs["vpcId"], TagSpecifications=tag_specification("route-table", inputs)
        )["RouteTable"]["RouteTableId"]
    )


def _table(aws: Aws, id_: str) -> dict[str, Any]:
    return dict(aws.client("ec2").describe_route_tables(RouteTableIds=[id_])["RouteTables"][0])


def _read_table(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        _table(aws, id_)
        return {"arn": arn(aws, "route-table", id_)}

    return or_gone(read)


_TARGETS = {"GatewayId": "gatewayId", "NatGatewayId": "natGatewayId"}


def _create_route(aws: Aws, inputs: Inputs) -> str:
    aws.client("ec2").create_route(
        RouteTableId=inputs["routeTableId"],
        DestinationCidrBlock=inputs["destinationCidrBlock"],
        **take(inputs, **_TARGETS),
    )
    return f"{inputs['routeTableId']}_{inputs['destinationCidrBlock']}"


def _update_route(aws: Aws, _id: str, _old: Inputs, new: Inputs) -> None:
    aws.client("ec2").replace_route(
        RouteTableId=new["routeTableId"], DestinationCidrBlock=new["destinationCidrBlock"], **take(new, **_TARGETS)
    )


def _read_route(aws: Aws, _id: str, inputs: Inputs) -> Found:
    def read() -> Found:
        routes = _table(aws, inputs["routeTableId"])["Routes"]
        here = [r for r in routes if r.get("DestinationCidrBlock") == inputs["destinationCidrBlock"]]
        return {"state": here[0].get("State", "")} if here else None

    return or_gone(read)


def _delete_route(aws: Aws, _id: str, inputs: Inputs) -> None:
    unless_gone(
        aws.client("ec2").delete_route,
        RouteTableId=inputs["routeTableId"],
        DestinationCidrBlock=inputs["destinationCidrBlock"],
    )


def _create_association(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("ec2").associate_route_table(RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"])[
            "AssociationId"
        ]
    )


def _read_association(aws: Aws, id_: str, inputs: Inputs) -> Found:
    def read() -> Found:
        associations = _table(aws, inputs["routeTableId"])["Associations"]
        return {} if any(a["RouteTableAssociationId"] == id_ for a in associations) else None

    return or_gone(read)


def _create_endpoint(aws: Aws, inputs: Inputs) -> str:
    return str(
        aws.client("ec2").create_vpc_endpoint(
            **take(
                inputs,
                VpcId="vpcId",
                ServiceName="serviceName",
                VpcEndpointType="vpcEndpointType",
                PolicyDocument="policy",
                RouteTableIds="routeTableIds",
                SubnetIds="subnetIds",
                SecurityGroupIds="securityGroupIds",
                PrivateDnsEnabled="privateDnsEnabled",
            ),
            TagSpecifications=tag_specification("vpc-endpoint", inputs),
        )["VpcEndpoint"]["VpcEndpointId"]
    )


_PLACES = {"routeTableIds": "RouteTableIds", "subnetIds": "SubnetIds", "securityGroupIds": "SecurityGroupIds"}


def _update_endpoint(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    change = take(new, PolicyDocument="policy") if old.get("policy") != new.get("policy") else {}
    for key, parameter in _PLACES.items():
        before, after = set(old.get(key) or []), set(new.get(key) or [])
        change |= {f"Add{parameter}": sorted(after - before)} if after - before else {}
        change |= {f"Remove{parameter}": sorted(before - after)} if before - after else {}
    if change:
        aws.client("ec2").modify_vpc_endpoint(VpcEndpointId=id_, **change)
    retag(aws, id_, old, new)


def _read_endpoint(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ec2").describe_vpc_endpoints(VpcEndpointIds=[id_])["VpcEndpoints"]
        living = [e for e in found if e["State"] not in ("deleted", "deleting")]
        return {"arn": arn(aws, "vpc-endpoint", id_), "state": living[0]["State"]} if living else None

    return or_gone(read)


def _create_flow_log(aws: Aws, inputs: Inputs) -> str:
    made = aws.client("ec2").create_flow_logs(
        ResourceIds=[inputs["vpcId"]],
        ResourceType="VPC",
        LogDestinationType="cloud-watch-logs",
        # The ARN that the program gives ends in the name of the group, which is all that moto takes.
        LogGroupName=inputs["logDestination"].split(":log-group:", 1)[1].removesuffix(":*"),
        **take(
            inputs,
            TrafficType="trafficType",
            DeliverLogsPermissionArn="iamRoleArn",
            MaxAggregationInterval="maxAggregationInterval",
        ),
        TagSpecifications=tag_specification("vpc-flow-log", inputs),
    )
    if made.get("Unsuccessful"):
        raise ClientError({"Error": made["Unsuccessful"][0]["Error"]}, "CreateFlowLogs")
    return str(made["FlowLogIds"][0])


def _read_flow_log(aws: Aws, id_: str, _inputs: Inputs) -> Found:
    def read() -> Found:
        found = aws.client("ec2").describe_flow_logs(FlowLogIds=[id_])["FlowLogs"]
        return {"arn": arn(aws, "vpc-flow-log", id_)} if found else None

    return or_gone(read)


def _remove(call: str, parameter: str, *, many: bool = False) -> Any:
    def delete(aws: Aws, id_: str, _inputs: Inputs) -> None:
        unless_gone(getattr(aws.client("ec2"), call), **{parameter: [id_] if many else id_})

    return delete


KINDS = (
    Kind(
        "aws:ec2/vpc:Vpc", _create_vpc, _read_vpc, _remove("delete_vpc", "VpcId"), _update_vpc,
        frozenset({"tags", "enableDnsSupport", "enableDnsHostnames"}),
    ),
    Kind(
        "aws:ec2/subnet:Subnet", _create_subnet, _read_subnet, _remove("delete_subnet", "SubnetId"), _update_subnet,
        frozenset({"tags", "mapPublicIpOnLaunch"}), delete_first=True,
    ),
    Kind(
        "aws:ec2/internetGateway:InternetGateway", _create_internet_gateway, _read_internet_gateway,
        _delete_internet_gateway, retag, TAGS,
    ),
    Kind("aws:ec2/eip:Eip", _create_eip, _read_eip, _remove("release_address", "AllocationId"), retag, TAGS),
    Kind(
        "aws:ec2/natGateway:NatGateway", _create_nat, _read_nat, _delete_nat,
        retag, TAGS, delete_first=True,
    ),
    Kind(
        "aws:ec2/routeTable:RouteTable", _create_table, _read_table, _remove("delete_route_table", "RouteTableId"),
        retag, TAGS,
    ),
    Kind(
        "aws:ec2/route:Route", _create_route, _read_route, _delete_route, _update_route,
        frozenset(_TARGETS.values()), delete_first=True,
    ),
    Kind(
        "aws:ec2/routeTableAssociation:RouteTableAssociation", _create_association, _read_association,
        _remove("disassociate_route_table", "AssociationId"), delete_first=True,
    ),
    Kind(
        "aws:ec2/vpcEndpoint:VpcEndpoint", _create_endpoint, _read_endpoint,
        _remove("delete_vpc_endpoints", "VpcEndpointIds", many=True), _update_endpoint,
        TAGS | {"policy", *_PLACES},
    ),
    Kind(
        "aws:ec2/flowLog:FlowLog", _create_flow_log, _read_flow_log,
        _remove("delete_flow_logs", "FlowLogIds", many=True), retag, TAGS,
    ),
)  # fmt: skip
