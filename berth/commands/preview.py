"""`berth preview`: what a stack would be and cost, before anything exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.output import JsonOption, print_json

if TYPE_CHECKING:
    from decimal import Decimal

    from infra.preview import Preview

app = typer.Typer(add_completion=False, rich_markup_mode=None)

REFUSED = 3
"""Exit code where a policy refuses the plan."""


@app.command(
    epilog="Ends with exit code 3 where a policy refuses the plan. A usage file is YAML, one number a key; "
    "docs/infra.md lists the keys."
)
def preview(
    stack: Annotated[str, typer.Argument(help="The stack: the NAME of stacks/Pulumi.NAME.yaml.", show_default=False)],
    usage: Annotated[
        Path | None,
        typer.Option("--usage", metavar="FILE", help="Price traffic, storage and requests by this usage file."),
    ] = None,
    from_preview: Annotated[
        Path | None,
        typer.Option(
            "--from-preview",
            metavar="FILE",
            help="Price what `pulumi preview --json` wrote to this file, against what stands today.",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask pulumi what stands today: no CLI, no account, no network.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the preview to this HTML file as well.")
    ] = None,
    resources: Annotated[
        bool, typer.Option("--resources/--no-resources", help="List the resources before the bill.")
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Show what a stack would create and what that costs; nothing is changed.

    It needs no account and no network. Where a pulumi CLI is on PATH and the stack has a state, the bill is a
    difference: what this change adds and removes a month.
    """
    from infra.bill.lines import read_usage
    from infra.engine_preview import Standing, cli, standing
    from infra.preview import preview_stack
    from infra.stack_files import project_root

    def look(name: str) -> Standing:
        return Standing() if offline else standing(name, cli(project_root()))

    found = preview_stack(
        stack,
        usage=read_usage(usage) if usage else None,
        previewed=from_preview,
        look=look,
    )
    if html is not None:
        from infra.preview_page import render
        from infra.stack_files import write_text

        write_text(html, render(found))
    if json_output:
        print_json(found.to_json())
    else:
        show(found, resources)
        if html is not None:
            typer.echo(f"\nWritten to {html}")
    if found.refused:
        raise typer.Exit(REFUSED)


def _hour(amount: Decimal | None) -> str:
    return "" if amount is None else f"${amount:,.4f}"


def show(found: Preview, resources: bool) -> None:
    from berth.output import console, table
    from berth.show.lifecycle import moment, usd

    out, plan, bill = console(), found.plan, found.bill
    out.print(f"{plan.stack}: {plan.settings.role} in {plan.region}; expires: {moment(plan.expires_at)}\n")
    if resources:
        _show_resources(found, out)
    worst = "Worst case" if plan.expires_at else "Worst month"
    lines = table("Resource", "What", "Hour", "Month", worst, right=("Hour", "Month", worst), wrap=("Resource", "What"))
    for line in bill.with_status("priced"):
        lines.add_row(
            _short(line.resource, plan.stack),
            line.item,
            _hour(line.per_hour),
            usd(line.per_month),
            usd(line.until(bill.worst_hours)),
        )
    lines.add_section()
    lines.add_row("Sum", "", _hour(bill.per_hour), usd(bill.per_month), usd(bill.worst_case))
    out.print(lines)
    _show_rest(found, out)


def _short(name: str, stack: str) -> str:
    return name.removeprefix(f"{stack}-")


def _show_resources(found: Preview, out: Any) -> None:
    from berth.output import table
    from infra.lifecycle.engine import short_type

    plan = found.plan
    drawn = table("Component", "Resource", "Type", wrap=("Resource", "Type"))
    names = {r.urn: _short(r.name, plan.stack) for r in plan.resources}
    last = None
    for resource in sorted(plan.resources, key=lambda r: (names.get(r.parent, ""), r.type, r.name)):
        if not resource.custom:
            continue
        parent = names.get(resource.parent, "")
        flag = " (protected)" if resource.options.get("protect") else ""
        name = _short(resource.name, plan.stack) + flag
        drawn.add_row(parent if parent != last else "", name, short_type(resource.type))
        last = parent
    out.print(drawn)
    out.print(f"{sum(r.custom for r in plan.resources)} resources\n")


def _show_rest(found: Preview, out: Any) -> None:
    from berth.show.lifecycle import broken, paragraph
    from infra.bill.lines import cents

    plan, bill = found.plan, found.bill
    if bill.ends_at:
        out.print(
            f"\nWorst case: nothing stops before {bill.ends_at:%Y-%m-%d %H:%M} UTC, {bill.worst_hours:.1f} hours."
        )
    else:
        out.print("\nWorst month: everything at its maximum, never stopped; there is no expiry.")
    paragraph(
        out, "Notes", sorted({f"{x.item}: {x.note}" for x in bill.with_status("priced") if x.note and x.per_month})
    )
    paragraph(
        out, "Unpriced, not in the sum", [f"{x.resource}: {x.item}: {x.note}" for x in bill.with_status("unpriced")]
    )
    paragraph(
        out,
        "Depends on use, not in the sum (give a usage file)",
        sorted(
            {f"{x.item}: ${x.rate} per {x.unit} ({x.note.removeprefix('depends on ').removesuffix(' (--usage)')})"
             for x in bill.with_status("usage") if x.rate is not None}
        ),
    )  # fmt: skip
    dates = sorted({x.as_of for x in bill.with_status("priced") if x.as_of})
    if dates:
        out.print(
            f"\nPrices of {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "") + "; --json names their sources."
        )
    if found.changes is not None and found.before is not None:
        paragraph(
            out,
            f"Change: {cents(bill.per_month - found.before.per_month):+,.2f} USD a month",
            [f"{c.line.resource}: {c.line.item}: {cents(c.per_month):+,.2f}" for c in found.changes] or ["none"],
        )
    if found.compared:
        out.print(f"\nCompared: {found.compared}.", soft_wrap=True)
    paragraph(out, "Warnings", list(plan.warnings))
    paragraph(out, "Refused by policy", [broken(v) for v in found.refused])
    paragraph(out, "To consider", [broken(v) for v in found.violations if v.level == "advisory"])
    if not found.refused:
        out.print("\nAll policies pass.")
