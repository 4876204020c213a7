"""`berth doctor` against moto; what moto has not (quotas, an image of another account) by recorded answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from botocore.stub import Stubber
from infra_projects import ENDPOINT, INFERENCE, SHARED, TRAINING, Project
from moto import mock_aws

from infra.doctor.checks import examine
from infra.doctor.finding import Finding, Surroundings
from infra.doctor.quotas import quota_of, quotas
from infra.stack_files import read_stack
from sizing.hardware.load import load_hardware
from sizing.models.resolve import resolve_model

REGION = "us-east-1"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PLUGINS = json.dumps([{"name": "aws", "kind": "resource", "version": "7.51.1"}])


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def quota_client(value: float | None) -> Any:
    """Service Quotas with the answer that AWS gives for one quota, or its refusal."""
    client = boto3.client("service-quotas", region_name=REGION)
    stub = Stubber(client)
    if value is None:
        stub.add_client_error("get_service_quota", "AccessDeniedException", "not authorized")
    else:
        stub.add_response("get_service_quota", {"Quota": {"Value": value}})
    stub.activate()
    return client


def image_client(present: bool) -> Any:
    client = boto3.client("ecr", region_name=REGION)
    stub = Stubber(client)
    images = [{"imageId": {"imageTag": "x"}, "imageManifest": "{}"}] if present else []
    stub.add_response("batch_get_image", {"images": images, "failures": []})
    stub.activate()
    return client


def around(
    *,
    quota: float | None = 64.0,
    image: bool = True,
    cli: str | None = "v3.272.0",
    environment: dict[str, str] | None = None,
) -> Surroundings:
    made: dict[str, Any] = {"service-quotas": quota_client(quota), "ecr": image_client(image)}

    def client(service: str) -> Any:
        return made.get(service) or boto3.client(service, region_name=REGION)

    def run(command: list[str]) -> str | None:
        return None if cli is None else cli if command[1] == "version" else PLUGINS

    return Surroundings(client, run, {"PULUMI_CONFIG_PASSPHRASE": ""} if environment is None else environment)


@pytest.fixture
def found(project: Project, aws: None) -> Callable[..., dict[str, Finding]]:
    """Findings of a stack by check."""

    def look(values: dict[str, Any], **surroundings: Any) -> dict[str, Finding]:
        project.write("trial", values)
        file = read_stack("trial", project.root)
        model = resolve_model(values["model"]) if "model" in values else None
        return {f.check: f for f in examine(file, around(**surroundings), load_hardware(), model)}

    return look


def upload(*keys: str) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    bucket = "berth-123456789012-us-east-1-artifacts"
    s3.create_bucket(Bucket=bucket)
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")


def test_all_is_well(found: Callable[..., dict[str, Finding]]) -> None:
    upload("bundles/trial/manifest.json", "models/google-flan-t5-xl/manifest.json")
    findings = found(INFERENCE)
    assert {f.status for f in findings.values()} == {"ok"}, findings
    assert "account 123456789012" in findings["credentials"].said
    assert "use1-az1" in findings["offering"].said
    assert list(findings) == [
        "pulumi CLI", "aws plugin", "passphrase", "credentials", "region", "recorded", "offering", "quota", "image",
        "bundle", "model",
    ]  # fmt: skip


def test_what_hosts_fetch_is_missed_before_they_do(found: Callable[..., dict[str, Finding]]) -> None:
    findings = found(INFERENCE)
    assert findings["bundle"].status == findings["model"].status == "failed"
    assert findings["bundle"].fix.startswith("berth bundle trial --upload")


def test_another_manifest_than_the_recorded_one_is_told_before_a_host_refuses_it(
    found: Callable[..., dict[str, Finding]],
) -> None:
    from hashlib import sha256

    upload("bundles/trial/manifest.json", "models/google-flan-t5-xl/manifest.json")
    right, wrong = sha256(b"{}").hexdigest(), "0" * 64
    findings = found({**INFERENCE, "bundle_manifest_sha256": right, "artifact_manifest_sha256": wrong})
    assert findings["bundle"].status == "ok"
    assert findings["model"].status == "failed" and "is not the one that the stack file names" in findings["model"].said


def test_a_training_stack_needs_its_data_set_and_a_recorded_plan(found: Callable[..., dict[str, Finding]]) -> None:
    upload("bundles/trial/manifest.json", "models/google-flan-t5-xl/manifest.json")
    findings = found(TRAINING)
    assert findings["data set"].status == "failed" and "datasets/tickets" in findings["data set"].said
    assert findings["recorded"].said == "left open: micro_batch_size, expires_at"
    assert findings["recorded"].fix.startswith("berth settings trial --record")


def test_a_quota_that_is_too_small_names_the_request(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found({**INFERENCE, "replicas": 2, "max_replicas": 3}, quota=8.0)["quota"]
    assert finding.status == "failed"
    assert "24 vCPUs needed, 8 allowed, 0 in use" in finding.said
    assert "--quota-code L-DB2E81BA --desired-value 24 --region us-east-1" in finding.fix


def test_the_quota_counts_what_runs_already(found: Callable[..., dict[str, Finding]]) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=2, MaxCount=2)
    ec2.run_instances(ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1)
    said = found(INFERENCE, quota=8.0)["quota"].said
    running = int(said.split(", ")[-1].split()[0])
    assert running == 8, said


def test_what_may_not_be_asked_says_what_to_allow(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(INFERENCE, quota=None)["quota"]
    assert finding.said == "AccessDeniedException: not authorized"
    assert "servicequotas:GetServiceQuota" in finding.fix


def test_a_zone_without_the_type_is_named(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found({**INFERENCE, "zones": ["use1-az1", "use1-az3"]})["offering"]
    assert finding.status == "failed" and "use1-az3" in finding.said and "use1-az1" in finding.fix


def test_an_image_that_is_not_there(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(INFERENCE, image=False)["image"]
    assert finding.status == "failed" and "djl-inference" in finding.said


def test_the_training_image_is_looked_for_in_the_shared_repository(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(TRAINING, quota=96.0)["image"]
    assert finding.said == "123456789012.dkr.ecr.us-east-1.amazonaws.com/berth/shared:training"


def test_an_image_outside_ecr_is_not_judged(found: Callable[..., dict[str, Finding]]) -> None:
    assert found({**INFERENCE, "image": "docker.io/x/y:1"})["image"].status == "unknown"


def test_an_endpoint_s_quota_is_sagemaker_s(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(ENDPOINT)["quota"]
    assert finding.status == "unknown" and "ml.g4dn.2xlarge" in finding.fix


def test_an_unrecorded_type_is_to_be_recorded(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found({**INFERENCE, "instance_type": "auto"})["instance type"]
    assert finding.fix == "berth settings trial --record"


def test_the_shared_stack_needs_no_machine(found: Callable[..., dict[str, Finding]]) -> None:
    assert list(found(SHARED)) == ["pulumi CLI", "aws plugin", "passphrase", "credentials", "region"]


@pytest.mark.parametrize(
    ("cli", "status"), [(None, "failed"), ("v3.10.0", "failed"), ("dev", "unknown"), ("v4.0.1", "ok")]
)
def test_the_cli_and_its_version(found: Callable[..., dict[str, Finding]], cli: str | None, status: str) -> None:
    assert found(SHARED, cli=cli)["pulumi CLI"].status == status


def test_a_missing_passphrase_is_said(found: Callable[..., dict[str, Finding]]) -> None:
    finding = found(SHARED, environment={})["passphrase"]
    assert finding.status == "unknown" and "PULUMI_CONFIG_PASSPHRASE" in finding.fix


def test_without_credentials_the_rest_is_left_out(project: Project) -> None:
    class Nobody:
        def get_caller_identity(self) -> Any:
            raise NoCredentialsError

    project.write("trial", INFERENCE)
    surroundings = Surroundings(lambda _: Nobody(), lambda _: None, {})
    findings = list(examine(read_stack("trial", project.root), surroundings, load_hardware(), None))
    assert findings[-1].check == "credentials" and findings[-1].status == "failed"
    assert "aws sso login" in findings[-1].fix


@pytest.mark.parametrize(
    ("type_", "market", "code"),
    [
        ("g4dn.2xlarge", "on-demand", "L-DB2E81BA"),
        ("g6e.48xlarge", "spot", "L-3819A6DF"),
        ("p4d.24xlarge", "on-demand", "L-417A185B"),
        ("p5.48xlarge", "on-demand", "L-417A185B"),
        ("p4d.24xlarge", "spot", "L-7212CCBC"),
        ("p5en.48xlarge", "spot", "L-C4BD4855"),
        ("inf2.xlarge", "on-demand", "L-1945791B"),
        ("trn1.32xlarge", "spot", "L-6B0D517C"),
        ("c7i.large", "on-demand", "L-1216C47A"),
    ],
)
def test_each_family_has_its_quota(type_: str, market: str, code: str) -> None:
    found = quota_of(type_, market)
    assert found is not None and found.code == code
    assert sum(q.counts(type_) for q in quotas() if q.market == market) == 1


def test_a_family_that_no_quota_names_is_unknown() -> None:
    assert quota_of("p6-b200.48xlarge", "spot") is None
    assert quota_of("x2gd.medium", "on-demand") is None


def test_the_command_prints_findings_and_ends_with_3(
    project: Project, run_berth: Callable[..., Any], aws: None
) -> None:
    project.write("trial", INFERENCE)
    ran = run_berth("doctor", "trial", "--json")
    assert ran.code == 3
    findings = {f["check"]: f for f in json.loads(ran.out)["findings"]}
    assert findings["credentials"]["status"] == "ok" and findings["bundle"]["status"] == "failed"
    shown = run_berth("doctor", "trial")
    assert shown.code == 3 and "checks fail" in shown.out


def test_a_stack_that_is_not_there(project: Project, run_berth: Callable[..., Any]) -> None:
    ran = run_berth("doctor", "nowhere")
    assert ran.code == 2 and "unknown stack 'nowhere'" in ran.err
    assert not Path("stacks/Pulumi.nowhere.yaml").exists()
