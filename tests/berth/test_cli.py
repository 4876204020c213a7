"""The `berth` command itself: its list of commands, its exit codes, its one-line errors, and what it does not load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berth.cli import COMMANDS

HEAVY = {
    "boto3", "botocore", "httpx", "matplotlib", "moto", "numpy", "pulumi", "pulumi_aws", "pydantic", "rich", "torch",
    "transformers",
}  # fmt: skip
LOADED = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from berth.cli import main
main(sys.argv[1:])
"""


def modules_after(*arguments: str) -> set[str]:
    """The modules that a fresh process has loaded once `berth ARGUMENTS…` is done."""
    ran = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stderr))


def test_help_lists_the_commands_in_the_order_in_which_they_are_needed(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("--help")
    lines = [line for line in ran.out.split("Commands:")[1].splitlines() if line.startswith("  ")]
    listed = [line.split()[0] for line in lines if not line.startswith("   ")]  # what is further in goes on
    assert ran.code == 0
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)
    assert "..." not in ran.out.split("Commands:")[1], "no command's help is cut short"


def test_without_arguments_the_help_is_shown(run_berth: Callable[..., Any]) -> None:
    ran = run_berth()
    assert ran.code == 2
    assert "Commands:" in ran.out + ran.err


def test_version(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("--version")
    assert ran.code == 0
    assert ran.out.startswith("berth 0.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-command"], "no-such-command"),
        (["--no-such-option"], "--no-such-option"),
        (["assess", "--no-such-option"], "berth assess: "),
        (["assess", "surplus"], "berth assess: "),
        (["assess", "--task"], "--task"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_and_exit_code_2(
    run_berth: Callable[..., Any], arguments: list[str], says: str
) -> None:
    ran = run_berth(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert says in ran.err


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_after(*arguments) & HEAVY


def test_a_command_loads_no_other_command() -> None:
    loaded = modules_after("assess", "--task", "qa", "--json")
    assert {name for name in loaded if name.startswith("berth.commands.")} == {"berth.commands.assess"}
    assert not loaded & HEAVY


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", "assess"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    process.stderr.read(len("What should be done"))  # it is asking
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "berth: interrupted"
    assert "Traceback" not in err


def test_a_command_mistyped_is_answered_with_the_one_meant(run_berth: Callable[..., Any]) -> None:
    ran = run_berth("siez", "flan-t5-xl")
    assert ran.code == 2
    assert ran.err == "berth: unknown command 'siez'; did you mean size?; `berth --help` lists them\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "split", "rows.jsonl", "--out", "file/split.json"),
        ("bundle", "google/flan-t5-base", "--out", "file/bundle"),
        ("size", "google/flan-t5-base", "--for", "training", "--data", "100", "--write-config", "file/run"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    run_berth: Callable[..., Any], arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "target": "b"}\n' * 20, encoding="utf-8")
    ran = run_berth(*arguments)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("berth: file")
    assert "Traceback" not in ran.err


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = subprocess.run(
        [sys.executable, "-m", "berth", "assess", "--task", "qa", "--json"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (1, "")
