"""The keys of stack files as rows and as docs/settings.md, from the settings' own models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from infra.bill.lines import USAGE_KEYS
from infra.settings import MODELS, PROJECT, Keys
from infra.stack_files import REGION_KEY

_KINDS = {int: "integer", float: "number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key. `choices` where only certain words are allowed."""

    key: str
    type: str
    default: Any
    required: bool
    choices: tuple[str, ...]
    description: str
    roles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "key": f"{PROJECT}:{self.key}",
            "type": self.type,
            "default": self.default,
            "required": self.required,
            "choices": list(self.choices) or None,
            "description": self.description,
            "roles": list(self.roles),
        }


def rows() -> list[KeyRow]:
    """Every key, in the order of the models."""
    found = []
    for key, (field, roles) in Keys.all().items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        kind = _KINDS.get(field.annotation, "list" if field.annotation == list[str] else "text")
        required = field.default is PydanticUndefined
        found.append(
            KeyRow(
                key, kind, None if required else field.default, required, tuple(map(str, choices)),
                str(field.description), tuple(roles),
            )
        )  # fmt: skip
    return found


def page() -> str:
    """docs/settings.md as a whole; a test keeps the committed page equal to it."""
    lines = [
        "# Settings of a stack",
        "",
        "<!-- Written by scripts/settings_reference.py from infra/settings.py. -->",
        "",
        "A stack is `stacks/Pulumi.NAME.yaml`. `berth new` writes one; `berth settings` prints this list; every key",
        "that is unknown or contradicts another is refused by name. Keys stand under `config:` as",
        f"`{PROJECT}:KEY`, and the region as `{REGION_KEY}`.",
        "",
    ]
    for title, wanted in (
        ("Every stack", set(MODELS)),
        *((f"Only {role}", {role}) for role in MODELS),
        ("Stacks with machines", {"inference", "endpoint", "training"}),
        ("Services", {"inference", "endpoint"}),
    ):
        table = [r for r in rows() if set(r.roles) == wanted]
        if not table:
            continue
        lines += [f"## {title}", "", "| key | type | default | what it is |", "|---|---|---|---|"]
        for row in table:
            default = "**needed**" if row.required else f"`{row.default}`" if row.default not in ("", []) else "none"
            choices = f" One of {', '.join(f'`{c}`' for c in row.choices)}." if row.choices else ""
            lines.append(f"| `{row.key}` | {row.type} | {default} | {row.description}{choices} |".replace("\n", " "))
        lines.append("")
    lines += [
        "## Usage file",
        "",
        "`berth preview STACK --usage FILE` prices what depends on use. The file is YAML, one number a key:",
        "",
        "| key | unit | what it is |",
        "|---|---|---|",
        *(f"| `{k.key}` | {k.unit} | {k.help} |" for k in USAGE_KEYS),
        "",
    ]
    return "\n".join(lines)
