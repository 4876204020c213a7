"""By when the machine must be gone, and until when the job may save."""

from __future__ import annotations

from model_runtime.watch.clock import Clock, Expiry
from model_runtime.watch.limits import Limits

_SAVING_SHARE = 0.4


def hard_left(expiry: Expiry, limits: Limits, clock: Clock, since: float, spot_until: float | None) -> float:
    """Seconds until the machine halts, whatever is not in S3. `since`: when stopping began, `spot_until`: when AWS
    takes the machine, both by the monotonic clock.

    A wall clock that jumps forward may be wrong: it ends the job, but leaves `rescue_s` to bring its work to S3.
    """
    rescue = since + limits.rescue_s - clock.monotonic()
    left = min(
        expiry.left_monotonic(clock) + limits.margin_s,
        max(expiry.left(clock) + limits.margin_s, rescue),
    )
    return left if spot_until is None else min(left, spot_until - clock.monotonic())


def saving_s(left: float, limits: Limits, *, spot: bool) -> float:
    """Seconds that the job has for a last checkpoint when `left` remain until the machine must be gone."""
    kept = limits.spot_reserve_s if spot else limits.margin_s + limits.reserve_s
    return max(0.0, min(limits.grace_s, max(left - kept, _SAVING_SHARE * left)))
