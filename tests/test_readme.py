"""What the README shows is what the commands print, and `make demo` runs the same commands."""

from __future__ import annotations

import re

import pytest

from scripts.demo import steps
from scripts.readme_outputs import PAGE, output_of

SHOWN = dict(re.findall(r"```console\n\$ (berth [^\n]*)\n(.*?)```\n", PAGE.read_text(encoding="utf-8"), re.DOTALL))


def test_the_readme_shows_the_demo() -> None:
    shown = [line.split(" | ")[0] for line in SHOWN]
    assert shown == [step.line for step in steps(8080) if step.line in shown]


@pytest.mark.parametrize("line", SHOWN)
def test_the_outputs_shown_are_what_the_commands_print(line: str) -> None:
    assert SHOWN[line] == output_of(line), "the README is not up to date; run `make docs`"
