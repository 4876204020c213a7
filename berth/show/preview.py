"""A stack's preview for a person to read: resources, bill, what changes, what the policies say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from berth.output import console, table
from berth.show.lifecycle import moment, paragraph, usd
from infra.bill.lines import cents
from infra.lifecycle.engine import short_type

if TYPE_CHECKING:
    from decimal import Decimal

    from infra.preview import Preview


def _hour(amount: Decimal | None) -> str:
    return "" if amount is None else f"${amount:,.4f}"


def show_preview(found: Preview, *, resources: bool) -> None:
    """Print the bill, what is unpriced, warnings and policies, and first the resources if wanted."""
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
    plan, bill = found.plan, found.bill
    if bill.ends_at:
        out.print(f"\nWorst case: nothing stops before {moment(bill.ends_at)}, {bill.worst_hours:.1f} hours.")
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
    paragraph(out, "Refused by policy", [v.said for v in found.refused])
    paragraph(out, "To consider", [v.said for v in found.violations if v.level == "advisory"])
    if not found.refused:
        out.print("\nAll policies pass.")
