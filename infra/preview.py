"""Everything that `berth preview` shows of a stack, as one value: plan, bill, change, what the policies find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.bill.bill import Bill, Change, bill_of, difference
from infra.bill.lines import Usage, cents
from infra.engine_preview import Standing
from infra.plan import ACCOUNT, Plan, from_preview, plan_stack
from infra.policy.rules import check
from infra.policy.subject import Subject, Violation
from infra.resolve import now
from infra.settings import Settings


@dataclass(frozen=True, slots=True)
class Preview:
    """`changes` and `before` are None where nothing is known of what stands today."""

    plan: Plan
    bill: Bill
    violations: tuple[Violation, ...]
    before: Bill | None = None
    changes: tuple[Change, ...] | None = None
    compared: str = ""
    """In words: what the bill is compared with, or why with nothing. Empty where nobody was asked."""

    @property
    def refused(self) -> list[Violation]:
        """What must be mended before an `up`."""
        return [v for v in self.violations if v.level == "mandatory"]

    def to_json(self) -> dict[str, Any]:
        plan, settings = self.plan, self.plan.settings
        document: dict[str, Any] = {
            "stack": plan.stack,
            "role": settings.role,
            "region": plan.region,
            "made_at": plan.made_at.isoformat(),
            "expires_at": plan.expires_at.isoformat() if plan.expires_at else None,
            "account": ACCOUNT,
            "settings": settings.model_dump(mode="json") if isinstance(settings, Settings) else {},
            "warnings": list(plan.warnings),
            "resources": [r.to_json() for r in plan.resources],
            "outputs": plan.outputs,
            "bill": self.bill.to_json(),
            "violations": [v.to_json() for v in self.violations],
            "compared": self.compared or None,
            "change": None,
        }
        if self.changes is not None and self.before is not None:
            document["change"] = {
                "usd_per_month_before": float(cents(self.before.per_month)),
                "usd_per_month_after": float(cents(self.bill.per_month)),
                "usd_per_month": float(cents(self.bill.per_month - self.before.per_month)),
                "lines": [c.to_json() for c in self.changes],
            }
        return document


def preview_stack(
    name: str,
    root: Path | None = None,
    *,
    usage: Usage | None = None,
    previewed: Path | None = None,
    look: Callable[[str], Standing] = lambda _: Standing(),
    clock: Callable[[], datetime] = now,
) -> Preview:
    """Plan, price and check the stack `name`.

    With `previewed`, a file of `pulumi preview --json`, the resources are those of the engine, and the bill is
    compared with what stands today. Otherwise `look` is asked what stands, by default nobody (`engine_preview.standing`
    asks the CLI). Raises `UserError` for wrong settings and files.
    """
    plan = plan_stack(name, root, clock=clock)
    if previewed is not None:
        before, after = from_preview(previewed, name)
        found = Standing(before, after, f"pulumi's preview in {previewed}, against the state")
    else:
        found = look(name)
    if found.after is not None:
        plan = replace(plan, resources=found.after)
    bill, violations = bill_of(plan, usage=usage), tuple(check(Subject.of_plan(plan)))
    if found.before is None:
        return Preview(plan, bill, violations, compared=found.said)
    old = bill_of(plan, usage=usage, resources=found.before)
    return Preview(plan, bill, violations, old, tuple(difference(old, bill)), found.said)
