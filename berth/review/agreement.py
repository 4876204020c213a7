"""How sure a share is, and how far reviewers agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959964


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """The 95 % interval of a share (Wilson, 1927), which holds for small numbers too; None of no trials.

    `(p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n)`
    """
    if trials == 0:
        return None
    p, n = successes / trials, trials
    middle = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two reviewers over the answers that both judged: `observed` and `expected` agreement (shares) and Cohen's κ,
    None where chance alone would make them agree always."""

    items: int
    observed: float
    expected: float
    kappa: float | None


def cohen(first: Sequence[str], second: Sequence[str]) -> Agreement | None:
    """Cohen's κ (1960): `(p_o - p_e) / (1 - p_e)`, `p_e` the sum over labels of the product of both shares.

    `first` and `second` are the labels of the same items, in the same order. None where there are none.
    """
    n = len(first)
    if n != len(second):
        raise ValueError("both reviewers must have judged the same items")
    if n == 0:
        return None
    same = sum(a == b for a, b in zip(first, second, strict=True))
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[label] * theirs[label] for label in ours)
    kappa = None if chance == n * n else (same * n - chance) / (n * n - chance)
    return Agreement(n, same / n, chance / (n * n), kappa)
