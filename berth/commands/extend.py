"""`berth extend`: a later expiry, in every layer that ends the machines, and within the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import SandboxOption, StackArgument, YesOption
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from infra.lifecycle.extend import Extension, Move

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Ends with exit code 3 where the budget forbids it, and where a layer could not be moved: the earlier "
    "expiry is then in force, and the same command again completes it."
)
def extend(
    stack: StackArgument,
    by: Annotated[
        str, typer.Option("--by", metavar="TIME", help="How much longer it lives: 30m, 2h, 1d.", show_default=False)
    ],
    sandbox: SandboxOption = False,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Let a stack live longer: move its expiry in the stack file, the cloud's schedule, the watchdog and the tags."""
    from berth.show.lifecycle import NOT_DONE, agreed, moment, open_cloud, open_engine
    from infra.lifecycle.extend import extend as move
    from infra.lifecycle.extend import plan_extension, span_of, tell_state

    span_of(by)  # what is mistyped is said before anything else is looked at
    engine = open_engine(stack, sandbox, yes=yes, json_output=json_output)
    cloud = open_cloud(stack, engine, sandbox)
    found = plan_extension(stack, by, engine.project, cloud)
    if not json_output:
        _show(found)
    if found.over:
        if json_output:
            print_json(_document(found, sandbox, ()))
        else:
            typer.echo(f"\nRefused: {found.over}. Nothing was changed.", err=True)
        raise typer.Exit(NOT_DONE)
    if not agreed(f"\nLet {stack} live until {moment(found.later)}?", yes):
        typer.echo("Nothing was changed.")
        return
    moves = move(found, cloud, lambda m: None if json_output else _told(m))
    if not any(m.problem for m in moves):
        told = tell_state(found, engine)
        moves = (*moves, told)
        if not json_output:
            _told(told)
    whole = not any(m.problem for m in moves)
    if json_output:
        print_json(_document(found, sandbox, moves))
    elif whole:
        typer.echo(f"\n{stack} lives until {moment(found.later)}.")
    else:
        typer.echo(
            f"\nThe layers disagree: {moment(found.earlier)} is in force. The same command again completes it.",
            err=True,
        )
    if not whole:
        raise typer.Exit(NOT_DONE)


def _told(move: Move) -> None:
    typer.echo(f"  {move.name}: {'not moved: ' + move.problem if move.problem else 'moved'}", err=bool(move.problem))


def _show(found: Extension) -> None:
    from berth.output import console
    from berth.show.lifecycle import moment, paragraph, usd

    out, bill = console(), found.bill
    out.print(f"{found.file.name} expires {moment(found.earlier)}; it would live until {moment(found.later)}.")
    if found.completes:
        paragraph(
            out,
            "An earlier extension was broken off, and this one completes it",
            [f"{layer.kind} {layer.id}: {moment(layer.at)}" for layer in found.layers],
        )
    out.print(f"\nAdded at worst: {usd(found.added)}. From the start until then, at worst: {usd(bill.worst_case)}.")
    limits = [f"${bill.budget_per_month:,.0f} a month"]
    if bill.budget_per_run:
        limits.insert(0, f"${bill.budget_per_run:,.0f} a run")
    out.print(f"Budget: {', '.join(limits)}.")


def _document(found: Extension, sandbox: bool, moves: tuple[Move, ...]) -> dict[str, Any]:
    from infra.bill.lines import cents
    from infra.durations import write_instant

    bill = found.bill
    return {
        "stack": found.file.name,
        "sandbox": sandbox,
        "from": write_instant(found.earlier),
        "until": write_instant(found.later),
        "layers": [layer.to_json() for layer in found.layers],
        "usd_added": float(cents(found.added)),
        "usd_worst_case": float(cents(bill.worst_case)),
        "budget_per_month": float(bill.budget_per_month),
        "budget_per_run": None if bill.budget_per_run is None else float(bill.budget_per_run),
        "over_budget": found.over or None,
        "moves": [m.to_json() for m in moves],
        "complete": bool(moves) and not any(m.problem for m in moves),
    }
