"""`berth train`: a training node brought up, followed, its work verified in S3, and the node destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import SANDBOX_HELP, StackArgument, YesOption
from berth.output import JsonOption, print_json
from sizing.units import things

if TYPE_CHECKING:
    from berth.show.train import Watcher
    from infra.lifecycle.train_begin import Base
    from infra.lifecycle.train_prepare import Prepared
    from infra.lifecycle.train_run import Desk

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Interrupting this command leaves the run as it is: its node ends by itself, and --attach follows it again, "
    "from any machine. Ends with exit code 3 where the run left no artifact, where a check or a policy stands in its "
    "way, and where something of it could not be removed. docs/training-runs.md tells the rest."
)
def train(
    stack: StackArgument,
    data: Annotated[
        str, typer.Option("--data", help="The data set: a file, a folder with train.*, or s3://BUCKET/KEY.")
    ] = "",
    attach: Annotated[bool, typer.Option("--attach", help="Follow the run that stands, to its end.")] = False,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help=f"{SANDBOX_HELP} A tiny model trains here, on the CPU.")
    ] = False,
    yes: YesOption = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin anew, though an earlier run of the same data left a checkpoint.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="With --attach: destroy the node at once; what is not in S3 is lost.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Fine-tune on a node of the cloud: check, show the bill, ask, train, verify the artifact, destroy the node."""
    from berth.show.lifecycle import NOT_DONE, may_ask
    from berth.show.train import show_end, watching
    from infra.lifecycle.train_end import attend
    from sizing.errors import UserError

    if attach == bool(data):
        raise UserError("give either --data, to begin a run, or --attach, to follow the one that stands")
    if abandon and not attach:
        raise UserError("--abandon goes with --attach: it destroys the node of the run that stands")
    if not attach or abandon:
        may_ask(yes, json_output)
    if sandbox and not attach:
        from berth.runtime import needs_runtime

        needs_runtime("berth train --sandbox")  # the stand-in node trains with it
    desk = _desk(stack, sandbox, start=not attach)
    if abandon:
        _ask_to_abandon(stack, yes)
    try:
        if not attach:
            _begin(stack, data, desk, yes, anew, json_output)
        with watching(json_output) as watcher:
            end = attend(stack, _telling(desk, watcher), watcher.show, abandon=abandon)
    except KeyboardInterrupt:
        typer.echo(
            f"The run does not depend on this command: where its machine has begun it goes on, and ends by itself.\n"
            f"`berth train --attach {stack}{desk.option}` follows it. What stands beside the machine, its network and "
            "its alarms, costs until that\nor `berth down` removes it; `berth status` shows how much.",
            err=True,
        )
        raise
    if json_output:
        print_json({"stack": stack, "sandbox": sandbox, **end.to_json()})
    else:
        show_end(end, desk.option)
    if not end.succeeded or not end.clean:
        raise typer.Exit(NOT_DONE)


def _desk(stack: str, sandbox: bool, *, start: bool) -> Desk:
    import time

    from infra.cloud import cloud_for, sandbox_aws
    from infra.lifecycle.engine import engine_for
    from infra.lifecycle.skew import cloud_clock
    from infra.lifecycle.train_run import Desk, Machines, training_file
    from infra.stack_files import project_root

    root = project_root()
    training_file(stack, root)
    engine = engine_for(root, sandbox, start=start)
    file, _ = training_file(stack, engine.project)
    cloud = cloud_for(file.region, sandbox)
    machines: Machines | None = None
    if sandbox:
        from infra.lifecycle.train_sandbox import stand_ins
        from infra.sandbox.server import find, sandbox_dir

        base = sandbox_dir()
        if (server := find(base)) is not None:
            machines = stand_ins(sandbox_aws(server.endpoint, file.region), base, server)

    def say(line: str) -> None:
        typer.echo(line, err=True)

    return Desk(engine, cloud, engine.project, cloud_clock(cloud, say=say), time.sleep, say, machines)


def _telling(desk: Desk, watcher: Watcher) -> Desk:
    from dataclasses import replace

    return replace(desk, say=watcher.say)


def _begin(stack: str, data: str, desk: Desk, yes: bool, anew: bool, quiet: bool) -> None:
    """Up to the machine. Where the run that stands is of the same data, it is followed instead."""
    import tempfile
    from pathlib import Path

    from berth.show.lifecycle import steps
    from infra.lifecycle.train_begin import begin
    from infra.lifecycle.train_prepare import obstacles, prepare
    from sizing.errors import UserError

    with tempfile.TemporaryDirectory(prefix="berth-train-") as place:
        _tell("Checking the data, planning the run …", quiet)
        prepared = prepare(stack, data, Path(place), desk, anew=anew)
        if _stands_already(prepared, desk, quiet):
            return
        if desk.sandbox and prepared.settings.nodes > 1:
            raise UserError(
                f"stack {stack} has {prepared.settings.nodes} nodes; the sandbox's stand-ins do not train together: "
                "set nodes to 1 for a trial, or `berth up` it there without training"
            )
        found = obstacles(stack, desk)
        refused = prepared.preview.refused
        if not quiet:
            _show(prepared, desk)
        if found or refused:
            _refuse(found, refused)
        _confirm(prepared, desk, yes)
        base: Base | None = None
        if desk.sandbox:
            from infra.lifecycle.train_sandbox import put_tiny

            base = put_tiny
        with steps(quiet) as tell:
            begin(prepared, desk, base=base, step=lambda name: _tell(_STEPS.get(name, ""), quiet), tell=tell)


_STEPS = {
    "data": "Uploading the data set and the bundle …",
    "stack": "Bringing the stack up …",
    "machines": "The machine has begun. This command may be interrupted at any time; the run goes on.",
}


def _tell(line: str, quiet: bool) -> None:
    if line and not quiet:
        typer.echo(line, err=True)


def _stands_already(prepared: Prepared, desk: Desk, quiet: bool) -> bool:
    from infra.lifecycle.train_begin import RunStandsError
    from infra.lifecycle.train_run import BEGUN, read_note, standing_run

    run = standing_run(prepared.file.name, desk)
    if run is None:
        return False
    begun = read_note(run.uri, BEGUN, desk.cloud)
    if begun is None or begun.get("data", {}).get("sha256") != prepared.data.sha256:
        raise RunStandsError(run, desk.option)
    _tell(f"A run of this data stands already, begun by {begun['by']} at {begun['at']}; it is followed.", quiet)
    return True


def _show(prepared: Prepared, desk: Desk) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph
    from berth.show.preview import show_preview

    out, data, settings = console(), prepared.data, prepared.settings
    parts = ", ".join(f"{count:,} {name}" for name, count in data.parts.items())
    out.print(f"\nData: {data.source}, {data.rows:,} rows ({data.form}): {parts}", soft_wrap=True)
    out.print(
        f"Run {prepared.run}: {settings.method} of {settings.model} on {settings.nodes} × {settings.instance_type}, "
        f"{things(float(settings.epochs), 'epoch')}\n",
        soft_wrap=True,
    )
    show_preview(prepared.preview, resources=False)
    paragraph(out, "Worth knowing", list(prepared.notes))
    if desk.sandbox:
        out.print("\nIn the sandbox nothing of this is billed: a tiny model trains on this machine's CPU.")


def _refuse(findings: list[Any], refused: list[Any]) -> None:
    from berth.show.lifecycle import NOT_DONE, refusal

    refusal(findings, refused)
    typer.echo("Nothing was begun.", err=True)
    raise typer.Exit(NOT_DONE)


def _confirm(prepared: Prepared, desk: Desk, yes: bool) -> None:
    from berth.show.lifecycle import agreed, moment, usd, usd_an_hour

    bill = prepared.preview.bill
    question = (
        f"\nTrain for {usd_an_hour(bill.per_hour)}, at worst {usd(bill.worst_case)} until "
        f"{moment(prepared.preview.plan.expires_at)}{' (were it AWS)' if desk.sandbox else ''}?"
    )
    if not agreed(question, yes):
        typer.echo("Nothing was begun.")
        raise typer.Exit


def _ask_to_abandon(stack: str, yes: bool) -> None:
    from berth.show.lifecycle import agreed

    if not agreed(f"Destroy the node of {stack} at once? What is not in S3 is lost.", yes):
        typer.echo("Nothing was changed.")
        raise typer.Exit
