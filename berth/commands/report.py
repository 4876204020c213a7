"""`berth report`: what the commands printed, as one page for those who decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

FORMATS = ("html", "md", "json")


@app.command(
    epilog="FILEs are what these print with --json: assess, size, size --for training, memory, preview, review "
    "summary; and what verify --report and evaluate write. Each is told by its schema, and files that are not about "
    "one plan are refused. The report is tentative until a measurement of the planned machine is among them."
)
def report(
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="A JSON document that a command printed; once for each file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the report here; without it, to stdout."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--format", metavar="NAME", help="html, md or json (default: by FILE's ending, else html).")
    ] = "",
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="The headline (default: the model).")] = "",
    also_called: Annotated[
        list[str] | None,
        typer.Option(
            "--also-called", metavar="NAME", help="Another name of the same model, such as that of its tuned folder."
        ),
    ] = None,
) -> None:
    """Write the stakeholder report: need, model, machine, cost, measurements, quality, risks on one page."""
    import json

    from berth.report import html, markdown
    from berth.report.build import build
    from berth.report.documents import gather
    from berth.report.files import keep, write_text
    from sizing.errors import unknown

    ending = output.suffix.lstrip(".").lower() if output else ""
    chosen = kind.lower() or {"markdown": "md", "htm": "html"}.get(ending, ending)
    if kind and chosen not in FORMATS:
        raise unknown("format", kind, FORMATS)
    keep(*(sources or ()), output=output)
    made = build(gather(sources or (), also_called or ()), title)
    if chosen == "json":
        text = json.dumps(made.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = markdown.render(made) if chosen == "md" else html.render(made)
    if output is None:
        typer.echo(text, nl=False)
        return
    write_text(output, text)
    for why in made.tentative:
        typer.echo(f"Tentative: {why}", err=True)
    typer.echo(f"Written to {output}", err=True)
