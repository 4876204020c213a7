"""`berth settings`: every key of a stack file, and what one stack has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def settings(
    stack: Annotated[
        str | None,
        typer.Argument(help="Show this stack's settings. Without it: every key there is.", show_default=False),
    ] = None,
    role: Annotated[str | None, typer.Option("--role", metavar="ROLE", help="Only the keys of this role.")] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Write what the stack leaves open (auto, the moment of expiry) into its file."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Explain every key of a stack file, or show a stack's settings and record what it leaves open."""
    from infra.stack_files import project_root
    from sizing.errors import UserError

    if stack is None:
        if record:
            raise UserError("--record needs a stack: berth settings STACK --record")
        _reference(role, json_output)
        return
    if role is not None:
        raise UserError("--role is for the list of keys; a stack has its own")
    _stack(stack, project_root(), record, json_output)


def _reference(role: str | None, json_output: bool) -> None:
    from infra.settings import MODELS
    from infra.settings_reference import rows
    from sizing.errors import unknown

    if role is not None and role not in MODELS:
        raise unknown("role", role, MODELS)
    found = [r for r in rows() if role is None or role in r.roles]
    if json_output:
        print_json([r.to_json() for r in found])
        return
    from berth.output import console, table

    drawn = table("Key", "Type", "Default", "What it is", wrap=("Default", "What it is"))
    for row in found:
        of = "" if role or len(row.roles) == len(MODELS) else f" ({', '.join(row.roles)})"
        drawn.add_row(row.key, row.type, "needed" if row.required else str(row.default or "-"), row.description + of)
    console().print(drawn)


def _stack(stack: str, root: Path, record: bool, json_output: bool) -> None:
    from infra.stack_files import read_stack

    written: dict[str, Any] = {}
    if record:
        from infra.new_stack import record_choice

        written = record_choice(stack, root)
    file = read_stack(stack, root)
    values = file.settings.model_dump(mode="json")
    if json_output:
        print_json({"stack": stack, "region": file.region, "settings": values, "recorded": written})
        return
    from berth.output import console, table

    drawn = table("Key", "Value", "From", wrap=("Value",))
    drawn.add_row("aws:region", file.region, "stack file")
    for key, value in values.items():
        drawn.add_row(key, _shown(value), "stack file" if key in file.given else "default")
    console().print(drawn)
    if record:
        said = ", ".join(f"{k}: {v}" for k, v in written.items())
        typer.echo(f"\nRecorded in {file.path}: {said}" if written else "\nEverything was recorded already.")


def _shown(value: Any) -> str:
    """A value as a stack file has it: lists with commas, true and false in YAML's words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value == "" else str(value)
