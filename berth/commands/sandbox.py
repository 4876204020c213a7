"""`berth sandbox`: a local AWS on which every stack can be tried, with no account and at no cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, print_json
from berth.show.lifecycle import NOT_DONE, step_line

if TYPE_CHECKING:
    from pathlib import Path

    from infra.lifecycle.engine import Removal
    from infra.lifecycle.trial import Trial
    from infra.sandbox.journal import Journal, StackRecord
    from infra.sandbox.provider import SandboxProvider
    from infra.sandbox.server import Server
    from infra.sandbox.walk import Removed

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Try a stack on a local AWS: moto, on 127.0.0.1. No account, no cost.",
)

WITHOUT_ENGINE = (
    "Made by the stack's own program straight against moto, without Pulumi's engine and its state: "
    "https://www.pulumi.com/docs/install/ installs `pulumi`; docs/sandbox.md tells how the engine uses this sandbox."
)


EngineOption = Annotated[
    bool | None,
    typer.Option(
        "--engine/--no-engine",
        help="Go through Pulumi's own engine, with its state in files; by default where a pulumi CLI is on PATH.",
        show_default=False,
    ),
]


@app.command()
def up(
    stack: Annotated[str, typer.Argument(help="The stack: the NAME of stacks/Pulumi.NAME.yaml.")] = "sandbox",
    empty: Annotated[
        bool, typer.Option("--empty", help="Only start the local AWS, for `pulumi up` to fill; make nothing on it.")
    ] = False,
    engine: EngineOption = None,
    json_output: JsonOption = False,
) -> None:
    """Start the local AWS where it does not run, and make every resource of a stack and of its shared stack on it."""
    from infra.plan import plan_file
    from infra.sandbox import server, walk
    from infra.sandbox.listing import tagged
    from infra.stack_files import project_root, read_stack
    from sizing.errors import UserError

    folder = server.sandbox_dir()
    if empty:
        with server.locked(folder):
            local = server.start(folder)
        if json_output:
            print_json(
                {"server": _server_json(local), "stack": None, "engine": "", "made": [], "outputs": {}, "tagged": []}
            )
        else:
            typer.echo(f"The local AWS runs on {local.endpoint}; docs/sandbox.md tells how `pulumi up` uses it.")
        return
    root = project_root()
    files = [read_stack(stack, root)]
    if _by_engine(engine):
        _up_by_engine(root, stack, json_output)
        return
    if shared := files[0].shared_name:
        files.insert(0, read_stack(shared, root))
    tell = _teller(json_output)
    with server.locked(folder):
        if not json_output and server.find(folder) is None:
            typer.echo("Starting the local AWS …")
        local = server.start(folder)
        made: list[StackRecord] = []
        journal = _journal(folder, local)
        for file in files:
            if file.name in journal.stacks and journal.stacks[file.name].complete:
                continue
            if file.name not in journal.stacks and _standing(_provider(local, file.region), file.name):
                raise UserError(
                    f"stack {file.name} stands in the sandbox by Pulumi's engine; "
                    f"`berth sandbox down {file.name}` with the pulumi CLI on PATH removes it"
                )
            if file.name in journal.stacks:
                walk.take_down(file.name, _provider(local, file.region), journal, tell=tell)
            plan = plan_file(file, root)
            total = sum(r.custom and r.type.startswith("aws:") for r in plan.resources)
            if not json_output:
                typer.echo(f"{file.name}: {total} resources")
            made.append(walk.bring_up(file, _provider(local, file.region), journal, tell=tell, total=total))
        record = journal.stacks[stack]
        found = tagged(_provider(local, record.region).aws)
    if json_output:
        print_json(
            {
                "server": _server_json(local),
                "stack": _stack_json(record),
                "engine": "",
                "made": [r.name for r in made],
                "outputs": record.outputs,
                "tagged": [{"id": t.id, "stack": t.stack} for t in found],
            }
        )
        return
    _show_up(record, local, bool(made), len([t for t in found if t.stack == stack]), WITHOUT_ENGINE)


def _by_engine(asked: bool | None) -> bool:
    """Whether Pulumi's engine is to be used. Raises `UserError` where it is asked for and there is no CLI."""
    from infra.lifecycle.engine import missing_cli, pulumi_on_path

    found = pulumi_on_path()
    if asked and not found:
        raise missing_cli()
    return found if asked is None else asked


def _up_by_engine(root: Path, stack: str, json_output: bool) -> None:
    from infra.lifecycle.trial import Trial
    from infra.sandbox import server
    from infra.sandbox.listing import tagged

    if not json_output and server.find(server.sandbox_dir()) is None:
        typer.echo("Starting the local AWS …")
    trial = Trial(root, start=True)
    tell, say = _teller(json_output), (lambda line: None if json_output else typer.echo(line))
    made = trial.bring_up(stack, tell, say)
    record = next(r for r in trial.records() if r.name == stack)
    found = tagged(_provider(trial.server, record.region).aws)
    if json_output:
        print_json(
            {
                "server": _server_json(trial.server),
                "stack": _stack_json(record),
                "engine": trial.engine.name,
                "made": made,
                "outputs": record.outputs,
                "tagged": [{"id": t.id, "stack": t.stack} for t in found],
            }
        )
        return
    how = (
        f"Made by {trial.engine.name} through the sandbox's provider, with its state in files; "
        f"`berth sandbox up {stack}` again applies what a changed stack file says, as `pulumi up` would."
    )
    _show_up(record, trial.server, stack in made, len([t for t in found if t.stack == stack]), how)


@app.command(epilog="Ends with exit code 3 where something is left.")
def down(
    stack: Annotated[
        str | None, typer.Argument(help="The stack. Without one: all stacks, and then the local AWS itself.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="End the local AWS at once, with all that is in it, without the walk down.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove a stack's resources, the last made first, and prove by listing that nothing of it is left."""
    from infra.sandbox import server, walk
    from sizing.errors import UserError

    folder, tell = server.sandbox_dir(), _teller(json_output)
    if force and stack is not None:
        raise UserError("--force ends the whole sandbox; give it without a stack")
    with server.locked(folder):
        local = server.find(folder)
        if local is None or force:
            ended = server.stop(folder)
            said = "The local AWS was ended; it held everything in memory." if ended else "The sandbox does not run."
            _print_down({"removed": [], "objects": 0, "left": [], "tagged": [], "server_ended": ended}, json_output)
            if not json_output:
                typer.echo(said)
            return
        journal, trial = _journal(folder, local), _trial()
        by_engine = {r.name: r for r in trial.records()} if trial else {}
        records = {**by_engine, **journal.stacks}
        names = [stack] if stack is not None else sorted(records, key=lambda name: not records[name].uses)
        removed: list[dict[str, str]] = []
        left: list[dict[str, str]] = []
        objects = 0
        standing: list[dict[str, str]] = []
        regions = {r.region for r in records.values()} or {"us-east-1"}
        for name in names:
            found: Removal | Removed
            if trial is not None and name in by_engine:
                found = trial.take_down(name, tell)
            else:
                region = journal.stacks[name].region if name in journal.stacks else "us-east-1"
                found = walk.take_down(name, _provider(local, region), journal, tell=tell)
            objects += found.objects
            removed += [{"type": m.type, "name": m.name, "id": m.id} for m in found.removed]
            left += [{"type": x.type, "name": x.name, "id": x.id, "reason": x.reason} for x in found.left]
        for region in sorted(regions):
            standing += _standing(_provider(local, region), stack)
        whole = stack is None and not left and not standing
        if whole:
            server.stop(folder)
    _print_down(
        {"removed": removed, "objects": objects, "left": left, "tagged": standing, "server_ended": whole}, json_output
    )
    if left or standing:
        if not json_output:
            for entry in left:
                typer.echo(f"Left: {entry['name']} ({entry['id']}): {entry['reason']}")
            for entry in standing:
                typer.echo(f"Left, by its tags: {entry['id']}")
            typer.echo("`berth sandbox down --force` ends the local AWS with all that is in it.")
        raise typer.Exit(NOT_DONE)
    if not json_output:
        typer.echo(
            f"Listed by the tags project=berth{f', stack={stack}' if stack else ''}: nothing is left."
            + (" The local AWS has ended." if whole else "")
        )


@app.command()
def status(json_output: JsonOption = False) -> None:
    """Show whether the local AWS runs, the stacks on it, what is gone behind their back, and what belongs to none."""
    from infra.sandbox import server, walk
    from infra.sandbox.listing import tagged

    folder = server.sandbox_dir()
    local = server.find(folder)
    if local is None:
        if json_output:
            print_json({"server": None, "stacks": [], "orphans": []})
        else:
            typer.echo("The sandbox does not run; `berth sandbox up` starts it.")
        return
    trial = _trial()
    by_engine = {r.name: r for r in trial.records()} if trial else {}
    records = {**by_engine, **_journal(folder, local).stacks}
    stacks, seen = [], {}
    for record in records.values():
        provider = _provider(local, record.region)
        seen.update({t.id: t for t in tagged(provider.aws)})
        gone = [{"type": m.type, "name": m.name, "id": m.id} for m in walk.gone(record, provider)]
        how = trial.engine.name if trial is not None and record.name in by_engine else ""
        stacks.append({**_stack_json(record), "engine": how, "gone": gone})
    if not records:
        seen.update({t.id: t for t in tagged(_provider(local, "us-east-1").aws)})
    orphans = [{"id": t.id, "stack": t.stack} for t in seen.values() if t.stack not in records]
    if json_output:
        print_json({"server": _server_json(local), "stacks": stacks, "orphans": orphans})
        return
    _show_status(local, stacks, orphans)


def _trial() -> Trial | None:
    """The engine's stacks on the local AWS that runs, None without a CLI."""
    from infra.lifecycle.engine import pulumi_on_path
    from infra.stack_files import project_root

    if not pulumi_on_path():
        return None
    from infra.lifecycle.trial import Trial

    return Trial(project_root())


def _journal(folder: Path, local: Server) -> Journal:
    from infra.sandbox.journal import journal_in

    return journal_in(folder, local.run)


def _provider(local: Server, region: str) -> SandboxProvider:
    from infra.cloud import sandbox_aws
    from infra.sandbox.provider import SandboxProvider

    return SandboxProvider(sandbox_aws(local.endpoint, region))


def _standing(provider: SandboxProvider, stack: str | None) -> list[dict[str, str]]:
    from infra.sandbox.listing import tagged

    return [{"id": t.id, "stack": t.stack} for t in tagged(provider.aws) if stack is None or t.stack == stack]


def _teller(quiet: bool) -> Callable[[Any], None]:
    """Prints each step as a line."""

    return lambda step: None if quiet else typer.echo(step_line(step))


def _server_json(local: Server) -> dict[str, Any]:
    return {"endpoint": local.endpoint, "pid": local.pid, "since": local.since}


def _stack_json(record: StackRecord) -> dict[str, Any]:
    from infra.sandbox.catalogue import kind_of

    return {
        "name": record.name,
        "region": record.region,
        "since": record.since,
        "expires_at": record.expires_at or None,
        "complete": record.complete,
        "resources": [
            {
                "type": m.type,
                "name": m.name,
                "id": m.id,
                "lacking": m.lacking or None,
                "omits": kind_of(m.type).omits or None,
            }
            for m in record.made
        ],
        "stand_ins": record.stand_ins,
    }


def _omissions(record: StackRecord) -> dict[str, list[str]]:
    """What moto was not told of resources that it has, with their names."""
    from infra.sandbox.catalogue import kind_of

    found: dict[str, list[str]] = {}
    for made in record.made:
        if omitted := kind_of(made.type).omits:
            found.setdefault(omitted, []).append(made.name)
    return found


def _show_up(record: StackRecord, local: Server, made: bool, tagged: int, how: str) -> None:
    from berth.output import console

    out = console()
    if not made:
        out.print(f"{record.name} is up since {record.since}; `berth sandbox down {record.name}` removes it.")
    out.print(
        f"\n{record.name}: {len(record.made)} resources on {local.endpoint}, {tagged} of them listed by their tags; "
        f"expires: {record.expires_at or 'never'}"
    )
    for name, value in sorted(record.outputs.items()):
        out.print(f"  {name}: {value if isinstance(value, str) else ', '.join(map(str, value))}", soft_wrap=True)
    for name, image in record.stand_ins.items():
        out.print(f"moto has no {name}: its {image} stands in.")
    for entry in record.made:
        if entry.lacking:
            out.print(f"moto has no {entry.lacking}: {entry.name} was noted, not made.")
    for omitted, names in _omissions(record).items():
        out.print(f"Left out of {', '.join(names)}: {omitted}.")
    out.print(f"\n{how}")


def _print_down(document: dict[str, Any], json_output: bool) -> None:
    if json_output:
        print_json(document)
    elif document["objects"]:
        typer.echo(f"{document['objects']} objects and versions were removed from the buckets first.")


def _show_status(local: Server, stacks: list[dict[str, Any]], orphans: list[dict[str, str]]) -> None:
    from berth.output import console, table

    out = console()
    out.print(f"The local AWS runs on {local.endpoint} since {local.since} (process {local.pid}).\n")
    drawn = table("Stack", "Made by", "Region", "Since", "Expires", "Resources", "Gone", right=("Resources", "Gone"))
    for entry in stacks:
        drawn.add_row(
            entry["name"] + ("" if entry["complete"] else " (incomplete)"),
            entry["engine"] or "the walk",
            entry["region"],
            _minute(entry["since"]),
            _minute(entry["expires_at"]) or "never",
            str(len(entry["resources"])),
            str(len(entry["gone"])),
        )
    out.print(drawn if stacks else "No stack is in it.")
    for entry in stacks:
        for lost in entry["gone"]:
            out.print(f"Gone from {entry['name']}: {lost['name']} ({lost['id']})")
    for orphan in orphans:
        out.print(f"Belongs to no stack: {orphan['id']} (stack={orphan['stack'] or 'none'})")
    if orphans:
        out.print("`berth sandbox down --force` ends the local AWS with all that is in it.")


def _minute(instant: str | None) -> str:
    """`2026-11-24T13:20:27Z` as `berth status` says it: `2026-11-24 13:20 UTC`."""
    return f"{instant[:16].replace('T', ' ')} UTC" if instant else ""
