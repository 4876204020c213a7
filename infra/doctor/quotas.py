"""Which of EC2's quotas, counted in vCPUs, an instance type falls under."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).parent.parent / "quotas.csv"


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of Service Quotas' service `ec2`. `prefixes` are those of the families that it counts."""

    code: str
    name: str
    market: str
    prefixes: tuple[str, ...]

    def counts(self, instance_type: str) -> bool:
        """Whether an instance of the type uses the quota: its family begins with a prefix, then a digit or the end."""
        family = instance_type.split(".", maxsplit=1)[0]
        letters = re.match(r"[a-z]+", family)
        return any(
            family == p or (letters is not None and letters[0] == p) or (p[-1].isdigit() and family.startswith(p))
            for p in self.prefixes
        )


@cache
def quotas() -> tuple[Quota, ...]:
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Quota(row["quota_code"], row["quota_name"], row["market"], tuple(row["prefixes"].split("|")))
            for row in csv.DictReader(file)
        )


def quota_of(instance_type: str, market: str) -> Quota | None:
    """The quota of a type on the market `on-demand` or `spot`; None where the table has none."""
    found = [q for q in quotas() if q.market == market and q.counts(instance_type)]
    return found[0] if found else None
