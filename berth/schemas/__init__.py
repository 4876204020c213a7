"""JSON Schemas (draft 2020-12) of what commands print with `--json`: one file a command, each complete in itself.

`catalog-show.schema.json` describes `berth catalog show --json`. Objects are closed: an unknown key is a mistake. Only
the outermost object is open, because a later Berth may add sections, which a reader must pass over.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

_SUFFIX = ".schema.json"
VARIANTS = {"size training": "size --for training"}
"""Documents that a command prints under an option alone, and how the command is typed for them."""


@cache
def names() -> tuple[str, ...]:
    """The commands that have a schema, as they are typed: `catalog show`, `size` …"""
    found = (file.name for file in files(__name__).iterdir() if file.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX).replace("-", " ") for name in found))


def typed(name: str) -> str:
    """How the command that prints the document `name` is typed, without the word `berth`."""
    return VARIANTS.get(name, name)


def load(command: str) -> dict[str, Any]:
    """The schema of what `command` prints with `--json`; `UserError` where there is none."""
    from sizing.errors import unknown

    given = command.strip().lower().removeprefix("berth ")
    words = next((name for name, said in VARIANTS.items() if given == said), given).replace("-", " ")
    if words not in names():
        raise unknown("command with a schema", command, names(), "`berth schema` lists those that have one")
    text = files(__name__).joinpath(words.replace(" ", "-") + _SUFFIX).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
