"""`berth preview`: what a stack would be and cost, before anything exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from berth.options import StackArgument
from berth.output import JsonOption, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)

REFUSED = 3
"""Exit code where a policy refuses the plan."""


@app.command(
    epilog="Ends with exit code 3 where a policy refuses the plan. A usage file is YAML, one number a key; "
    "docs/infra.md lists the keys."
)
def preview(
    stack: StackArgument,
    usage: Annotated[
        Path | None,
        typer.Option("--usage", metavar="FILE", help="Price traffic, storage and requests by this usage file."),
    ] = None,
    from_preview: Annotated[
        Path | None,
        typer.Option(
            "--from-preview",
            metavar="FILE",
            help="Price what `pulumi preview --json` wrote to this file, against what stands today.",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask pulumi what stands today: no CLI, no account, no network.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the preview to this HTML file as well.")
    ] = None,
    resources: Annotated[
        bool, typer.Option("--resources/--no-resources", help="List the resources before the bill.")
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Show what a stack would create and what that costs; nothing is changed.

    It needs no account and no network. Where a pulumi CLI is on PATH and the stack has a state, the bill is a
    difference: what this change adds and removes a month.
    """
    from infra.bill.lines import read_usage
    from infra.engine_preview import Standing, cli, standing
    from infra.preview import preview_stack
    from infra.stack_files import project_root

    def look(name: str) -> Standing:
        return Standing() if offline else standing(name, cli(project_root()))

    found = preview_stack(
        stack,
        usage=read_usage(usage) if usage else None,
        previewed=from_preview,
        look=look,
    )
    if html is not None:
        from infra.preview_page import render
        from infra.stack_files import write_text

        write_text(html, render(found))
    if json_output:
        print_json(found.to_json())
    else:
        from berth.show.preview import show_preview

        show_preview(found, resources=resources)
        if html is not None:
            typer.echo(f"\nWritten to {html}")
    if found.refused:
        raise typer.Exit(REFUSED)
