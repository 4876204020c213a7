"""Writes docs/json.md, what every command prints with `--json`, from the schemas in berth/schemas/.

Run by `make docs`; a test fails when the page and the schemas disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from berth.report.files import write_text
from berth.schemas import load, names, typed

PAGE = Path(__file__).resolve().parent.parent / "docs" / "json.md"
_HEAD = """\
# JSON

What commands print with `--json`: one document on stdout and nothing else. `berth schema COMMAND` prints the JSON
Schema (draft 2020-12) of a command's document, complete in itself; this page says the same in short. Written by
`make docs` from `berth/schemas/`.

- Units stand in the names or beside them: `_bytes` are bytes, `_gib` GiB (2^30 bytes), `_gb` GB (10^9 bytes), `_s`
  seconds, `usd_` US dollars.
- What is not known or has no price is `null`, never 0. A key is always there unless the page says otherwise.
- Only the outermost object may gain keys in a later version; pass over those that you do not know. The number at the
  end of a schema's `$id` rises when a key goes or changes its meaning.
- With exit code 2 there is one line on stderr and nothing on stdout, but for `berth size`, whose document says why
  nothing fits.
"""


def kind(part: dict[str, Any]) -> str:
    """The type of a value in a few words: `integer`, `string or null`, `one of a, b`, `place`."""
    if "$ref" in part:
        return str(part["$ref"]).rsplit("/", 1)[-1].replace("_", " ")
    if "anyOf" in part:
        return " or ".join(sorted((kind(option) for option in part["anyOf"]), key=lambda name: name == "null"))
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return "one of " + ", ".join(f"`{value}`" for value in part["enum"])
    stated = part.get("type", "any value")
    types: list[str] = stated if isinstance(stated, list) else [stated]
    if types == ["array"]:
        return f"list of {kind(part['items'])}"
    if types == ["object"] and isinstance(part.get("additionalProperties"), dict) and "properties" not in part:
        return f"{kind(part['additionalProperties'])} by name"
    return " or ".join(types)


def rows(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, type and description of every property of an object, and of objects that stand inside it unnamed."""
    needed = schema.get("required", [])
    for name, part in schema.get("properties", {}).items():
        optional = "" if name in needed else " (not always there)"
        yield f"{path}{name}", kind(part) + optional, part.get("description", "")
        if "properties" in part:
            yield from rows(part, f"{path}{name}.")


def drawn(schema: dict[str, Any]) -> str:
    lines = ["| key | type | what |", "|---|---|---|"]
    lines += [f"| `{key}` | {type_} | {what.replace('|', '∣')} |" for key, type_, what in rows(schema)]
    return "\n".join(lines)


def section(command: str, schema: dict[str, Any], shown: dict[str, tuple[Any, str]]) -> str:
    """A command's part of the page. `shown`: definitions that an earlier command's part has drawn already."""
    parts = [f"## berth {typed(command)}", schema["description"]]
    if schema.get("type") == "array":
        parts.append(f"A list; each item is a {kind(schema['items'])}.")
    elif "properties" in schema:
        parts.append(drawn(schema))
    for name, part in schema.get("$defs", {}).items():
        if "properties" not in part:
            continue
        heading = part.get("title") or name.replace("_", " ")
        if name in shown and shown[name][0] == part:
            parts.append(f"### {heading}\n\nAs of `berth {typed(shown[name][1])}`, above.")
            continue
        shown[name] = part, command
        parts.append(f"### {heading}\n\n{part['description']}\n\n{drawn(part)}")
    return "\n\n".join(parts)


def render() -> str:
    """The page as text."""
    shown: dict[str, tuple[Any, str]] = {}
    return "\n".join([_HEAD, *(section(name, load(name), shown) + "\n" for name in names())])


def main() -> None:
    write_text(PAGE, render())


if __name__ == "__main__":
    main()
