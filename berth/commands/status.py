"""`berth status`: every stack as it is in AWS, and what belongs to none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.options import SandboxOption, sandbox_flag
from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from infra.lifecycle.census import Census, StackStatus

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Changes nothing. Without the pulumi CLI only what carries the project's tag is told, from AWS itself."
)
def status(
    stack: Annotated[
        str | None, typer.Argument(help="The stack. Without one: all of them, and what belongs to none.")
    ] = None,
    sandbox: SandboxOption = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also compare every resource with the state, which takes a while.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what runs, since when, what it has cost, when it expires, what drifted; and orphans with their removal."""
    from infra.stack_files import project_root, read_stack

    root = project_root()
    if stack is not None:
        read_stack(stack, root)
    found, engine, note = _look(root, stack or "", sandbox, drift)
    if json_output:
        print_json(_document(found, engine, sandbox, note))
    else:
        _show(found, engine, sandbox, note, drift)


def _look(root: Path, stack: str, sandbox: bool, drift: bool) -> tuple[Census, str, str]:
    """The census, the engine's name (empty for none), and what had to be left out."""
    from infra.cloud import Cloud, cloud_for
    from infra.lifecycle.census import Census, by_tags, census
    from infra.lifecycle.engine import INSTALL, INSTALL_URL, engine_for, pulumi_on_path
    from infra.resolve import now
    from infra.sandbox.server import find, sandbox_dir
    from infra.stack_files import read_stack, stack_names

    clouds: dict[str, Cloud] = {}

    def cloud_of(region: str) -> Cloud:
        if region not in clouds:
            clouds[region] = cloud_for(region, sandbox)
        return clouds[region]

    names = [stack] if stack else stack_names(root)
    if sandbox and find(sandbox_dir()) is None:
        return (
            Census(now(), (), tuple(names), ()),
            "",
            "The sandbox does not run; `berth up STACK --sandbox` starts it.",
        )
    if not sandbox and not pulumi_on_path():
        files = {name: read_stack(name, root) for name in names}
        note = (
            "No pulumi CLI is on PATH, so no state is read: this is what carries the project's tag, and whether "
            f"something belongs to no stack cannot be told. {INSTALL_URL} ({INSTALL})"
        )
        return by_tags(files, cloud_of), "", note
    engine = engine_for(root, sandbox)
    note = engine.explain() if pulumi_on_path() else ""
    return census(engine, cloud_of, only=stack, drift=drift), engine.name, note


def _show(found: Census, engine: str, sandbox: bool, note: str, drift: bool) -> None:
    from berth.output import console
    from berth.show.lifecycle import paragraph

    out = console()
    if engine:
        out.print(f"Engine: {engine}.\n")
    if note:
        out.print(f"{note}\n")
    if found.stacks:
        out.print(_table(found))
    elif not note.startswith("The sandbox"):
        out.print("No stack stands.")
    for one in found.stacks:
        paragraph(out, one.name, _details(one, found, sandbox, drift))
    if found.down:
        out.print(f"\nNot up: {', '.join(found.down)}")
    _show_orphans(found, out)
    paragraph(out, "Could not be told", list(found.problems))


def _table(found: Census) -> Any:
    from berth.output import table
    from berth.show.lifecycle import lasting, moment, usd

    numbers = ("Spent", "An hour")
    drawn = table("Stack", "Role", "What runs", "Since", *numbers, "Expires", right=numbers, wrap=("What runs",))
    for one in found.stacks:
        drawn.add_row(
            one.name + ("" if one.complete else " (incomplete)"),
            one.role or "?",
            _runs(one),
            lasting(found.at - one.since) if one.since else "?",
            f"{'≥ ' if one.spent.missing else ''}{usd(one.spent.usd)}" if one.spent is not None else "?",
            f"${one.per_hour:,.4f}" if one.per_hour is not None else "?",
            moment(one.expires_at) + (" OVERDUE" if one.overdue(found.at) else ""),
        )
    return drawn


def _runs(one: StackStatus) -> str:
    alive = [m for m in one.machines if m.alive]
    if alive:
        return ", ".join(f"{m.type} {m.state}" for m in alive)
    ended = [f"{m.type} {m.state}" for m in one.machines]
    return ", ".join(ended) or f"{one.resources} resources"


def _details(one: StackStatus, found: Census, sandbox: bool, drift: bool) -> list[str]:
    from berth.show.lifecycle import moment
    from infra.lifecycle.layers import agree

    option = sandbox_flag(sandbox)
    lines = [f"{m.id} ({m.type}) {m.state} since {moment(m.since)}" for m in one.machines]
    if one.address:
        lines.append(f"Address: {one.address}")
    if one.health is not None and one.role != "shared":
        lines.append(f"Health: {one.health.state}: {one.health.said}")
    if one.overdue(found.at):
        lines.append(f"Overdue: it expired at {moment(one.expires_at)} and lives; `berth down {one.name}{option}`")
    if one.role == "training" and not any(m.alive for m in one.machines) and one.per_hour is not None:
        lines.append(
            f"No machine of it lives. What is left of it costs ${one.per_hour:,.4f} an hour until somebody comes: "
            f"`berth train --attach {one.name}{option}` verifies its work and removes it, "
            f"`berth down {one.name}{option}` removes it"
        )
    if not agree(one.layers):
        said = "; ".join(f"{layer.kind} {layer.id} {moment(layer.at)}" for layer in one.layers)
        lines.append(f"The layers that end it disagree, the earliest is in force: {said}")
    if one.summary is not None and one.summary.busy:
        lines.append(f"Being changed by {one.summary.busy}")
    elif not one.complete:
        lines.append(
            f"Incomplete: a command broke off. `berth up {one.name}{option}` goes on, `berth down {one.name}{option}` "
            "removes it"
        )
    lines += [f"Watchdog: {line}" for line in one.watchdog]
    if one.drift is not None:
        lines += [f"Drift: {d.name} ({d.id}) {d.kind}{' in ' + ', '.join(d.keys) if d.keys else ''}" for d in one.drift]
        if not one.drift:
            lines.append("Drift: none")
    elif drift:
        lines.append("Drift: could not be looked for")
    if one.spent is not None and one.spent.unpriced:
        lines.append(f"Not in the amount, without a price: {', '.join(one.spent.unpriced)}")
    if one.spent is not None:
        lines += [f"Not in the amount, which is the least: {missing}" for missing in one.spent.missing]
        lines += [f"Counted at its most: {most}" for most in one.spent.most]
    return lines + [f"Not told: {problem}" for problem in one.problems]


def _show_orphans(found: Census, out: Any) -> None:
    if found.orphans is None:
        return
    if not found.orphans:
        out.print("\nOrphans: none")
        return
    out.print(f"\nOrphans: {len(found.orphans)} resources with the project's tag are in no stack's state.")
    for orphan in found.orphans:
        whose = f"stack {orphan.found.stack}" if orphan.found.stack else "no stack named"
        out.print(f"  {orphan.found.kind} {orphan.found.id} in {orphan.region} ({whose})", soft_wrap=True)
        for command in orphan.commands:
            out.print(f"    {command}", soft_wrap=True)


def _document(found: Census, engine: str, sandbox: bool, note: str) -> dict[str, Any]:
    from infra.durations import write_instant

    return {
        "at": write_instant(found.at),
        "sandbox": sandbox,
        "engine": engine or None,
        "note": note or None,
        "stacks": [_stack_json(one, found) for one in found.stacks],
        "down": list(found.down),
        "orphans": None if found.orphans is None else [o.to_json() for o in found.orphans],
        "problems": list(found.problems),
    }


def _stack_json(one: StackStatus, found: Census) -> dict[str, Any]:
    from infra.durations import write_instant

    return {
        "name": one.name,
        "role": one.role or None,
        "region": one.region,
        "complete": one.complete,
        "busy": (one.summary.busy or None) if one.summary is not None else None,
        "resources": one.resources,
        "since": write_instant(one.since) if one.since else None,
        "machines": [m.to_json() for m in one.machines],
        "address": one.address or None,
        "health": one.health.to_json() if one.health is not None else None,
        "spent": one.spent.to_json() if one.spent is not None else None,
        "usd_per_hour": None if one.per_hour is None else float(one.per_hour),
        "expires_at": write_instant(one.expires_at) if one.expires_at else None,
        "overdue": one.overdue(found.at),
        "layers": [layer.to_json() for layer in one.layers],
        "watchdog": list(one.watchdog),
        "drift": None if one.drift is None else [d.to_json() for d in one.drift],
        "problems": list(one.problems),
    }
