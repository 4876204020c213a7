"""Documents for reports, made by the commands themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.berth.report.report_documents import MODEL

COMMANDS = {
    "assess": ("assess", "--task", "summarization", "--examples", "5000", "--smaller-model", "not-good-enough"),
    "size": ("size", MODEL, "--task", "summarization", "--requests-per-day", "20000", "--latency", "5"),
    "training": ("size", MODEL, "--for", "training", "--data", "5000"),
    "memory": ("memory", MODEL, "--dtype", "bf16"),
}


@pytest.fixture(scope="session")
def printed() -> dict[str, str]:
    """What each command printed; they print the same every time."""
    return {}


@pytest.fixture
def documents(run_berth: Callable[..., Any], tmp_path: Path, printed: dict[str, str]) -> Callable[..., list[str]]:
    """`documents("assess", "size", …)`: the files of these as `--from` arguments; keywords are documents to write."""

    def made(*names: str, **given: Any) -> list[str]:
        arguments: list[str] = []
        for name in names:
            if name not in printed:
                ran = run_berth(*COMMANDS[name], "--json")
                assert ran.code == 0, ran.err
                printed[name] = ran.out
            given = {name: json.loads(printed[name]), **given}
        for name, document in given.items():
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(document), encoding="utf-8")
            arguments += ["--from", str(path)]
        return arguments

    return made
