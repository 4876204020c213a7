"""Fixtures that the tests of infra share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from infra_projects import Project, committed
from lifecycle_sandbox import lifecycle_aws, world

from infra.plan import Plan


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def plan_of() -> Callable[[str], Plan]:
    return committed


__all__ = ["lifecycle_aws", "plan_of", "project", "world"]
