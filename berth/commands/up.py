"""`berth up`: a stack made what its file says: checked, priced and asked about before anything exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import SandboxOption, StackArgument, YesOption, sandbox_flag
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.lifecycle.engine import Engine
    from infra.lifecycle.health import Health
    from infra.lifecycle.outlook import Outlook

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Ends with exit code 3 where a check or a policy stands in the way, where the stack could not be made "
    "whole, and where it is not healthy in time. docs/lifecycle.md tells what happens in which order."
)
def up(
    stack: StackArgument,
    sandbox: SandboxOption = False,
    yes: YesOption = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the stack is healthy, for as long as a start may take.")
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Bring a stack up: check, show what changes and costs, ask, make it, wait until it is healthy."""
    from berth.show.lifecycle import NOT_DONE, agreed, open_cloud, open_engine, said_engine
    from infra.lifecycle.engine import UpFailedError
    from infra.lifecycle.outlook import endangered, forget_expiry, look_ahead, record_open_choices

    engine = open_engine(stack, sandbox, yes=yes, json_output=json_output, start=True)
    said_engine(engine, json_output, whole=True)
    _bring_shared(stack, engine, sandbox, json_output)
    cloud = open_cloud(stack, engine, sandbox)
    recorded = record_open_choices(stack, engine)
    outlook = look_ahead(stack, engine, cloud, sandbox=sandbox, recorded=recorded)
    if not json_output:
        _show_outlook(outlook)
    danger = endangered(outlook, engine, cloud)
    if outlook.failed or outlook.preview.refused or danger:
        _take_back(outlook, forget_expiry)
        if json_output:
            print_json(_document(outlook, engine, sandbox, None, {}, danger))
        else:
            _show_refusal(outlook, danger)
        raise typer.Exit(NOT_DONE)
    if not outlook.changes.empty and not agreed(_question(outlook), yes):
        _take_back(outlook, forget_expiry)
        typer.echo("Nothing was changed.")
        return
    try:
        outputs = _make(outlook, engine, sandbox, json_output)
    except UpFailedError as error:
        typer.echo(f"berth: {error}", err=True)
        for resource in error.standing if not json_output else ():
            typer.echo(f"  exists: {resource.short_type} {resource.name} ({resource.id})", err=True)
        raise typer.Exit(NOT_DONE) from None
    health = _healthy(outlook, engine, cloud, sandbox, wait, json_output)
    if json_output:
        print_json(_document(outlook, engine, sandbox, health, outputs, ""))
    else:
        _show_end(outlook, engine, sandbox, health, outputs)
    if health.state == "failed":
        raise typer.Exit(NOT_DONE)


def _bring_shared(stack: str, engine: Engine, sandbox: bool, quiet: bool) -> None:
    """The shared stack comes first: by itself in the sandbox, where it costs nothing; in AWS it is asked for."""
    from berth.show.lifecycle import steps
    from infra.lifecycle.outlook import needs_shared
    from infra.stack_files import read_stack
    from sizing.errors import UserError

    shared = needs_shared(read_stack(stack, engine.project), engine)
    if not shared:
        return
    if not sandbox:
        raise UserError(f"stack {stack} takes its artifacts from {shared}, which is not up; `berth up {shared}` first")
    if not quiet:
        typer.echo(f"{shared}, from which {stack} takes its artifacts, comes first:")
        engine.preview(shared)  # it counts the steps that follow
    with steps(quiet) as tell:
        engine.up(shared, tell)


def _take_back(outlook: Outlook, forget: Any) -> None:
    """An `up` that does not happen leaves no moment of expiry behind."""
    if "expires_at" in outlook.recorded:
        forget(outlook.file)


def _make(outlook: Outlook, engine: Engine, sandbox: bool, quiet: bool) -> dict[str, Any]:
    from berth.show.lifecycle import steps

    if outlook.changes.empty and engine.outputs(outlook.file.name):
        return dict(engine.outputs(outlook.file.name))
    try:
        with steps(quiet) as tell:
            return dict(engine.up(outlook.file.name, tell))
    except KeyboardInterrupt:
        what = f"{outlook.file.name}{sandbox_flag(sandbox)}"
        typer.echo(
            f"Interrupted. What was made and is not named as removed above stands and may cost: `berth status {what}` "
            f"shows it, `berth down {what}` removes it, `berth up {what}` goes on.",
            err=True,
        )
        raise


def _healthy(outlook: Outlook, engine: Engine, cloud: Cloud, sandbox: bool, wait: bool, quiet: bool) -> Health:
    from infra.lifecycle.health import look, start_seconds, wait_healthy
    from infra.resolve import now
    from sizing.hardware.load import load_hardware
    from sizing.models.resolve import resolve_model

    stack, settings, since = outlook.file.name, outlook.file.settings, outlook.preview.plan.made_at
    if outlook.changes.empty:
        since = min([now(), *_made(engine, stack)])
    resources = engine.resources(stack)

    def once() -> Health:
        return look(stack, settings, resources, cloud, since)

    def told(found: Health) -> None:
        if found.state == "starting" and not quiet:
            typer.echo(f"  {found.said}", err=True)

    if not wait:
        return once()
    seconds = start_seconds(settings, load_hardware(), resolve_model)
    if not quiet and (first := once()).state == "starting":
        typer.echo(f"\n{first.said}; waiting up to {seconds // 60} minutes (Ctrl-C ends the waiting, not the stack) …")
    try:
        return wait_healthy(once, timeout_s=seconds, tell=told)
    except KeyboardInterrupt:
        remove = f"berth down {stack}{sandbox_flag(sandbox)}"
        typer.echo(f"Stopped waiting. The stack stands and costs: `{remove}` removes it.", err=True)
        raise


def _made(engine: Engine, stack: str) -> list[Any]:
    from infra.durations import parse_instant

    return [parse_instant(r.created) for r in engine.resources(stack) if r.created]


def _question(outlook: Outlook) -> str:
    from berth.show.lifecycle import moment, usd, usd_an_hour

    bill, plan = outlook.preview.bill, outlook.preview.plan
    until = f"until {moment(plan.expires_at)}" if plan.expires_at else "a month, with no expiry"
    return f"\nBring {plan.stack} up for {usd_an_hour(bill.per_hour)}, at worst {usd(bill.worst_case)} {until}?"


def _show_outlook(outlook: Outlook) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph
    from berth.show.preview import show_preview

    out = console()
    out.print()
    show_preview(outlook.preview, resources=False)
    paragraph(out, "Recorded in the stack file", [f"{key}: {_plain(value)}" for key, value in outlook.recorded.items()])
    open_ = [f for f in outlook.findings if f.status != "ok"]
    paragraph(
        out,
        "Checks" if open_ else "All checks pass.",
        [f"{f.check} {f.status}: {f.said}{'; ' + f.fix if f.fix else ''}" for f in open_],
    )
    counts = outlook.changes.counts()
    if not outlook.failed:
        said = ", ".join(
            f"{number} to {name}" if name != "same" else f"{number} stay" for name, number in counts.items()
        )
        out.print(f"\nChanges: {said}")
        severe = outlook.changes.of("replace", "delete")
        paragraph(
            out,
            "Replaced or removed",
            [f"{c.operation} {c.name}{': ' + ', '.join(c.keys) if c.keys else ''}" for c in severe],
        )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _show_refusal(outlook: Outlook, danger: str) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph, refusal

    refusal(outlook.failed, outlook.preview.refused)
    paragraph(console(stderr=True), "Refused, since work would be lost", [danger] if danger else [])
    typer.echo("Nothing was changed.", err=True)


def _show_end(outlook: Outlook, engine: Engine, sandbox: bool, health: Health, outputs: dict[str, Any]) -> None:
    from berth.output import console
    from berth.show.lifecycle import moment, usd_an_hour
    from infra.lifecycle.health import address

    out, name = console(), outlook.file.name
    state = {
        "healthy": "up and healthy",
        "failed": "up, but not healthy",
        "unknown": "up",
        "starting": "up, and starts",
    }
    out.print(f"\n{name} is {state.get(health.state, 'up')}: {health.said}")
    place = address(outputs, engine.resources(name))
    if place:
        out.print(f"Address: {place}", soft_wrap=True)
    if outputs.get("feedback_url"):
        out.print(f"Feedback: {outputs['feedback_url']}", soft_wrap=True)
    out.print(f"Cost: {usd_an_hour(outlook.preview.bill.per_hour)}{' if it were AWS' if sandbox else ''}")
    out.print(f"Expires: {moment(outlook.preview.plan.expires_at)}")
    out.print(f"`berth down {name}{sandbox_flag(sandbox)}` removes it.")


def _document(
    outlook: Outlook, engine: Engine, sandbox: bool, health: Health | None, outputs: dict[str, Any], danger: str
) -> dict[str, Any]:
    from infra.lifecycle.health import address

    preview, name = outlook.preview, outlook.file.name
    return {
        "stack": name,
        "role": outlook.file.settings.role,
        "region": outlook.file.region,
        "sandbox": sandbox,
        "engine": engine.name,
        "up": health is not None,
        "recorded": outlook.recorded,
        "findings": [f.to_json() for f in outlook.findings],
        "violations": [v.to_json() for v in preview.violations],
        "refused": danger or None,
        "changes": [c.to_json() for c in outlook.changes.changes if c.operation != "same"],
        "bill": preview.bill.to_json(),
        "expires_at": preview.plan.expires_at.isoformat() if preview.plan.expires_at else None,
        "health": health.to_json() if health is not None else None,
        "address": (address(outputs, engine.resources(name)) or None) if health is not None else None,
        "outputs": outputs,
    }
