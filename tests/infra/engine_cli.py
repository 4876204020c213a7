"""What the tests of Pulumi's own engine share: a project on the sandbox's AWS, and the CLI in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.sandbox.project import engine_environment, sandbox_project
from infra.stack_files import record

needs_cli = pytest.mark.skipif(shutil.which("pulumi") is None, reason="no pulumi CLI on PATH")
TIMEOUT_S = 300


class EngineProject:
    """A copy of the project at `root` in a folder, its state beside it, and `pulumi` as a person would run it."""

    def __init__(self, root: Path, folder: Path, endpoint: str) -> None:
        self.folder = sandbox_project(root, folder / "project", Path(sys.prefix))
        self.environ = {**os.environ, **engine_environment(endpoint, folder)}

    def run(self, *arguments: str, code: int = 0) -> str:
        """What `pulumi ARGUMENTS` said on stdout; it must end with `code`."""
        ran = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert ran.returncode == code, f"pulumi {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def init(self, stack: str) -> None:
        self.run("stack", "init", stack)

    def set(self, stack: str, values: Mapping[str, Any]) -> None:
        """Write settings into the stack's file."""
        record(self.folder / "stacks" / f"Pulumi.{stack}.yaml", values)

    def preview(self, stack: str, *arguments: str) -> dict[str, Any]:
        """The document of `pulumi preview --json`."""
        found: dict[str, Any] = json.loads(self.run("preview", "--json", "--stack", stack, *arguments))
        return found

    def up(self, stack: str) -> None:
        self.run("up", "--yes", "--skip-preview", "--stack", stack)

    def state(self, stack: str) -> list[dict[str, Any]]:
        """The resources that the state holds, without the stack itself."""
        found = json.loads(self.run("stack", "export", "--stack", stack))
        resources = found["deployment"].get("resources") or []
        return [r for r in resources if r["type"] != "pulumi:pulumi:Stack"]


def steps(document: Mapping[str, Any]) -> dict[str, str]:
    """What a preview would do with each resource that it does not leave as it is, by name."""
    return {s["urn"].rsplit("::", 1)[-1]: s["op"] for s in document["steps"] if s["op"] not in ("same", "read")}
