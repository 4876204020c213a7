"""One part of memory carried from where it was measured to where it is asked for.

A part is measured (`m` bytes) and estimated (`e0`) at the same batches of one shape, and estimated (`e`) where it is
asked for. Then:

- at a measured batch of the same shape it is `m`;
- between two measured batches of the same shape it is `e` plus what was measured over the estimate, in proportion;
- elsewhere it is `max(e + m - e0, e * m / e0)` by the nearest measured batch: what exceeded the estimate grows with the
  formula, what fell short of it does not.

So an estimate that was right stays as it is, more bytes measured never give fewer, and nothing is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """A part at one measured batch, in bytes."""

    batch: int
    measured: int
    estimated: int


def carried(estimated: int, batch: int, seen: Sequence[Seen], *, same_shape: bool) -> int:
    """Bytes of the part at `batch`, where its formula gives `estimated`. `seen` is in ascending order of batch.

    `same_shape`: the requests have the lengths of those that were measured.
    """
    if not seen:
        return estimated
    if not same_shape:
        return _from(estimated, seen[-1])
    below = [s for s in seen if s.batch <= batch]
    above = [s for s in seen if s.batch >= batch]
    if not below or not above:
        return _from(estimated, below[-1] if below else above[0])
    low, high = below[-1], above[0]
    if low.batch == high.batch:
        return low.measured
    share = (batch - low.batch) / (high.batch - low.batch)
    more = (1 - share) * (low.measured - low.estimated) + share * (high.measured - high.estimated)
    return max(0, estimated + round(more))


def _from(estimated: int, seen: Seen) -> int:
    shifted = estimated + seen.measured - seen.estimated
    scaled = round(estimated * seen.measured / seen.estimated) if seen.estimated else 0
    return max(0, shifted, scaled)
