"""Where machines live: an own VPC over the zones that offer the type, or an existing one."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.base import Component, Statement, allow, assumed_by, policy
from infra.context import Context, Shared


@dataclass(frozen=True, slots=True)
class NetworkArgs:
    """`zones` are zone ids. `egress`: nat, endpoints (each of `services` gets one) or none."""

    cidr: str
    zones: Sequence[str]
    egress: str
    services: Sequence[str]
    """Short names of AWS services: `ecr.api`, `logs` …"""
    public: bool
    """Whether something in it must be reachable from the internet."""
    shared: Shared
    log_retention_days: int
    deletes: Sequence[str] = ()
    """Prefixes of the artifact bucket below which the way to S3 lets objects be deleted."""


class Network(Component):
    """Private subnets for machines; public ones only where a NAT gateway or a public load balancer stands."""

    vpc_id: pulumi.Input[str]
    private_subnets: list[pulumi.Input[str]]
    public_subnets: list[pulumi.Input[str]]
    cidrs: list[str]
    """Addresses that count as internal."""

    def __init__(self, name: str, context: Context, args: NetworkArgs) -> None:
        super().__init__("Network", name, context)
        self.args = args
        self.vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=context.tags("vpc"),
            opts=self.child(),
        )
        self.vpc_id, self.cidrs = self.vpc.id, [args.cidr]
        # Without rules: whatever is put into it by mistake reaches nothing.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-default",
            vpc_id=self.vpc.id,
            ingress=[],
            egress=[],
            tags=context.tags("default"),
            opts=self.child(),
        )
        blocks = subnet_blocks(args.cidr, 2 * len(args.zones))
        self.private = [self._subnet("private", zone, blocks[i]) for i, zone in enumerate(args.zones)]
        self.private_subnets = [s.id for s in self.private]
        self.route_table = aws.ec2.RouteTable(
            f"{name}-private", vpc_id=self.vpc.id, tags=context.tags("private"), opts=self.child()
        )
        self._associate("private", self.private, self.route_table)
        self.public: list[aws.ec2.Subnet] = []
        self.public_subnets = []
        if args.public or args.egress == "nat":
            self._public(blocks[len(args.zones) :])
        if args.egress == "nat":
            self._nat()
        self._s3_endpoint()
        if args.egress == "endpoints":
            self._interface_endpoints()
        self._flow_logs()
        self.register_outputs({"vpc_id": self.vpc.id, "private_subnets": self.private_subnets})

    def _subnet(self, kind: str, zone: str, block: str) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self.name}-{kind}-{zone}",
            vpc_id=self.vpc.id,
            availability_zone_id=zone,
            cidr_block=block,
            map_public_ip_on_launch=False,
            tags=self.context.tags(f"{kind}-{zone}"),
            opts=self.child(),
        )

    def _associate(self, kind: str, subnets: Sequence[aws.ec2.Subnet], table: aws.ec2.RouteTable) -> None:
        for zone, subnet in zip(self.args.zones, subnets, strict=False):
            aws.ec2.RouteTableAssociation(
                f"{self.name}-{kind}-{zone}-routes", subnet_id=subnet.id, route_table_id=table.id, opts=self.child()
            )

    def _public(self, blocks: Sequence[str]) -> None:
        gateway = aws.ec2.InternetGateway(
            f"{self.name}-internet", vpc_id=self.vpc.id, tags=self.context.tags("internet"), opts=self.child()
        )
        # A NAT gateway stands in one zone; a public load balancer needs its subnets in several.
        zones = self.args.zones if self.args.public else self.args.zones[:1]
        self.public = [self._subnet("public", zone, blocks[i]) for i, zone in enumerate(zones)]
        self.public_subnets = [s.id for s in self.public]
        table = aws.ec2.RouteTable(
            f"{self.name}-public", vpc_id=self.vpc.id, tags=self.context.tags("public"), opts=self.child()
        )
        aws.ec2.Route(
            f"{self.name}-public-default",
            route_table_id=table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=self.child(),
        )
        self._associate("public", self.public, table)

    def _nat(self) -> None:
        address = aws.ec2.Eip(
            f"{self.name}-nat-address", domain="vpc", tags=self.context.tags("nat"), opts=self.child()
        )
        nat = aws.ec2.NatGateway(
            f"{self.name}-nat",
            allocation_id=address.allocation_id,
            subnet_id=self.public[0].id,
            tags=self.context.tags("nat"),
            opts=self.child(),
        )
        aws.ec2.Route(
            f"{self.name}-private-default",
            route_table_id=self.route_table.id,
            destination_cidr_block="0.0.0.0/0",
            nat_gateway_id=nat.id,
            opts=self.child(),
        )

    def _s3_endpoint(self) -> None:
        """Free, and the way that weights and image layers take."""
        context, bucket = self.context, self.args.shared.bucket_arn
        aws.ec2.VpcEndpoint(
            f"{self.name}-s3",
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{context.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[self.route_table.id],
            policy=policy(
                allow(
                    "Artifacts",
                    ["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:AbortMultipartUpload"],
                    [bucket, pulumi.Output.concat(bucket, "/*")],
                    None,
                    {"AWS": "*"},
                ),
                *self._deletes(),
                # ECR keeps image layers in a bucket of its own in every region.
                allow(
                    "ImageLayers",
                    ["s3:GetObject"],
                    [f"arn:{context.partition}:s3:::prod-{context.region}-starport-layer-bucket/*"],
                    None,
                    {"AWS": "*"},
                ),
            ),
            tags=context.tags("s3"),
            opts=self.child(),
        )

    def _deletes(self) -> list[Statement]:
        if not self.args.deletes:
            return []
        where = [pulumi.Output.concat(self.args.shared.bucket_arn, f"/{prefix}/*") for prefix in self.args.deletes]
        return [allow("Replaced", ["s3:DeleteObject"], where, None, {"AWS": "*"})]

    def _interface_endpoints(self) -> None:
        group = aws.ec2.SecurityGroup(
            f"{self.name}-endpoints",
            description="AWS's APIs from inside the VPC",
            vpc_id=self.vpc.id,
            tags=self.context.tags("endpoints"),
            opts=self.child(),
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self.name}-endpoints-https",
            security_group_id=group.id,
            description="HTTPS from the VPC",
            cidr_ipv4=self.args.cidr,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=self.context.tags(),
            opts=self.child(),
        )
        for service in self.args.services:
            label = service.replace(".", "-")
            aws.ec2.VpcEndpoint(
                f"{self.name}-{label}",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{self.context.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.private_subnets,
                security_group_ids=[group.id],
                tags=self.context.tags(label),
                opts=self.child(),
            )

    def _flow_logs(self) -> None:
        context = self.context
        group = aws.cloudwatch.LogGroup(
            f"{self.name}-flow",
            name=f"/{context.project}/flow/{context.stack}",
            retention_in_days=self.args.log_retention_days,
            kms_key_id=self.args.shared.key_arn,
            tags=context.tags("flow"),
            opts=self.child(),
        )
        role = aws.iam.Role(
            f"{self.name}-flow-role",
            assume_role_policy=assumed_by("vpc-flow-logs.amazonaws.com", context.account),
            tags=context.tags("flow"),
            opts=self.child(),
        )
        aws.iam.RolePolicy(
            f"{self.name}-flow-policy",
            role=role.id,
            policy=policy(
                allow(
                    "WriteFlowLogs",
                    ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                    [group.arn, pulumi.Output.concat(group.arn, ":*")],
                )
            ),
            opts=self.child(),
        )
        aws.ec2.FlowLog(
            f"{self.name}-flow-log",
            vpc_id=self.vpc.id,
            traffic_type="ALL",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=600,
            tags=context.tags("flow"),
            opts=self.child(),
        )


class ExistingNetwork(Component):
    """A VPC that someone else runs: nothing is created in it but what the stack itself needs."""

    def __init__(self, name: str, context: Context, vpc_id: str, subnet_ids: Sequence[str]) -> None:
        super().__init__("ExistingNetwork", name, context)
        found = aws.ec2.get_vpc_output(id=vpc_id, opts=pulumi.InvokeOptions(parent=self))
        self.vpc_id: pulumi.Input[str] = vpc_id
        self.private_subnets: list[pulumi.Input[str]] = list(subnet_ids)
        self.public_subnets: list[pulumi.Input[str]] = []
        self.cidrs: list[pulumi.Input[str]] = [found.cidr_block]
        self.register_outputs({"vpc_id": vpc_id, "private_subnets": self.private_subnets})


def subnet_blocks(cidr: str, wanted: int) -> list[str]:
    """`wanted` equal parts of a network, in order."""
    network = ipaddress.IPv4Network(cidr)
    bits = max(1, (wanted - 1).bit_length())
    return [str(block) for block in list(network.subnets(prefixlen_diff=bits))[:wanted]]
