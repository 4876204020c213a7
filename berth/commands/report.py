"""`berth report`: what the commands printed, as one page for those who decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from berth.report.documents import Document

app = typer.Typer(add_completion=False, rich_markup_mode=None)

FORMATS = ("html", "md", "json")


@app.command(
    epilog="FILEs are what these print with --json: assess, size, size --for training, memory, preview, review "
    "summary, metrics, feedback; and what verify --report, evaluate and finetune (training.json) write. Each is told "
    "by its schema, and files that are not about one plan are refused. Of a STACK the plan, the bill and sizing's "
    "numbers come from its stack file, the rest from the newest files in reports/STACK/. The report is tentative until "
    "a measurement of the planned machine is among them."
)
def report(
    stack: Annotated[
        str, typer.Argument(help="A stack, the NAME of stacks/Pulumi.NAME.yaml; none: files alone.", show_default=False)
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="FOLDER", help="Of a STACK: where its files lie (default: reports/STACK)."),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Of a STACK: first bring what its runs left in the artifact bucket into FOLDER."),
    ] = False,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="With --fetch: from the local AWS.")] = False,
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
    from sizing.errors import UserError, unknown

    if not stack and (folder is not None or fetch or sandbox):
        raise UserError("--folder, --fetch and --sandbox are of a stack; name it: berth report STACK")
    ending = output.suffix.lstrip(".").lower() if output else ""
    chosen = kind.lower() or {"markdown": "md", "htm": "html"}.get(ending, ending)
    if kind and chosen not in FORMATS:
        raise unknown("format", kind, FORMATS)
    keep(*(sources or ()), output=output)
    standing, names = _standing(stack, folder, fetch, sandbox, output) if stack else ([], ())
    made = build(gather(sources or (), (*(also_called or ()), *names), standing), title)
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


def _standing(
    stack: str, folder: Path | None, fetch: bool, sandbox: bool, output: Path | None
) -> tuple[list[Document], tuple[str, ...]]:
    """What is known of the stack itself, and other names of its model."""
    from berth.report import stack as gathered
    from berth.report.files import keep
    from infra.stack_files import project_root, read_stack

    root = project_root()
    file = read_stack(stack, root)
    kept = folder or gathered.folder_of(stack, root)
    if fetch:
        from infra.operations.clients import clients_for

        client = clients_for(file.region, sandbox)
        came = gathered.fetch(file, client, kept)
        typer.echo(f"{len(came)} documents came into {kept}", err=True)
    found, notes = gathered.in_folder(kept)
    keep(*(Path(document.path) for document in found), output=output)
    for note in notes:
        typer.echo(note, err=True)
    own = gathered.of_stack(stack, root)
    return [*own, *found], gathered.names_of(stack, file.settings)
