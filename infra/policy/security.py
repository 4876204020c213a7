"""Rules about what must never stand open: metadata, disks, ports, permissions, buckets; and tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.plan import PlannedResource
from infra.policy.subject import Subject, Violation, as_list, dig, is_true, is_unknown, statements
from infra.resource_types import BUCKET, INSTANCE, TEMPLATE

MACHINES = (INSTANCE, TEMPLATE)
EVERYONE = ("0.0.0.0/0", "::/0")
TAGS = ("project", "stack", "owner", "expiry")
UNTAGGED = frozenset(
    {
        "aws:appautoscaling/policy:Policy",
        "aws:autoscaling/policy:Policy",
        "aws:autoscaling/schedule:Schedule",
        "aws:cloudwatch/dashboard:Dashboard",
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:kms/alias:Alias",
        "aws:route53/record:Record",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketLogging:BucketLogging",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "aws:s3/bucketVersioning:BucketVersioning",
        "aws:scheduler/schedule:Schedule",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sns/topicSubscription:TopicSubscription",
    }
)
"""Types that AWS gives no tags."""
NO_RESOURCE = (
    "ecr:GetAuthorizationToken",
    "cloudwatch:PutMetricData",
    "ec2:DescribeTags",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeDhcpOptions",
)
"""Actions for which AWS knows no resource (Service Authorization Reference)."""
TOO_MUCH = ("AdministratorAccess", "PowerUserAccess", "IAMFullAccess", "AmazonS3FullAccess", "AmazonEC2FullAccess")


def _found(rule: str, resource: PlannedResource, message: str) -> Violation:
    return Violation(rule, "mandatory", resource.name, message)


def metadata_version(subject: Subject) -> Iterator[Violation]:
    """The instance metadata service answers version 2 only."""
    for resource in subject.of_type(*MACHINES):
        if dig(resource.inputs, "metadataOptions", "httpTokens") != "required":
            yield _found("imdsv1", resource, "IMDSv1 is allowed: set metadata_options.http_tokens to required")


def encrypted_storage(subject: Subject) -> Iterator[Violation]:
    """Disks, buckets, topics and logs are encrypted."""
    rule = "unencrypted-storage"
    for resource in subject.of_type(INSTANCE):
        disks = [resource.inputs.get("rootBlockDevice"), *as_list(resource.inputs.get("ebsBlockDevices"))]
        for disk in disks:
            # An instance of a launch template may leave its disk to that.
            if disk is None and resource.inputs.get("launchTemplate"):
                continue
            if not is_true(dig(disk or {}, "encrypted")):
                yield _found(rule, resource, "a volume is not encrypted: set encrypted to true")
    for resource in subject.of_type("aws:ec2/launchTemplate:LaunchTemplate"):
        mappings = as_list(resource.inputs.get("blockDeviceMappings"))
        if not mappings or not all(is_true(dig(m, "ebs", "encrypted")) for m in mappings):
            yield _found(rule, resource, "a volume of the template is not encrypted: set encrypted to true")
    for resource in subject.of_type("aws:ebs/volume:Volume"):
        if not is_true(resource.inputs.get("encrypted")):
            yield _found(rule, resource, "the volume is not encrypted: set encrypted to true")
    needs = {
        "aws:sns/topic:Topic": "kmsMasterKeyId",
        "aws:cloudwatch/logGroup:LogGroup": "kmsKeyId",
    }
    for resource in subject.of_type(*needs):
        if not resource.inputs.get(needs[resource.type]):
            yield _found(rule, resource, f"no KMS key is given ({needs[resource.type]})")
    yield from _buckets_without(
        subject,
        rule,
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "the bucket has no encryption configuration",
    )


def open_ingress(subject: Subject) -> Iterator[Violation]:
    """Nobody's port is open to the whole internet."""
    for resource in subject.of_type(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "aws:ec2/securityGroupRule:SecurityGroupRule"
    ):
        inputs = resource.inputs
        if inputs.get("type") == "egress":
            continue
        blocks = [inputs.get("cidrIpv4"), inputs.get("cidrIpv6"), *as_list(inputs.get("cidrBlocks"))]
        if any(b in EVERYONE for b in blocks):
            yield _found("open-ingress", resource, "the whole internet may connect: name the callers' blocks")
    for resource in subject.of_type("aws:ec2/securityGroup:SecurityGroup"):
        for rule in as_list(resource.inputs.get("ingress")):
            blocks = [*as_list(dig(rule, "cidrBlocks")), *as_list(dig(rule, "ipv6CidrBlocks"))]
            if any(b in EVERYONE for b in blocks):
                yield _found("open-ingress", resource, "the whole internet may connect: name the callers' blocks")


def wildcard_permissions(subject: Subject) -> Iterator[Violation]:
    """Roles name their actions, and their resources wherever AWS lets them be named."""
    rule = "wildcard-iam"
    for resource in subject.of_type("aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy"):
        for statement in statements(resource.inputs.get("policy")):
            if statement.get("Effect") != "Allow":
                continue
            actions = as_list(statement.get("Action"))
            for action in actions:
                if action == "*" or str(action).endswith(":*"):
                    yield _found(rule, resource, f"allows every action of {action}: name the actions")
            if "NotAction" in statement or "NotResource" in statement:
                yield _found(rule, resource, "allows everything but what it names: name what is allowed")
            if "*" in as_list(statement.get("Resource")):
                wide = [a for a in actions if a not in NO_RESOURCE]
                if wide:
                    yield _found(rule, resource, f"allows {', '.join(map(str, wide))} on every resource: name them")
    for resource in subject.of_type("aws:iam/role:Role"):
        for statement in statements(resource.inputs.get("assumeRolePolicy")):
            if "*" in _principals(statement):
                yield _found(rule, resource, "anyone may take the role: name a principal")
    for resource in subject.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment"):
        name = str(resource.inputs.get("policyArn", "")).rsplit("/", 1)[-1]
        if name in TOO_MUCH:
            yield _found(rule, resource, f"{name} allows far more than a machine needs")


def public_buckets(subject: Subject) -> Iterator[Violation]:
    """Every bucket blocks public access whole, and no bucket policy lets everyone in."""
    rule, block = "public-bucket", "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    yield from _buckets_without(subject, rule, block, "the bucket does not block public access")
    switches = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    for resource in subject.of_type(block):
        off = [s for s in switches if not is_true(resource.inputs.get(s))]
        if off:
            yield _found(rule, resource, f"not all public access is blocked: {', '.join(off)}")
    for resource in subject.of_type(BUCKET):
        if str(resource.inputs.get("acl", "private")).startswith("public"):
            yield _found(rule, resource, f"its ACL is {resource.inputs['acl']}")
    for resource in subject.of_type("aws:s3/bucketPolicy:BucketPolicy"):
        for statement in statements(resource.inputs.get("policy")):
            if statement.get("Effect") == "Allow" and "*" in _principals(statement) and not statement.get("Condition"):
                yield _found(rule, resource, "its policy lets everyone in")


def tags(subject: Subject) -> Iterator[Violation]:
    """Whatever can be tagged says its project, stack, owner and expiry: cost reports and the guard go by them."""
    for resource in subject.resources:
        if not resource.custom or not resource.type.startswith("aws:") or resource.type in UNTAGGED:
            continue
        given = resource.inputs.get("tags")
        if isinstance(given, list):  # auto scaling groups
            given = {t.get("key"): t.get("value") for t in given if isinstance(t, Mapping)}
        missing = [t for t in TAGS if not (isinstance(given, Mapping) and given.get(t))]
        if missing and not is_unknown(given):
            yield _found("missing-tags", resource, f"lacks the tags {', '.join(missing)}")


def _principals(statement: Mapping[str, Any]) -> list[Any]:
    principal = statement.get("Principal")
    if isinstance(principal, Mapping):
        return [p for value in principal.values() for p in as_list(value)]
    return as_list(principal)


def _buckets_without(subject: Subject, rule: str, companion: str, message: str) -> Iterator[Violation]:
    """Buckets for which the companion resource is missing.

    Under a preview the companion's bucket is not known yet; then their numbers are compared.
    """
    buckets = list(subject.of_type(BUCKET))
    covered = [str(r.inputs.get("bucket")) for r in subject.of_type(companion)]
    if any(is_unknown(c) for c in covered):
        if len(covered) < len(buckets):
            yield Violation(rule, "mandatory", buckets[-1].name, message)
        return
    for bucket in buckets:
        if not {f"{bucket.name}-id", str(bucket.inputs.get("bucket"))} & set(covered):
            yield Violation(rule, "mandatory", bucket.name, message)
