"""What the tests of the lifecycle share: a project on a local AWS that each test finds empty, without a pulumi CLI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from infra_projects import INFERENCE, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra.cloud import sandbox_aws
from infra.lifecycle.engine import (
    Changes,
    Drift,
    Removal,
    Resource,
    ResourceChange,
    StackSummary,
)
from infra.lifecycle.place import Place, open_place
from infra.lifecycle.walk_engine import WalkEngine
from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.sandbox.provider import SandboxProvider
from infra.steps import Left, Tell, silent

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/scheduler"
Run = Callable[..., Any]


class World:
    """A person's project, the cache of their sandbox, and the local AWS. `trial` is a small inference stack."""

    def __init__(self, project: Project, folder: Path, local: server.Server) -> None:
        self.project, self.folder, self.local = project, folder, local
        self.aws = sandbox_aws(local.endpoint, REGION)

    def trial(self, name: str = "trial", **values: Any) -> None:
        """Write a stack in the account's own network, of some twenty resources, that lives for two hours."""
        ec2 = self.aws.client("ec2")
        vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"][0]["SubnetId"]
        small = {**INFERENCE, "model": "google/flan-t5-small", "instance_type": "g4dn.xlarge", "zones": ["use1-az1"]}
        own = {"vpc_id": vpc, "subnet_ids": [subnet], "time_to_live": "2h", **values}
        self.project.write(name, {**small, **own})

    def machine(self, stack: str, **tags: str) -> str:
        """A machine with the project's tags, made by nobody's program; its id."""
        ec2 = self.aws.client("ec2")
        given = {"project": "berth", "stack": stack, **tags}
        found = ec2.run_instances(
            ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="g4dn.xlarge",
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in given.items()]}
            ],
        )  # fmt: skip
        return str(found["Instances"][0]["InstanceId"])

    def schedule(self, stack: str, at: datetime, node: int = 0) -> str:
        """A schedule that ends a machine of `stack`, under the name that its program gives it."""
        name = f"{stack}-expiry-at{f'-{node}' if node else ''}-0a1b2c3"
        self.aws.client("scheduler").create_schedule(
            Name=name, ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})", ScheduleExpressionTimezone="UTC",
            FlexibleTimeWindow={"Mode": "OFF"}, ActionAfterCompletion="DELETE", Description=f"Ends {stack}",
            Target={"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": ROLE, "Input": "{}"},
        )  # fmt: skip
        return name

    @property
    def place(self) -> Place:
        return open_place(self.project.root, begin=False, folder=self.folder)

    def engine(self, provider: Callable[[Aws], SandboxProvider] = SandboxProvider) -> WalkEngine:
        return WalkEngine(self.place, provider=provider)


class Standing:
    """An engine whose state is what a test says, and which removes nothing but its own entries."""

    name = "a state"

    def __init__(
        self, project: Path, resources: Mapping[str, tuple[Resource, ...]], outputs: Mapping[str, Any] | None = None
    ) -> None:
        self.project = project
        self.held = dict(resources)
        self.said: dict[str, Mapping[str, Any]] = dict(outputs or {})
        self.unremovable: set[str] = set()

    def preview(self, stack: str) -> Changes:
        return Changes(stack, tuple(ResourceChange("same", r.type, r.name) for r in self.held.get(stack, ())))

    def up(self, stack: str, tell: Tell = silent) -> Mapping[str, Any]:  # noqa: ARG002
        return self.outputs(stack)

    def destroy(self, stack: str, tell: Tell = silent) -> Removal:  # noqa: ARG002
        found = self.held.get(stack, ())
        left = tuple(r for r in found if r.id in self.unremovable)
        self.held[stack] = left
        removed = tuple(r for r in found if r not in left)
        return Removal(removed, tuple(Left(r.type, r.name, r.id, "DependencyViolation") for r in left))

    def outputs(self, stack: str) -> Mapping[str, Any]:
        return self.said.get(stack, {})

    def resources(self, stack: str) -> tuple[Resource, ...]:
        return self.held.get(stack, ())

    def stacks(self) -> tuple[StackSummary, ...]:
        return tuple(
            StackSummary(name, REGION, min(r.created for r in found), "", len(found))
            for name, found in self.held.items()
            if found
        )

    def drift(self, stack: str) -> tuple[Drift, ...]:  # noqa: ARG002
        return ()

    def refresh(self, stack: str) -> tuple[Drift, ...]:  # noqa: ARG002
        return ()

    def rewrite(self, stack: str, change: Callable[[Any], Any]) -> None:
        self.said[stack] = change(self.said.get(stack, {}))

    def explain(self) -> str:
        return ""


class AsAws:
    """The local AWS where AWS itself is meant: nothing says that it is a sandbox."""

    endpoint: str | None = None

    def __init__(self, aws: Aws) -> None:
        self._aws, self.region, self.account = aws, aws.region, aws.account

    def client(self, service: str) -> Any:
        return self._aws.client(service)


def without_cli() -> str:
    """PATH without the folders in which a `pulumi` lies."""
    kept = [p for p in os.environ["PATH"].split(os.pathsep) if not shutil.which("pulumi", path=p)]
    return os.pathsep.join(kept)


@pytest.fixture(scope="session")
def lifecycle_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """One local AWS for all tests of a process."""
    folder = tmp_path_factory.mktemp("aws")
    with server.locked(folder):
        found = server.start(folder)
    yield found
    server.stop(folder)


@pytest.fixture
def world(
    lifecycle_aws: server.Server, tmp_path_factory: pytest.TempPathFactory, project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> World:  # fmt: skip
    urlopen(Request(f"{lifecycle_aws.endpoint}/moto-api/reset", method="POST")).close()  # noqa: S310
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BERTH_CACHE_DIR", str(cache))
    monkeypatch.setenv("PATH", without_cli())
    folder = cache / "sandbox"
    folder.mkdir()
    told = {name: getattr(lifecycle_aws, name) for name in ("pid", "port", "run", "since")}
    (folder / "server.json").write_text(json.dumps(told), encoding="utf-8")
    return World(project, folder, lifecycle_aws)


def document(command: str, ran: Any, code: int = 0) -> dict[str, Any]:
    """What a command printed with `--json`, held against its schema, with nothing on stderr."""
    assert (ran.code, ran.err) == (code, "")
    found: dict[str, Any] = json.loads(ran.out)
    Draft202012Validator(load(command)).validate(found)
    return found
