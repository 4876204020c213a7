"""What the tests of the lifecycle share: a project on a local AWS that each test finds empty, without a pulumi CLI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from infra_projects import INFERENCE, Project
from jsonschema import Draft202012Validator

from berth.schemas import load
from infra.lifecycle.place import Place, open_place
from infra.lifecycle.walk_engine import WalkEngine
from infra.sandbox import server
from infra.sandbox.aws import Aws
from infra.sandbox.provider import SandboxProvider

REGION = "us-east-1"
Run = Callable[..., Any]


class World:
    """A person's project, the cache of their sandbox, and the local AWS. `trial` is a small inference stack."""

    def __init__(self, project: Project, folder: Path, local: server.Server) -> None:
        self.project, self.folder, self.local = project, folder, local
        self.aws = Aws(local.endpoint, REGION)

    def trial(self, name: str = "trial", **values: Any) -> None:
        """Write a stack in the account's own network, of some twenty resources, that lives for two hours."""
        ec2 = self.aws.client("ec2")
        vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"][0]["SubnetId"]
        small = {**INFERENCE, "model": "google/flan-t5-small", "instance_type": "g4dn.xlarge", "zones": ["use1-az1"]}
        own = {"vpc_id": vpc, "subnet_ids": [subnet], "time_to_live": "2h", **values}
        self.project.write(name, {**small, **own})

    @property
    def place(self) -> Place:
        return open_place(self.project.root, begin=False, folder=self.folder)

    def engine(self, provider: Callable[[Aws], SandboxProvider] = SandboxProvider) -> WalkEngine:
        return WalkEngine(self.place, provider=provider)


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
