"""`berth assess`: the terms of a model's assess."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def assess(model: Annotated[str, typer.Argument(help="Model")]) -> None:
    """Memory of a model, term by term, on the device and on the host."""
    typer.echo(model)
