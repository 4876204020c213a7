"""A preview as one HTML file that needs nothing else: for a ticket, a review, an archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from infra.bill.lines import Line, cents
from infra.plan import PlannedResource
from infra.preview import Preview

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; } td:first-child, code { overflow-wrap: anywhere; }
tfoot td { font-weight: 600; } code { font-size: .9em; } .bad { color: #b3261e; } small { opacity: .75; }
@media (prefers-color-scheme: dark) { .bad { color: #ff8a80; } }
@media screen and (max-width: 40rem) { body { margin: 1rem auto; } table { font-size: .75em; }
  th, td { padding: .3rem .15rem; } }
"""


def render(preview: Preview) -> str:
    """The page. Everything from the stack stands in it escaped."""
    plan, bill = preview.plan, preview.bill
    until = f"until {bill.ends_at:%Y-%m-%d %H:%M} UTC" if bill.ends_at else "in a month without end"
    parts = [
        f"<h1>{escape(plan.stack)}</h1>",
        f"<p>{escape(plan.settings.role)} in {escape(plan.region)}, planned {plan.made_at:%Y-%m-%d %H:%M} UTC.</p>",
        f"<p><strong>${cents(bill.per_month):,.2f}</strong> a month, ${bill.per_hour:,.4f} an hour while all runs; "
        f"at worst <strong>${cents(bill.worst_case):,.2f}</strong> {until}.</p>",
        _list("Not allowed", [v.said for v in preview.refused], "bad"),
        _list("To consider", [v.said for v in preview.violations if v.level == "advisory"]),
        _list("Warnings", plan.warnings),
        "<h2>Bill</h2>",
        _bill(preview),
        _list("Unpriced", [f"{x.resource}: {x.item} ({x.note})" for x in bill.with_status("unpriced")], "bad"),
        _list(
            "Depends on use",
            [
                f"{x.resource}: {x.item}, ${x.rate} per {x.unit}"
                for x in bill.with_status("usage")
                if x.rate is not None
            ],
        ),
        _changes(preview),
        f"<h2>Resources ({sum(r.custom for r in plan.resources)})</h2>",
        _resources(plan.resources),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Preview of {escape(plan.stack)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(p for p in parts if p)
        + "\n</body></html>\n"
    )


def _list(title: str, items: Iterable[str], kind: str = "") -> str:
    found = [f"<li>{escape(item)}</li>" for item in items]
    if not found:
        return ""
    return f'<h2 class="{kind}">{escape(title)}</h2><ul>{"".join(found)}</ul>'


def _row(cells: Sequence[str], numbers: int, tag: str = "td") -> str:
    first = len(cells) - numbers
    return (
        "<tr>"
        + "".join(f"<{tag}{' class=n' if i >= first else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        + "</tr>"
    )


def _bill(preview: Preview) -> str:
    bill = preview.bill
    head = _row(["Resource", "What", "Price of", "Hour", "Month", "At worst"], 3, "th")
    body = "".join(_row(_cells(line, preview), 3) for line in bill.with_status("priced"))
    foot = _row(
        ["Sum", "", "", f"${bill.per_hour:,.4f}", f"${cents(bill.per_month):,.2f}", f"${cents(bill.worst_case):,.2f}"],
        3,
    )
    return _table(head, body, foot)


def _table(head: str, body: str, foot: str = "") -> str:
    """A table that scrolls in itself where the window is narrower than its numbers."""
    last = f"<tfoot>{foot}</tfoot>" if foot else ""
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody>{last}</table></div>'


def _cells(line: Line, preview: Preview) -> list[str]:
    worst = line.until(preview.bill.worst_hours)
    note = f"<br><small>{escape(line.note)}</small>" if line.note else ""
    return [
        escape(line.resource),
        escape(line.item) + note,
        f'<span title="{escape(line.source, quote=True)}">{escape(line.as_of)}</span>',
        "" if line.per_hour is None else f"${line.per_hour:,.4f}",
        "" if line.per_month is None else f"${cents(line.per_month):,.2f}",
        "" if worst is None else f"${cents(worst):,.2f}",
    ]


def _changes(preview: Preview) -> str:
    if preview.changes is None or preview.before is None:
        return ""
    rows = "".join(
        _row([escape(c.line.resource), escape(c.line.item), f"{cents(c.per_month):+,.2f}"], 1) for c in preview.changes
    )
    total = cents(preview.bill.per_month - preview.before.per_month)
    head, foot = _row(["Resource", "What", "USD a month"], 1, "th"), _row(["Sum", "", f"{total:+,.2f}"], 1)
    return f"<h2>Change</h2>{_table(head, rows, foot)}"


def _resources(resources: Iterable[PlannedResource]) -> str:
    rows = "".join(
        _row([escape(r.name), f"<code>{escape(r.type)}</code>", escape(", ".join(r.options))], 0)
        for r in resources
        if r.custom
    )
    return _table(_row(["Name", "Type", "Options"], 0, "th"), rows)
