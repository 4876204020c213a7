"""AWS's own clock: what a machine's life is decided by, whatever the clock of this computer says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from infra.cloud import Cloud, asking_aws
from infra.resolve import now

WORTH_SAYING = timedelta(seconds=60)


def cloud_clock(
    cloud: Cloud, local: Callable[[], datetime] = now, say: Callable[[str], None] = lambda _: None
) -> Callable[[], datetime]:
    """The local clock set right by the moment that AWS's answers bear (the header Date, RFC 9110), which is asked once.

    A difference of more than a minute is said. Raises `UserError` where AWS cannot be asked.
    """
    with asking_aws("to tell the time"):
        answer = cloud.client("sts").get_caller_identity()
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return local
    off = moment.astimezone(UTC) - local()
    if abs(off) <= timedelta(seconds=2):  # the header counts whole seconds
        return local
    if abs(off) > WORTH_SAYING:
        minutes = abs(off).total_seconds() / 60
        where = "behind" if off > timedelta(0) else "ahead of"
        say(f"This computer's clock is {minutes:,.0f} minutes {where} AWS's; AWS's is taken.")
    return lambda: local() + off
