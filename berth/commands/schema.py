"""`berth schema`: the JSON Schema of what a command prints with `--json`."""

from __future__ import annotations

from typing import Annotated

import typer

from berth.output import JsonOption, console, print_json, table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Every schema is complete in itself: `berth schema size > size.schema.json` is all that a validator needs. "
    "docs/json.md has them all on one page."
)
def schema(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The command, such as size or catalog show; without it, a list of those that have one."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Print the JSON Schema (draft 2020-12) of what a command prints with --json."""
    from berth.schemas import load, names

    if command:
        print_json(load(" ".join(command)))
        return
    found = [(name, load(name)) for name in names()]
    if json_output:
        print_json({"schemas": [{"command": n, "id": s["$id"], "title": s["title"]} for n, s in found]})
        return
    drawn = table("command", "what its --json prints", wrap=("what its --json prints",))
    for name, document in found:
        drawn.add_row(name, document["description"])
    out = console()
    out.print(drawn)
    out.print("berth schema COMMAND prints one.")
