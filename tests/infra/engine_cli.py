"""What the tests of Pulumi's own engine share: a project on the sandbox's AWS, and the CLI in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from infra_projects import committed

from infra.sandbox.aws import Aws
from infra.sandbox.listing import tagged
from infra.sandbox.project import engine_environment, sandbox_project
from infra.sandbox.server import Server
from infra.stack_files import ROOT, record

needs_cli = pytest.mark.skipif(shutil.which("pulumi") is None, reason="no pulumi CLI on PATH")
TIMEOUT_S = 300
_DONE = re.compile(
    r"^ \S+ +aws:\S+ (?P<name>\S+) (?P<verb>created|updated|deleted|replaced)\b(?! original| replacement)", re.MULTILINE
)


class EngineProject:
    """A copy of the project at `root` in a folder, its state beside it, and `pulumi` as a person would run it."""

    def __init__(self, root: Path, folder: Path, endpoint: str) -> None:
        self.folder = sandbox_project(root, folder / "project", Path(sys.prefix))
        self.sandbox = engine_environment(endpoint, folder)
        self.environ = {**os.environ, **self.sandbox}

    def run(self, *arguments: str, fails: bool = False) -> str:
        """What `pulumi ARGUMENTS` said on stdout; it must end well, or with `fails` not so."""
        ran = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert (ran.returncode != 0) is fails, (
            f"pulumi {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        )
        return ran.stdout + ran.stderr if fails else ran.stdout

    def init(self, stack: str) -> None:
        self.run("stack", "init", stack)

    def set(self, stack: str, values: Mapping[str, Any]) -> None:
        """Write settings into the stack's file."""
        record(self.folder / "stacks" / f"Pulumi.{stack}.yaml", values)

    def preview(self, stack: str, *arguments: str) -> dict[str, Any]:
        """The document of `pulumi preview --json`."""
        found: dict[str, Any] = json.loads(self.run("preview", "--json", "--stack", stack, *arguments))
        return found

    def up(self, stack: str) -> dict[str, str]:
        """What an `up` did with each resource that it did not leave as it was, by name."""
        said = self.run("up", "--yes", "--skip-preview", "--stack", stack)
        return {found["name"]: found["verb"] for found in _DONE.finditer(said)}

    def unchanged(self, stack: str) -> None:
        """Neither AWS nor the program differs from the state."""
        self.run("preview", "--refresh", "--expect-no-changes", "--stack", stack)

    def destroy(self, stack: str) -> None:
        self.run("destroy", "--yes", "--skip-preview", "--stack", stack)

    def state(self, stack: str) -> list[dict[str, Any]]:
        """The resources that the state holds, without the stack itself."""
        found = json.loads(self.run("stack", "export", "--stack", stack))
        resources = found["deployment"].get("resources") or []
        return [r for r in resources if r["type"] != "pulumi:pulumi:Stack"]


def steps(document: Mapping[str, Any]) -> dict[str, str]:
    """What a preview would do with each resource that it does not leave as it is, by name."""
    return {s["urn"].rsplit("::", 1)[-1]: s["op"] for s in document["steps"] if s["op"] not in ("same", "read")}


class World:
    """A local AWS of its own with the shared stack on it."""

    def __init__(self, folder: Path, local: Server) -> None:
        self.aws, self.project = Aws(local.endpoint, "us-east-1"), EngineProject(ROOT, folder, local.endpoint)
        self.project.init("shared")
        self.project.up("shared")

    def left(self, stack: str) -> list[str]:
        return [found.id for found in tagged(self.aws) if found.stack == stack]

    def made_as_planned(self, stack: str) -> None:
        """The state holds what the offline plan said, by name, type, component and the inputs that are given."""
        planned = {r.urn: (r.type, set(r.inputs)) for r in committed(stack).resources if r.custom}
        state = [r for r in self.project.state(stack) if r["type"].startswith("aws:")]
        held = {r["urn"]: (r["type"], set(r["inputs"])) for r in state}
        planned = {urn: told for urn, told in planned.items() if told[0].startswith("aws:")}
        assert held.keys() == planned.keys()
        for urn, (type_, inputs) in planned.items():
            # The provider adds the name that AWS is to know a resource by.
            assert held[urn][0] == type_
            assert held[urn][1] - inputs <= {"name", "bucket", "dashboardName", "__defaults"}
