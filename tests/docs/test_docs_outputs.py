"""The outputs that pages of docs/ show are what the commands print."""

from __future__ import annotations

import re

import pytest

from scripts.docs_outputs import DOCS, PAGES
from scripts.readme_outputs import output_of

SHOWN = [
    (name, line, output)
    for name in PAGES
    for line, output in re.findall(
        r"```console\n\$ (berth [^\n]*)\n(.*?)```\n", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL
    )
]


@pytest.mark.parametrize(("page", "line", "shown"), SHOWN, ids=lambda text: str(text)[:40])
def test_the_outputs_shown_are_what_the_commands_print(page: str, line: str, shown: str) -> None:
    assert shown == output_of(line), f"docs/{page} is not up to date; run `make docs`"


def test_there_are_some() -> None:
    assert {name for name, *_ in SHOWN} == set(PAGES)
