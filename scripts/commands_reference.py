"""Writes docs/commands.md, the reference of every command, from the commands' own help.

Run by `make docs`; a test fails when the page and the commands disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from berth.cli import app
from berth.report.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
WIDTH = 100
_HEAD = """\
# Commands

What `berth COMMAND --help` says, all in one place. Written by `make docs`; edit the commands, not this page.

Exit codes: 0 done; 1 the reader of the output went away; 2 a mistake in what was asked, told in one line on stderr;
130 interrupted.
"""


def walk(command: Any, path: tuple[str, ...] = ("berth",), parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Every command under `command`, itself first: its full name, the command, and a context to ask it for help."""
    context = command.make_context(
        path[-1], [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield " ".join(path), command, context
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name), context)


def render() -> str:
    """The page as text."""
    parts = [_HEAD]
    for name, command, context in walk(typer.main.get_command(app)):
        help_text = "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
        parts.append(f"## {name}\n\n```text\n{help_text}\n```\n")
    return "\n".join(parts)


def main() -> None:
    write_text(PAGE, render())


if __name__ == "__main__":
    main()
