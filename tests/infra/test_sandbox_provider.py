"""The sandbox's provider: what changes in place, what is replaced, and the engine's own calls on it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pulumi.provider.experimental import provider as engine
from pulumi.provider.experimental.property_value import PropertyValue

from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.sandbox.catalogue import kinds
from infra.sandbox.engine import EngineProvider, plain_all, wrapped_all
from infra.sandbox.provider import RefusedError, SandboxProvider
from infra.stack_files import ROOT
from sizing.errors import UserError

T = TypeVar("T")
VPC = "aws:ec2/vpc:Vpc"
URN = "urn:pulumi:dev::berth::berth:components:Network$aws:ec2/vpc:Vpc::net"
TAGS = {"project": "berth", "stack": "dev"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    folder = tmp_path_factory.mktemp("provider")
    with server.locked(folder):
        found = server.start(folder)
    yield found
    server.stop(folder)


@pytest.fixture(scope="module")
def provider(local: server.Server) -> SandboxProvider:
    return SandboxProvider(Aws(local.endpoint, "us-east-1"))


def wait(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


def test_a_change_is_made_in_place_or_by_replacement_as_in_aws(provider: SandboxProvider) -> None:
    old = {"cidrBlock": "10.1.0.0/16", "enableDnsSupport": True, "tags": TAGS}
    assert provider.diff(VPC, "net", old, {**old, "tags": {}}).replaces == ()
    assert provider.diff(VPC, "net", old, {**old, "cidrBlock": "10.2.0.0/16"}).replaces == ("cidrBlock",)
    assert provider.diff(VPC, "net", old, old).changed == ()
    type_, machine = "aws:ec2/instance:Instance", {"ami": "ami-1", "instanceType": "g4dn.xlarge", "userData": "x"}
    changed = {**machine, "ami": "ami-2", "userData": "y"}
    change = provider.diff(type_, "host", machine, changed, ["ami"])
    assert (change.changed, change.replaces) == (("userData",), ())
    change = provider.diff(type_, "host", machine, {**changed, "userDataReplaceOnChange": True}, ["ami"])
    assert change.replaces == ("userData",)
    disk = {"encrypted": True, "volumeSize": 100}
    machine["rootBlockDevice"] = disk
    for key, value, replaces in (("volumeSize", 200, ()), ("encrypted", False, ("rootBlockDevice",))):
        change = provider.diff(type_, "host", machine, {**machine, "rootBlockDevice": {**disk, key: value}})
        assert (change.changed, change.replaces) == (("rootBlockDevice",), replaces)


def test_a_successor_is_made_first_unless_both_would_have_one_name(provider: SandboxProvider) -> None:
    type_, given = "aws:lb/targetGroup:TargetGroup", {"name": "hosts", "port": 80}
    assert provider.diff(type_, "hosts", given, {**given, "port": 81}).delete_first is True
    given["name"] = "hosts-0123abc"
    assert provider.diff(type_, "hosts", given, {**given, "port": 81}).delete_first is False


def test_every_kind_says_what_it_changes_in_place_only_where_it_can(provider: SandboxProvider) -> None:
    for kind in kinds().values():
        assert bool(kind.in_place) == (kind.update is not None), kind.type


def test_tags_and_attributes_are_changed_in_place(provider: SandboxProvider) -> None:
    old = {"cidrBlock": "10.1.0.0/16", "enableDnsHostnames": False, "tags": TAGS}
    id_, outputs = provider.create(VPC, "net", old)
    assert outputs["arn"] == f"arn:aws:ec2:us-east-1:{provider.aws.account}:vpc/{id_}"
    provider.update(VPC, "net", id_, old, {**old, "enableDnsHostnames": True, "tags": {"stack": "dev", "owner": "me"}})
    found = provider.aws.client("ec2").describe_vpcs(VpcIds=[id_])["Vpcs"][0]
    assert {t["Key"]: t["Value"] for t in found["Tags"]} == {"stack": "dev", "owner": "me"}
    names = provider.aws.client("ec2").describe_vpc_attribute(VpcId=id_, Attribute="enableDnsHostnames")
    assert names["EnableDnsHostnames"]["Value"] is True
    with pytest.raises(RefusedError, match=r"cidrBlock cannot be changed; it must be replaced"):
        provider.update(VPC, "net", id_, old, {**old, "cidrBlock": "10.9.0.0/16"})
    provider.delete(VPC, "net", id_, old)
    assert provider.read(VPC, "net", id_, old) is None
    provider.delete(VPC, "net", id_, old)


def test_a_budget_and_an_alarm_are_changed_in_place(provider: SandboxProvider) -> None:
    type_ = "aws:budgets/budget:Budget"
    old = {"name": "b", "budgetType": "COST", "limitAmount": "10", "limitUnit": "USD", "timeUnit": "MONTHLY"}
    id_, _ = provider.create(type_, "b", old)
    provider.update(type_, "b", id_, old, {**old, "limitAmount": "20"})
    account, budgets = provider.aws.account, provider.aws.client("budgets")
    found = budgets.describe_budget(AccountId=account, BudgetName="b")["Budget"]
    assert found["BudgetLimit"]["Amount"] == "20"
    provider.delete(type_, "b", id_, old)
    type_ = "aws:cloudwatch/metricAlarm:MetricAlarm"
    alarm = {
        "name": "a", "namespace": "Berth", "metricName": "Errors", "statistic": "Sum", "threshold": 5, "period": 60,
        "comparisonOperator": "GreaterThanThreshold", "evaluationPeriods": 1, "tags": TAGS,
    }  # fmt: skip
    id_, _ = provider.create(type_, "a", alarm)
    provider.update(type_, "a", id_, alarm, {**alarm, "threshold": 9, "tags": {"stack": "other"}})
    watch = provider.aws.client("cloudwatch")
    found = watch.describe_alarms(AlarmNames=["a"])["MetricAlarms"][0]
    assert found["Threshold"] == 9
    assert watch.list_tags_for_resource(ResourceARN=found["AlarmArn"])["Tags"] == [{"Key": "stack", "Value": "other"}]
    provider.delete(type_, "a", id_, alarm)


def test_what_aws_does_not_take_is_refused_with_the_name(provider: SandboxProvider) -> None:
    with pytest.raises(RefusedError, match=r"aws:ec2/vpc:Vpc net: AWS refuses to make it: .*10\.1\.0\.0/8"):
        provider.create(VPC, "net", {"cidrBlock": "10.1.0.0/8"})
    with pytest.raises(RefusedError, match=r"aws:ec2/vpc:Vpc net: to make it: Parameter validation failed"):
        provider.create(VPC, "net", {"cidrBlock": 7})
    with pytest.raises(UserError, match="unknown resource type in the sandbox 'aws:ec2/vpcs:Vpc'"):
        provider.create("aws:ec2/vpcs:Vpc", "net", {})
    with pytest.raises(UserError, match="no answer for the function aws:ec2/getAmi:getAmi"):
        provider.invoke("aws:ec2/getAmi:getAmi", {})


def test_names_are_made_as_the_provider_makes_them_and_kept(provider: SandboxProvider) -> None:
    role = "aws:iam/role:Role"
    assert provider.check(role, "r", {}, digits="0a1b2c3")["name"] == "r-0a1b2c3"
    assert provider.check(role, "r", {}, {"name": "r-7777777"})["name"] == "r-7777777"
    assert provider.check(role, "r", {"name": "mine"})["name"] == "mine"
    with pytest.raises(RefusedError, match="longer than 64 characters"):
        provider.check(role, "r" * 60, {})


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UserError, match=r"must be on this machine"):
        Aws("https://ec2.us-east-1.amazonaws.com", "us-east-1")


def test_the_engines_calls_make_change_and_remove_a_resource(provider: SandboxProvider) -> None:
    own = EngineProvider(provider)
    given = wrapped_all({"cidrBlock": "10.3.0.0/16", "tags": TAGS})
    checked = wait(own.check(engine.CheckRequest(URN, {}, given, b"\x01\x02\x03\x04"))).inputs
    assert checked is not None
    previewed = wait(own.create(engine.CreateRequest(URN, checked, 0, True)))
    assert previewed.resource_id is None
    made = wait(own.create(engine.CreateRequest(URN, checked, 0, False)))
    assert made.resource_id is not None
    assert made.resource_id.startswith("vpc-")
    assert plain_all(made.properties)["arn"].endswith(made.resource_id)
    same = wait(own.diff(engine.DiffRequest(URN, made.resource_id, made.properties, checked, [])))
    assert same.changes is False
    tags = {**checked, "tags": PropertyValue({"stack": PropertyValue("other")})}
    kept = wait(own.diff(engine.DiffRequest(URN, made.resource_id, made.properties, tags, [])))
    assert (kept.changes, kept.replaces, kept.diffs) == (True, [], ["tags"])
    moved = {**checked, "cidrBlock": PropertyValue("10.4.0.0/16")}
    replaced = wait(own.diff(engine.DiffRequest(URN, made.resource_id, made.properties, moved, [])))
    assert replaced.replaces == ["cidrBlock"]
    updated = wait(own.update(engine.UpdateRequest(URN, made.resource_id, made.properties, tags, 0, [], False)))
    read = wait(own.read(engine.ReadRequest(URN, made.resource_id, updated.properties, {})))
    assert plain_all(read.inputs)["tags"] == {"stack": "other"}
    wait(own.delete(engine.DeleteRequest(URN, made.resource_id, updated.properties, 0)))
    assert wait(own.read(engine.ReadRequest(URN, made.resource_id, updated.properties, {}))).resource_id is None


def test_the_engines_questions_are_answered_by_moto(local: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_SANDBOX_ENDPOINT", local.endpoint)
    own = EngineProvider()
    wait(own.configure(engine.ConfigureRequest({}, wrapped_all({"region": "eu-west-1"}), False, False)))
    assert own.provider.aws.region == "eu-west-1"
    answer = wait(own.invoke(engine.InvokeRequest("aws:index/getCallerIdentity:getCallerIdentity", {})))
    assert answer.return_value is not None
    assert plain_all(answer.return_value)["accountId"] == "123456789012"


@pytest.mark.engine
@pytest.mark.skipif(shutil.which("pulumi") is None, reason="no pulumi CLI on PATH")
def test_the_shared_stack_goes_up_and_down_through_the_engine(local: server.Server, tmp_path: Path) -> None:
    from infra.sandbox.project import engine_environment, sandbox_project

    folder = sandbox_project(ROOT, tmp_path / "project", Path(sys.prefix))
    environ = {**os.environ, **engine_environment(local.endpoint, tmp_path)}

    def pulumi(*arguments: str) -> None:
        subprocess.run(["pulumi", *arguments, "--non-interactive"], cwd=folder, env=environ, check=True, timeout=300)

    pulumi("stack", "init", "shared")
    pulumi("up", "--yes", "--stack", "shared")
    pulumi("refresh", "--yes", "--stack", "shared")
    pulumi("state", "unprotect", "--all", "--yes", "--stack", "shared")
    pulumi("destroy", "--yes", "--stack", "shared")
