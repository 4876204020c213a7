"""Every rule of the policy pack passes and fails, directly and through Pulumi's own classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from infra_projects import ENDPOINT, INFERENCE, MOMENT, STACKS, TRAINING, Project, committed
from pulumi_policy import PolicyResource, StackValidationArgs
from pulumi_policy.proxy import UnknownValueError

from infra.plan import UNKNOWN, Plan, PlannedResource
from infra.policy.pack import policies, subject_of, validator
from infra.policy.rules import RULES, check
from infra.policy.subject import Subject

BY_NAME = {rule.name: rule for rule in RULES}


def found(rule: str, plan: Plan) -> list[str]:
    return [f"{v.resource}: {v.message}" for v in BY_NAME[rule].check(Subject.of_plan(plan))]


def altered(plan: Plan, type_: str, change: Callable[[dict[str, Any]], None], only: str = "") -> Plan:
    """The plan with the inputs of one type changed."""

    def one(resource: PlannedResource) -> PlannedResource:
        if resource.type != type_ or not resource.name.endswith(only):
            return resource
        inputs = json.loads(json.dumps(resource.inputs))
        change(inputs)
        return replace(resource, inputs=inputs)

    return replace(plan, resources=tuple(one(r) for r in plan.resources))


def without(plan: Plan, *types: str) -> Plan:
    return replace(plan, resources=tuple(r for r in plan.resources if r.type not in types))


def extra(plan: Plan, type_: str, inputs: Mapping[str, Any]) -> Plan:
    urn = f"urn:pulumi:{plan.stack}::berth::{type_}::added"
    return replace(plan, resources=(*plan.resources, PlannedResource(urn, type_, "added", "", inputs)))


@pytest.mark.parametrize("name", STACKS)
def test_the_committed_stacks_pass_every_rule(name: str) -> None:
    assert check(Subject.of_plan(committed(name))) == []


def test_over_budget(project: Project) -> None:
    assert found("over-budget", project.plan(INFERENCE)) == []
    assert (
        "over budget_per_month (100)" in found("over-budget", project.plan({**INFERENCE, "budget_per_month": 100}))[0]
    )
    run = project.plan({**TRAINING, "budget_per_run": 100})
    assert "over budget_per_run (100)" in found("over-budget", run)[0]


def test_gpu_without_guard(project: Project) -> None:
    rule = "gpu-without-guard"
    plan = project.plan(INFERENCE)
    assert found(rule, plan) == []
    silent = project.plan({**INFERENCE, "alarm_email": ""})
    assert "an address that is told" in found(rule, silent)[0]
    assert "a budget" in found(rule, without(plan, "aws:budgets/budget:Budget"))[0]
    assert "idle GPU" in found(rule, without(plan, "aws:cloudwatch/metricAlarm:MetricAlarm"))[0]
    expiring = project.plan({**INFERENCE, "alarm_email": "", "time_to_live": "2h"})
    assert found(rule, expiring) == []
    run = project.plan(TRAINING)
    assert found(rule, run) == []
    assert "trains and no schedule ends it" in found(rule, without(run, "aws:scheduler/schedule:Schedule"))[0]

    def later(inputs: dict[str, Any]) -> None:
        inputs["scheduleExpression"] = "at(2026-11-25T12:10:01)"

    assert "later than its expiry" in found(rule, altered(run, "aws:scheduler/schedule:Schedule", later))[0]
    silent = project.plan({**ENDPOINT, "alarm_email": ""})
    bare = without(silent, "aws:budgets/budget:Budget", "aws:cloudwatch/metricAlarm:MetricAlarm")
    assert "g4dn.2xlarge has no expiry" in found(rule, bare)[0]


def test_imdsv1(project: Project) -> None:
    def old(inputs: dict[str, Any]) -> None:
        inputs["metadataOptions"]["httpTokens"] = "optional"

    for type_, values in (
        ("aws:ec2/instance:Instance", INFERENCE),
        ("aws:ec2/launchTemplate:LaunchTemplate", {**INFERENCE, "replicas": 2}),
    ):
        plan = project.plan(values)
        assert found("imdsv1", plan) == []
        assert "IMDSv1" in found("imdsv1", altered(plan, type_, old))[0]
        assert found("imdsv1", altered(plan, type_, lambda i: i.pop("metadataOptions")))


@pytest.mark.parametrize(
    ("type_", "change"),
    [
        ("aws:ec2/instance:Instance", lambda i: i["rootBlockDevice"].update(encrypted=False)),
        ("aws:ec2/instance:Instance", lambda i: i.pop("rootBlockDevice")),
        ("aws:ec2/instance:Instance", lambda i: i.update(ebsBlockDevices=[{"volumeSize": 5}])),
        ("aws:sns/topic:Topic", lambda i: i.pop("kmsMasterKeyId")),
        ("aws:cloudwatch/logGroup:LogGroup", lambda i: i.pop("kmsKeyId")),
    ],
)
def test_unencrypted_storage(project: Project, type_: str, change: Callable[[dict[str, Any]], None]) -> None:
    plan = project.plan(INFERENCE)
    assert found("unencrypted-storage", plan) == []
    assert found("unencrypted-storage", altered(plan, type_, change))


def test_unencrypted_templates_volumes_and_buckets(project: Project) -> None:
    rule = "unencrypted-storage"
    group = project.plan({**INFERENCE, "replicas": 2})
    template = "aws:ec2/launchTemplate:LaunchTemplate"
    assert found(rule, group) == []
    assert found(rule, altered(group, template, lambda i: i["blockDeviceMappings"][0]["ebs"].update(encrypted="false")))
    assert found(rule, extra(group, "aws:ebs/volume:Volume", {"size": 10}))
    assert found(rule, extra(group, "aws:ebs/volume:Volume", {"size": 10, "encrypted": True})) == []
    shared = committed("shared")
    encryption = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    assert found(rule, without(shared, encryption))
    unknown = altered(shared, encryption, lambda i: i.update(bucket=UNKNOWN))
    assert found(rule, unknown) == []


@pytest.mark.parametrize("block", [{"cidrIpv4": "0.0.0.0/0"}, {"cidrIpv6": "::/0"}])
def test_open_ingress(project: Project, block: dict[str, str]) -> None:
    plan, rule = project.plan(INFERENCE), "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    assert found("open-ingress", plan) == []
    assert found("open-ingress", altered(plan, rule, lambda i: i.update(block)))
    inline = {"ingress": [{"cidrBlocks": ["0.0.0.0/0"]}]}
    assert found("open-ingress", altered(plan, "aws:ec2/securityGroup:SecurityGroup", lambda i: i.update(inline)))


def test_open_ingress_through_the_settings(project: Project) -> None:
    arn = "arn:aws:acm:us-east-1:111122223333:certificate/x"
    plan = project.plan({**INFERENCE, "callers": ["0.0.0.0/0"], "certificate_arn": arn})
    assert len(found("open-ingress", plan)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::x"},
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::x"]},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "*"},
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:aws:s3:::x"},
    ],
)
def test_wildcard_iam(project: Project, statement: dict[str, Any]) -> None:
    plan = project.plan(INFERENCE)
    assert found("wildcard-iam", plan) == []
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    assert found("wildcard-iam", extra(plan, "aws:iam/rolePolicy:RolePolicy", {"policy": document}))
    denied = json.dumps({"Statement": [{**statement, "Effect": "Deny"}]})
    assert found("wildcard-iam", extra(plan, "aws:iam/rolePolicy:RolePolicy", {"policy": denied})) == []


def test_wildcard_roles_and_managed_policies(project: Project) -> None:
    plan = project.plan(INFERENCE)
    anyone = json.dumps({"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
    assert found("wildcard-iam", extra(plan, "aws:iam/role:Role", {"assumeRolePolicy": anyone}))
    attached = {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}
    assert found("wildcard-iam", extra(plan, "aws:iam/rolePolicyAttachment:RolePolicyAttachment", attached))
    later = {"policy": UNKNOWN}
    assert found("wildcard-iam", extra(plan, "aws:iam/rolePolicy:RolePolicy", later)) == []


def test_public_bucket() -> None:
    shared, block = committed("shared"), "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    assert found("public-bucket", shared) == []
    assert found("public-bucket", without(shared, block))
    assert found("public-bucket", altered(shared, block, lambda i: i.update(blockPublicPolicy=False)))
    assert found("public-bucket", altered(shared, "aws:s3/bucket:Bucket", lambda i: i.update(acl="public-read")))
    open_policy = json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}]})
    assert found("public-bucket", extra(shared, "aws:s3/bucketPolicy:BucketPolicy", {"policy": open_policy}))


def test_missing_tags(project: Project) -> None:
    plan = project.plan({**INFERENCE, "replicas": 2})
    assert found("missing-tags", plan) == []
    assert found("missing-tags", altered(plan, "aws:ec2/vpc:Vpc", lambda i: i["tags"].pop("owner")))
    group = "aws:autoscaling/group:Group"
    assert "owner" in found("missing-tags", altered(plan, group, lambda i: i.update(tags=[])))[0]


def test_machine_too_small(project: Project) -> None:
    rule = "machine-too-small"
    assert found(rule, project.plan(INFERENCE)) == []
    ram = project.plan({**INFERENCE, "instance_type": "g4dn.xlarge"})
    assert "system RAM" in found(rule, ram)[0]
    gpu = project.plan({**INFERENCE, "model": "google/flan-t5-xxl", "instance_type": "g4dn.8xlarge"})
    assert "GPU memory" in found(rule, gpu)[0]
    dtype = project.plan({**INFERENCE, "dtype": "bf16"})
    assert "bf16 asked, T4 has none" in found(rule, dtype)[0]
    assert "GPU memory" in found(rule, project.plan({**ENDPOINT, "batch": 512}))[0]


@pytest.mark.parametrize("values", [INFERENCE, ENDPOINT], ids=["inference", "endpoint"])
def test_a_machine_too_small_for_the_plain_way_holds_what_is_mapped(project: Project, values: dict[str, Any]) -> None:
    rule, llama = "machine-too-small", {"model": "meta-llama/Llama-3.1-8B", "instance_type": "g6.2xlarge"}
    small = {**values, **llama, "dtype": "bf16"}
    refused = found(rule, project.plan(small))[0]
    assert "system RAM" in refused and "berth:loading mmap would fit" in refused
    mapped = project.plan({**small, "loading": "mmap"})
    assert found(rule, mapped) == []
    assert not [w for w in mapped.warnings if "sizing would choose" in w]
    larger = {**small, "model": "meta-llama/Llama-2-13b-hf", "loading": "mmap"}
    assert "GPU memory" in found(rule, project.plan(larger))[0]
    far = {**small, "model": "google/flan-t5-xxl", "instance_type": "g6e.xlarge"}
    assert "would fit" not in found(rule, project.plan(far))[0]


def test_not_offered(project: Project) -> None:
    rule = "not-offered"
    assert found(rule, project.plan(INFERENCE)) == []
    assert "use1-az3" in found(rule, project.plan({**INFERENCE, "zones": ["use1-az3"]}))[0]
    block = {**TRAINING, "purchase": "capacity-block", "capacity_block_id": "cr-0a", "instance_type": "g4dn.2xlarge"}
    assert "capacity-block" in found(rule, project.plan({**block, "dtype": "fp32"}))[0]
    gone = project.plan({**INFERENCE, "instance_type": "p3.2xlarge", "zones": ["use1-az1"]})
    assert "offered in no zone" in found(rule, gone)[0]


def test_a_rate_that_is_not_known_is_advice_and_no_refusal(project: Project) -> None:
    plan = project.plan({**INFERENCE, "instance_type": "g7e.2xlarge", "dtype": "bf16", "purchase": "reserved-1y"})
    levels = {v.level for v in BY_NAME["not-offered"].check(Subject.of_plan(plan)) if "rate" in v.message}
    assert levels == {"advisory"}


class Partly(dict[str, Any]):
    """What Pulumi's server shows of a resource: reading what is not known yet raises."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if value == UNKNOWN:
            raise UnknownValueError(UNKNOWN, [key])
        return value


def shown(plan: Plan) -> list[PolicyResource]:
    """The plan's resources in the classes of Pulumi's policy SDK."""
    made: dict[str, PolicyResource] = {}
    for r in sorted(plan.resources, key=lambda r: r.custom):
        parent = made.get(r.parent)
        made[r.urn] = PolicyResource(r.type, Partly(r.inputs), r.urn, r.name, None, None, parent, [], {})  # type: ignore[arg-type]
    return list(made.values())


def test_the_pack_has_a_mandatory_policy_for_every_rule() -> None:
    made = policies()
    assert [p.name for p in made] == [rule.name for rule in RULES]
    assert all(p.description and p.enforcement_level is not None for p in made)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_the_pack_s_validators_pass_a_good_stack(project: Project, rule: str) -> None:
    plan, reports = project.plan(INFERENCE), []
    args = StackValidationArgs(shown(plan))  # type: ignore[arg-type]
    validator(BY_NAME[rule], project.root)(args, reports.append)
    assert reports == []


def test_the_pack_s_validators_report_what_the_rules_find(project: Project) -> None:
    plan, reports = project.plan({**INFERENCE, "budget_per_month": 10}), []
    args = StackValidationArgs(shown(plan))  # type: ignore[arg-type]
    validator(BY_NAME["over-budget"], project.root)(args, reports.append)
    assert len(reports) == 1 and "over budget_per_month" in reports[0]


def test_what_is_not_known_during_a_preview_is_no_violation(project: Project) -> None:
    plan = project.plan(INFERENCE)
    later = altered(plan, "aws:iam/rolePolicy:RolePolicy", lambda i: i.update(policy=UNKNOWN))
    subject = subject_of(shown(later), project.root, lambda: MOMENT)
    assert check(subject) == []


def test_the_pack_s_folder_holds_what_pulumi_looks_for() -> None:
    from infra.stack_files import ROOT, load_yaml

    folder = ROOT / "infra" / "policy"
    assert load_yaml(folder / "PulumiPolicy.yaml")["runtime"]["name"] == "python"
    assert "PolicyPack(" in (folder / "__main__.py").read_text(encoding="utf-8")
