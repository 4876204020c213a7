"""Which plans no other beats: the Pareto front of hours against dollars."""

from __future__ import annotations

from collections.abc import Iterable

from sizing.training_plan.plan import Plan
from sizing.training_plan.task import METHODS


def cost_order(plan: Plan) -> tuple[float, float, int, str]:
    """Cheapest first; then fastest, fewest machines, by name."""
    return plan.usd.likely, plan.hours, plan.nodes, plan.instance.name


NEAR = 1.01
"""Costs within a hundredth are alike: no estimate tells them apart."""


def preferred(plans: Iterable[Plan]) -> list[Plan]:
    """`plans` without those that, on the same machines, cost about as much as one that trains more of the model."""
    rank = {method: i for i, method in enumerate(METHODS)}
    kept = list(plans)
    by_machine: dict[tuple[str, int], list[Plan]] = {}
    for plan in kept:
        by_machine.setdefault((plan.instance.name, plan.nodes), []).append(plan)
    return [
        plan
        for plan in kept
        if not any(
            rank[other.setup.method] < rank[plan.setup.method] and other.usd.likely <= NEAR * plan.usd.likely
            for other in by_machine[plan.instance.name, plan.nodes]
        )
    ]


def front_of(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The plans that none beats in hours without costing more (or in cost without taking longer), fastest first."""
    best: list[Plan] = []
    for plan in sorted(plans, key=lambda p: (p.hours, *cost_order(p))):
        if not best or plan.usd.likely < best[-1].usd.likely:
            best.append(plan)
    return tuple(best)
