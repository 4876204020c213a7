"""Which of EC2's quotas, counted in vCPUs, an instance type falls under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sizing.tables import read_rows

TABLE = Path(__file__).parent.parent / "quotas.csv"
COLUMNS = ("family", "prefixes", "market", "quota_code", "quota_name", "as_of", "source")
_CODE = re.compile(r"L-[0-9A-F]{8}")
MARKETS = ("on-demand", "spot")


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
def quotas(path: Path = TABLE) -> tuple[Quota, ...]:
    """Every quota of the table. Raises `UserError` with the line for one that is damaged."""
    found = []
    for row in read_rows(path, COLUMNS):
        code, market = row.text("quota_code"), row.text("market")
        if not _CODE.fullmatch(code):
            raise row.error("quota_code", f"'{code}' is no code of Service Quotas, such as L-DB2E81BA")
        if market not in MARKETS:
            raise row.error("market", f"'{market}' is neither {' nor '.join(MARKETS)}")
        row.date("as_of")
        row.text("source")
        found.append(Quota(code, row.text("quota_name"), market, tuple(row.text("prefixes").split("|"))))
    return tuple(found)


def quota_of(instance_type: str, market: str) -> Quota | None:
    """The quota of a type on the market `on-demand` or `spot`; None where the table has none."""
    found = [q for q in quotas() if q.market == market and q.counts(instance_type)]
    return found[0] if found else None
