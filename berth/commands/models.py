"""`berth models`: the terms of a model's models."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def models(model: Annotated[str, typer.Argument(help="Model")]) -> None:
    """Memory of a model, term by term, on the device and on the host."""
    typer.echo(model)
