"""A tiny model of every architecture, built once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny("t5")` is the folder of a tiny model of that kind (`model_runtime.tiny.KINDS`); do not write into it."""
    from model_runtime.tiny import build

    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = build(kind, tmp_path_factory.mktemp("models") / kind)
        return made[kind]

    return folder
