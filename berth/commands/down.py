"""`berth down`: a stack taken away, and the proof that nothing of it is left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import SandboxOption, StackArgument, YesOption, sandbox_flag
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.lifecycle.down import Departure, Gone
    from infra.lifecycle.engine import Engine

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Ends with exit code 3 where something is left, or where a training node holds work that is not safe. "
    "The same command again goes on with what is left. docs/lifecycle.md tells what is kept, and why."
)
def down(
    stack: StackArgument,
    sandbox: SandboxOption = False,
    yes: YesOption = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="Destroy a training node whose work is not safe; what is not in S3 is lost."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Take a stack down: show what goes, what is kept and what it has cost; ask; remove it; prove that it is gone."""
    from berth.show.lifecycle import NOT_DONE, agreed, open_cloud, open_engine, said_engine, steps
    from infra.lifecycle.down import departure, take_down

    engine = open_engine(stack, sandbox, yes=yes, json_output=json_output)
    cloud = open_cloud(stack, engine, sandbox)
    said_engine(engine, json_output)
    found = departure(stack, engine, cloud, abandon=abandon)
    if not json_output:
        _show_departure(found, cloud)
    if found.empty:
        if json_output:
            print_json(_document(found, engine, sandbox, None))
        return
    if found.verdict is not None and not found.verdict.may_destroy:
        if json_output:
            print_json(_document(found, engine, sandbox, None))
        else:
            typer.echo(f"\nNot taken down: {found.verdict.sentence}", err=True)
        raise typer.Exit(NOT_DONE)
    if not agreed(f"\nTake {stack} down?", yes):
        typer.echo("Nothing was changed.")
        return
    try:
        with steps(json_output) as tell:
            gone = take_down(found, engine, cloud, tell)
    except KeyboardInterrupt:
        again = f"berth down {stack}{sandbox_flag(sandbox)}"
        typer.echo(f"Interrupted. What is left stands and may cost: `{again}` goes on.", err=True)
        raise
    if json_output:
        print_json(_document(found, engine, sandbox, gone))
    else:
        _show_gone(found, gone, cloud, sandbox)
    if not gone.whole:
        raise typer.Exit(NOT_DONE)


def _show_departure(found: Departure, cloud: Cloud) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph, usd
    from infra.lifecycle.remove import commands

    out, name = console(), found.file.name
    if found.empty:
        out.print(f"Nothing of {name} stands: its state is empty, and nothing in {cloud.region} has its tag.")
        return
    kinds = Counter(r.short_type for r in found.going)
    paragraph(
        out,
        f"{name} in {found.file.region}: {len(found.going)} resources go",
        [", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in sorted(kinds.items()))],
    )
    paragraph(out, "Kept", [f"{r.short_type} {r.name} ({r.id}): {_why_kept(r)}" for r in found.kept])
    paragraph(out, "In no state, with the stack's tag", [f"{f.kind} {f.id}" for f in found.strays])
    if found.strays and cloud.endpoint is None:
        paragraph(out, "To remove those", [line for f in found.strays for line in commands(f, cloud)])
    if found.verdict is not None:
        paragraph(out, "Its work", [found.verdict.sentence])
    if found.spent is not None:
        out.print(f"\nSpent so far: {'at least ' if found.spent.missing else ''}{usd(found.spent.usd)}")


def _why_kept(resource: Any) -> str:
    return "protected" if resource.protect else "retained: it leaves the state and stays in AWS"


def _show_gone(found: Departure, gone: Gone, cloud: Cloud, sandbox: bool) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph, usd
    from infra.lifecycle.remove import commands

    out, name = console(), found.file.name
    if gone.removal.objects:
        out.print(f"{gone.removal.objects} objects and versions were removed from the buckets first.")
    out.print(f"\n{len(gone.removal.removed)} resources were removed.")
    paragraph(out, "Kept", [f"{r.short_type} {r.name} ({r.id})" for r in gone.removal.kept])
    paragraph(out, "Left", [f"{x.type} {x.name} ({x.id}): {x.reason}" for x in gone.removal.left])
    paragraph(
        out,
        "Left, by its tags; to remove it",
        [line for f in gone.standing for line in (f"{f.kind} {f.id}", *commands(f, cloud))],
    )
    if gone.spent is not None:
        lasted = max((x.hours for x in gone.spent.lines), default=None)
        over = f" over {lasted:.2f} hours" if lasted is not None else ""
        least = "at least " if gone.spent.missing else ""
        out.print(f"\nFinal bill: {least}{usd(gone.spent.usd)}{over}{', were it AWS' if sandbox else ''}")
        paragraph(out, "Not in it, since nobody tells it", list(gone.spent.missing))
        paragraph(out, "Counted at its most", list(gone.spent.most))
        paragraph(out, "Not in it, since it has no price", list(gone.spent.unpriced))
        paragraph(out, "Not in it, since it depends on use", sorted({x.split(": ", 1)[1] for x in gone.spent.by_use}))
    if gone.whole:
        but = " but for what was kept" if gone.removal.kept else ""
        out.print(f"\nListed by the tags project=berth, stack={name}: nothing is left{but}.")
    else:
        out.print(f"\n`berth down {name}{sandbox_flag(sandbox)}` goes on with what is left.")


def _document(found: Departure, engine: Engine, sandbox: bool, gone: Gone | None) -> dict[str, Any]:
    removal = gone.removal if gone is not None else None
    cost = gone.spent if gone is not None else found.spent
    work = found.verdict
    return {
        "stack": found.file.name,
        "region": found.file.region,
        "sandbox": sandbox,
        "engine": engine.name,
        "removed": [r.to_json() for r in removal.removed] if removal else [],
        "kept": [r.to_json() for r in (removal.kept if removal else found.kept)],
        "left": [x.to_json() for x in removal.left] if removal else [],
        "standing": [f.to_json() for f in (gone.standing if gone is not None else found.strays)],
        "objects": removal.objects if removal else 0,
        "work": None if work is None else {"may_destroy": work.may_destroy, "kind": work.kind, "said": work.sentence},
        "spent": cost.to_json() if cost is not None else None,
        "nothing_left": gone.whole if gone is not None else found.empty,
    }
