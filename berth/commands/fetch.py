"""`berth fetch`: what a stack's runs left, or what it serves, brought here and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from berth.options import StackArgument
from berth.output import JsonOption, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Every file is held against the manifest that was written last, and what is there already and whole is not "
    "fetched again."
)
def fetch(
    stack: StackArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.", show_default=False)],
    sandbox: Annotated[bool, typer.Option("--sandbox", help="From the local AWS.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Bring here the artifact of a training stack's newest run, or the model of a service, every byte checked."""
    from berth.show.progress import progress
    from infra.stack_files import project_root
    from infra.uploads.place import open_artifacts
    from infra.uploads.receive import receive_artifact

    artifacts = open_artifacts(stack, project_root(), sandbox=sandbox)
    with progress() as told:
        uri = receive_artifact(artifacts, out, say=lambda line: typer.echo(line, err=json_output), progress=told)
    model = out / "model" if (out / "model" / "config.json").is_file() else out
    if json_output:
        print_json({"stack": stack, "uri": uri, "folder": str(out), "model": str(model)})
        return
    if model != out:
        typer.echo(f"\nNext\n  berth evaluate {out} --data FILE --out evaluation")
