"""Every `berth` command that a page shows exists as it is written, and those that need nothing but this machine run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from berth.cli import app
from infra.sandbox import server
from infra.stack_files import ROOT, render_project, render_stack
from scripts.docs_commands import Shown, all_shown, pages, shown_in

UsageError: Any = typer.BadParameter.__base__
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
ELSEWHERE = {
    "catalog refresh": "asks AWS", "deploy": "asks AWS", "doctor": "asks AWS", "feedback": "asks AWS",
    "metrics": "asks AWS", "up": "asks AWS", "down": "asks AWS", "status": "asks AWS", "extend": "asks AWS",
    "train": "asks AWS", "fetch": "asks AWS", "verify": "needs a model", "evaluate": "needs a model",
    "finetune": "needs a model", "serve": "does not end", "review": "does not end",
}  # fmt: skip
"""Commands that are parsed only, and why; their own tests run them."""
MISSING = ("--upload", "./folder", "org/name", "./my-model", "--measured", "--fetch", "--model")
"""Words of commands that are about something which a reader has and these tests have not."""


def resolved(words: tuple[str, ...]) -> tuple[Any, list[str], str]:
    """The command that `words` name, what is left of them, and its name."""
    command: Any = typer.main.get_command(app)
    rest, name = [w.strip("[]") for w in words], []
    while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        found = command.get_command(None, rest[0])
        if found is None:
            break
        name.append(rest.pop(0))
        command = found
    return command, rest, " ".join(name)


def why_not_run(shown: Shown) -> str:
    """Empty, or why a command is only parsed."""
    _, rest, name = resolved(shown.words)
    for known, why in ELSEWHERE.items():
        if f"{name} ".startswith(f"{known} "):
            return why
    if any(PLACEHOLDER.fullmatch(word) or word in MISSING or word.startswith("[") for word in (*rest, *shown.words)):
        return "is about something of the reader's"
    return ""


@pytest.mark.parametrize("shown", all_shown(), ids=lambda s: f"{s.page}: {' '.join(s.words)}"[:90])
def test_a_command_is_as_a_page_writes_it(shown: Shown) -> None:
    command, rest, name = resolved(shown.words)
    try:
        command.make_context(name or "berth", list(rest))
    except UsageError as error:
        said = error.format_message()
        assert "such option" not in said, f"{shown.page}: {shown.line}: {said}"
        # A placeholder may stand where a number is wanted; anything else is the page's mistake.
        assert any(PLACEHOLDER.search(word) for word in rest), f"{shown.page}: {shown.line}: {said}"


def test_the_pages_show_commands() -> None:
    assert len(all_shown()) > 50
    assert sum(not why_not_run(shown) for shown in all_shown()) > 25


@pytest.fixture
def world(tmp_path: Path, cache_dir: Path) -> Iterator[Path]:
    """A project with what the pages speak of: the stack `tickets`, a data set, the answers of the README's case."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "support-tickets.json", tmp_path / "docs")
    (tmp_path / "Pulumi.yaml").write_text(render_project(), encoding="utf-8")
    for path in (ROOT / "stacks").glob("Pulumi.*.yaml"):
        shutil.copy(path, tmp_path / "stacks")
    tickets = {
        "role": "inference", "owner": "tests", "budget_per_month": 100_000, "alarm_email": "tests@example.com",
        "model": "google/flan-t5-xl", "instance_type": "g4dn.2xlarge", "dtype": "fp32", "zones": ["use1-az1"],
    }  # fmt: skip
    path = tmp_path / "stacks" / "Pulumi.tickets.yaml"
    path.write_text(render_stack("us-east-1", tickets, {}), encoding="utf-8")
    rows = "".join(f'{{"input": "Ticket {n}: it broke.", "target": "Broke {n}."}}\n' for n in range(60))
    for name in ("tickets.jsonl", "corrected.jsonl"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    yield tmp_path
    server.stop(cache_dir / "sandbox")


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in pages() if p.name not in ("README.md", "guide.md")], ids=lambda p: p.name)
def test_the_commands_of_a_page_run_in_their_order(page: Path, world: Path) -> None:
    """Whole lines with their redirections, by the shell, as a reader would type them."""
    lines = {}
    for shown in shown_in(page):
        lines[shown.line] = lines.get(shown.line, "") or why_not_run(shown)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line, why in lines.items():
        if why:
            continue
        if line.startswith("berth new "):  # the fixture's stand there already
            line += " --force"  # noqa: PLW2901
        ran = subprocess.run(
            ["sh", "-c", line], cwd=world, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0, f"{page.name}: {line}\n{ran.stderr}"
