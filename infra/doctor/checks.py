"""The checks of `berth doctor`. None of them changes anything."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator

from botocore.exceptions import BotoCoreError, ClientError

from infra.doctor.finding import Finding, Surroundings
from infra.doctor.quotas import quota_of
from infra.errors import one_line, refusal
from infra.images import TRAINING_TAG, ecr_repository_arn, image_of
from infra.instances import RUNNING, Instance, described
from infra.places import artifact_prefix, bucket_name, bundle_prefix
from infra.recommend import unrecorded
from infra.settings import PROJECT, EndpointSettings, MachineSettings, ServiceSettings, TrainingSettings
from infra.stack_files import StackFile
from model_runtime.manifest import NAME as MANIFEST
from sizing.hardware.load import Hardware
from sizing.hardware.types import InstanceType
from sizing.models.facts import ModelFacts

LEAST_PULUMI = (3, 200)
"""Major and minor version from which the CLI has the `toolchain` option and config of `Pulumi.yaml` as written."""
PLUGIN = "7.51.1"
PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")


def pulumi_cli(around: Surroundings) -> Finding:
    """The CLI that an `up` runs."""
    said = around.run(["pulumi", "version"])
    install = "install it: https://www.pulumi.com/docs/install/ (`berth preview` needs none)"
    if said is None:
        return Finding("pulumi CLI", "failed", "not on PATH", install)
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    if version is None:
        return Finding("pulumi CLI", "unknown", f"its version reads '{said.strip()[:40]}'", install)
    if (int(version[1]), int(version[2])) < LEAST_PULUMI:
        least = ".".join(map(str, LEAST_PULUMI))
        return Finding("pulumi CLI", "failed", f"{version[0]} is too old", f"version {least} or later: {install}")
    return Finding("pulumi CLI", "ok", version[0])


def aws_plugin(around: Surroundings) -> Finding:
    """The provider plugin; the engine fetches it by itself where it may reach the internet."""
    said = around.run(["pulumi", "plugin", "ls", "--json"])
    fix = f"pulumi plugin install resource aws {PLUGIN}"
    if said is None:
        return Finding("aws plugin", "unknown", "the CLI does not list its plugins", fix)
    try:
        plugins = json.loads(said)
    except json.JSONDecodeError:
        return Finding("aws plugin", "unknown", "the CLI's list of plugins cannot be read", fix)
    versions = sorted(str(p.get("version")) for p in plugins if p.get("name") == "aws" and p.get("kind") == "resource")
    if PLUGIN in versions:
        return Finding("aws plugin", "ok", PLUGIN)
    others = f"only {', '.join(versions)}" if versions else "not installed"
    return Finding("aws plugin", "unknown", f"{others}; the engine fetches {PLUGIN} at the first run", fix)


def passphrase(around: Surroundings) -> Finding:
    """State in files is encrypted with a passphrase, which the engine asks for where none is set."""
    if any(name in around.environment for name in PASSPHRASE):
        return Finding("passphrase", "ok", "set")
    return Finding(
        "passphrase",
        "unknown",
        f"{PASSPHRASE[0]} is not set; the engine will ask, or use your Pulumi account",
        f"export {PASSPHRASE[0]}=…",
    )


def credentials(around: Surroundings) -> tuple[Finding, str]:
    """Who calls AWS; the account number, empty where nobody may."""
    try:
        identity = around.client("sts").get_caller_identity()
    except (ClientError, BotoCoreError) as error:
        fix = "aws sso login, or set AWS_PROFILE or AWS_ACCESS_KEY_ID; then `aws sts get-caller-identity` must answer"
        return Finding("credentials", "failed", _short(error), fix), ""
    return Finding("credentials", "ok", f"{identity['Arn']} in account {identity['Account']}"), str(identity["Account"])


def region(around: Surroundings, name: str) -> Finding:
    """Whether the account may use the region."""
    try:
        found = around.client("ec2").describe_regions(RegionNames=[name], AllRegions=True)["Regions"]
    except (ClientError, BotoCoreError) as error:
        return _failed("region", error, f"allow ec2:DescribeRegions, or check that {name} is a region")
    if found and found[0].get("OptInStatus") == "not-opted-in":
        fix = f"aws account enable-region --region-name {name}"
        return Finding("region", "failed", f"{name} is not enabled in this account", fix)
    return Finding("region", "ok", name)


def offering(around: Surroundings, file: StackFile, instance: InstanceType) -> Finding:
    """Whether the zones of the stack offer the type."""
    settings = file.settings
    if isinstance(settings, EndpointSettings):
        return Finding("offering", "unknown", "SageMaker does not say in which zones it offers a type", "")
    check, name = "offering", instance.name
    try:
        found = around.client("ec2").describe_instance_type_offerings(
            LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": [name]}]
        )["InstanceTypeOfferings"]
    except (ClientError, BotoCoreError) as error:
        return _failed(check, error, "allow ec2:DescribeInstanceTypeOfferings")
    zones = sorted(str(o["Location"]) for o in found)
    if not zones:
        return Finding(
            check, "failed", f"{name} is offered in no zone of {file.region}", "another region or type: `berth size`"
        )
    wanted = settings.zones if isinstance(settings, MachineSettings) else []
    missing = [z for z in wanted if z not in zones]
    if missing:
        fix = f"set zones to some of {', '.join(zones)}"
        return Finding(check, "failed", f"{name} is not offered in {', '.join(missing)}", fix)
    return Finding(check, "ok", f"{name} in {', '.join(wanted or zones)}; offered does not mean in stock")


def quota(around: Surroundings, file: StackFile, instance: InstanceType, hardware: Hardware) -> Finding:
    """Whether the vCPUs of the plan fit into the quota of the family, beside what runs already."""
    settings, check = file.settings, "quota"
    if isinstance(settings, EndpointSettings):
        fix = f"Service Quotas, Amazon SageMaker: 'ml.{instance.name} for endpoint usage'"
        return Finding(check, "unknown", "SageMaker has a quota for each type", fix)
    machines = settings.nodes if isinstance(settings, TrainingSettings) else 1
    if isinstance(settings, ServiceSettings):
        machines = settings.most_replicas
    market = "spot" if isinstance(settings, MachineSettings) and settings.purchase == "spot" else "on-demand"
    if isinstance(settings, MachineSettings) and settings.purchase == "capacity-block":
        return Finding(check, "ok", "Capacity Blocks use no quota of instances")
    found, needed = quota_of(instance.name, market), machines * instance.vcpus
    if found is None:
        return Finding(check, "unknown", f"no quota of {instance.name} ({market}) is known", "see Service Quotas, EC2")
    ask = (
        "aws service-quotas request-service-quota-increase --service-code ec2 "
        f"--quota-code {found.code} --desired-value {{}} --region {file.region}"
    )
    try:
        value = float(
            around.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=found.code)["Quota"]["Value"]
        )
        used = _running_vcpus(around, found.counts, market, hardware)
    except (ClientError, BotoCoreError) as error:
        return _failed(check, error, "allow servicequotas:GetServiceQuota and ec2:DescribeInstances")
    said = f"{found.name}: {needed} vCPUs needed, {value:g} allowed, {used} in use"
    if needed + used > value:
        return Finding(check, "failed", said, ask.format(needed + used))
    return Finding(check, "ok", said)


def _vcpus(machine: Instance, hardware: Hardware) -> int:
    """vCPUs of a running instance: its type's, or what it says of its CPU where the catalogue lacks the type."""
    known = hardware.instances.get(machine["InstanceType"])
    if known is not None:
        return known.vcpus
    options = machine.get("CpuOptions", {})
    return int(options.get("CoreCount", 0)) * int(options.get("ThreadsPerCore", 1))


def _running_vcpus(around: Surroundings, counts: Callable[[str], bool], market: str, hardware: Hardware) -> int:
    """vCPUs of the running instances that use the quota."""
    used = 0
    for machine in described(around.client("ec2"), {"instance-state-name": RUNNING}):
        spot = machine.get("InstanceLifecycle") == "spot"
        if counts(machine["InstanceType"]) and spot == (market == "spot"):
            used += _vcpus(machine, hardware)
    return used


def image(around: Surroundings, file: StackFile, model: ModelFacts, account: str) -> Finding:
    """Whether the container image can be pulled with these credentials."""
    settings, check = file.settings, "image"
    if not isinstance(settings, MachineSettings):
        return Finding(check, "ok", "none needed")
    uri = image_of(settings, model, file.region)
    if not uri:
        uri = f"{account}.dkr.ecr.{file.region}.amazonaws.com/{PROJECT}/{settings.shared_name}:{TRAINING_TAG}"
    arn = ecr_repository_arn(uri)
    if not arn:
        return Finding(check, "unknown", f"{uri} is not in ECR; whether it can be pulled is not known", "")
    owner, repository = arn.split(":")[4], arn.split(":repository/")[1]
    reference = uri.split("/", 1)[1].removeprefix(repository)
    which = {"imageDigest": reference[1:]} if reference.startswith("@") else {"imageTag": reference[1:] or "latest"}
    try:
        answer = around.client("ecr").batch_get_image(
            registryId=owner, repositoryName=repository, imageIds=[which],
            acceptedMediaTypes=["application/vnd.docker.distribution.manifest.v2+json"],
        )  # fmt: skip
    except (ClientError, BotoCoreError) as error:
        fix = f"push it there, or set image; allow ecr:BatchGetImage on {arn}"
        return _failed(check, error, fix)
    if not answer.get("images"):
        return Finding(check, "failed", f"{uri} does not exist", "push it there, or set image to one that does")
    return Finding(check, "ok", uri)


def recorded(file: StackFile) -> Finding:
    """Whether an `up` by Pulumi's own CLI would stop for what the file leaves open."""
    settings = file.settings
    missing = unrecorded(settings) if isinstance(settings, MachineSettings) else []
    if not missing:
        return Finding("recorded", "ok", "nothing is left to be chosen")
    fix = f"berth settings {file.name} --record; `berth up` does it by itself"
    return Finding("recorded", "unknown", f"left open: {', '.join(missing)}", fix)


def artifacts(around: Surroundings, file: StackFile, account: str) -> Iterator[Finding]:
    """Whether what the hosts fetch at their start is in the artifact bucket, and is what the stack file names."""
    settings = file.settings
    if not isinstance(settings, MachineSettings):
        return
    bucket = bucket_name("artifacts", account, file.region)
    bundle, model = bundle_prefix(settings, file.name), artifact_prefix(settings)
    make = f"berth bundle {file.name} --upload"
    wanted = {
        "bundle": (bundle, settings.bundle_manifest_sha256, make),
        "model": (
            model,
            settings.artifact_manifest_sha256,
            f"{make} --model-folder DIR, with the model's files in DIR",
        ),
    }
    if isinstance(settings, TrainingSettings):
        wanted["data set"] = (settings.dataset, "", f"berth train {file.name} brings one, or upload it with a manifest")
    for check, (prefix, named, fix) in wanted.items():
        where = f"s3://{bucket}/{prefix}"
        try:
            found = around.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/{MANIFEST}")["Body"].read()
        except (ClientError, BotoCoreError) as error:
            yield Finding(check, "failed", f"{where}/{MANIFEST}: {_short(error)}", fix)
            continue
        if named and hashlib.sha256(found).hexdigest() != named:
            said = f"the manifest of {where} is not the one that the stack file names; a host refuses to start with it"
            yield Finding(check, "failed", said, fix)
        else:
            yield Finding(check, "ok", where)


def _failed(check: str, error: Exception, fix: str) -> Finding:
    return Finding(check, "failed", _short(error), fix)


def _short(error: Exception) -> str:
    return refusal(error) if isinstance(error, ClientError) else one_line(error)


def examine(file: StackFile, around: Surroundings, hardware: Hardware, model: ModelFacts | None) -> Iterator[Finding]:
    """All checks of a stack, those without AWS first; without credentials the rest is left out."""
    yield pulumi_cli(around)
    yield aws_plugin(around)
    yield passphrase(around)
    found, account = credentials(around)
    yield found
    if not account:
        return
    yield region(around, file.region)
    settings = file.settings
    if not isinstance(settings, MachineSettings) or model is None:
        return
    instance = hardware.instances.get(settings.instance_type)
    if instance is None:
        fix = f"berth settings {file.name} --record"
        yield Finding("instance type", "failed", f"{settings.instance_type} is not a type yet", fix)
        return
    yield recorded(file)
    yield offering(around, file, instance)
    yield quota(around, file, instance, hardware)
    yield image(around, file, model, account)
    yield from artifacts(around, file, account)
