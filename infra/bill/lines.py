"""A line of a bill, and the usage file that turns rates by the gigabyte into dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal

from infra.stack_files import load_yaml, plain
from sizing.errors import UserError, unknown
from sizing.units import HOURS_PER_MONTH

MONTH = Decimal(str(HOURS_PER_MONTH))
CENT = Decimal("0.01")
Status = Literal["priced", "usage", "unpriced", "free"]
"""priced: counts. usage: depends on use that no usage file gives. unpriced: no price is known. free: costs nothing."""


def cents(amount: Decimal) -> Decimal:
    """Rounded half up to the cent, as invoices are."""
    return amount.quantize(CENT, ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Line:
    """One priced part of one resource; amounts in US dollars.

    `per_hour` while it runs; `per_month` on average (office hours and usage counted in); `worst_per_hour` if it never
    stops and, for spot, costs as much as on demand.
    """

    resource: str
    type: str
    item: str
    status: Status
    quantity: Decimal = Decimal(1)
    unit: str = ""
    rate: Decimal | None = None
    per_hour: Decimal | None = None
    per_month: Decimal | None = None
    worst_per_hour: Decimal | None = None
    as_of: str = ""
    source: str = ""
    note: str = ""

    def until(self, hours: Decimal) -> Decimal | None:
        """The most that it costs in `hours`."""
        return None if self.worst_per_hour is None else self.worst_per_hour * hours

    def to_json(self) -> dict[str, Any]:
        def number(value: Decimal | None) -> float | None:
            return None if value is None else float(value)

        return {
            "resource": self.resource,
            "type": self.type,
            "item": self.item,
            "status": self.status,
            "quantity": number(self.quantity),
            "unit": self.unit,
            "usd_per_unit": number(self.rate),
            "usd_per_hour": number(self.per_hour),
            "usd_per_month": None if self.per_month is None else float(cents(self.per_month)),
            "as_of": self.as_of or None,
            "source": self.source or None,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """A key of the usage file."""

    key: str
    unit: str
    help: str


USAGE_KEYS: tuple[Known, ...] = (
    Known("artifact_storage_gb", "GB", "stored in the artifact bucket"),
    Known("artifact_put_requests", "requests", "PUT, COPY, POST and LIST requests to S3 a month"),
    Known("log_gb", "GB", "written to all log groups a month"),
    Known("log_stored_gb", "GB", "kept in all log groups"),
    Known("image_storage_gb", "GB", "kept in the image repository"),
    Known("kms_requests", "requests", "to KMS a month"),
    Known("nat_gb", "GB", "through the NAT gateway a month"),
    Known("endpoint_gb", "GB", "through each interface endpoint a month"),
    Known("load_balancer_capacity_units", "LCU", "of the load balancer on average"),
    Known("internet_out_gb", "GB", "sent to the internet a month"),
    Known("between_zones_gb", "GB", "sent between zones a month"),
    Known("custom_metrics", "metrics", "that hosts send to CloudWatch (names times dimensions)"),
    Known("email_notifications", "mails", "sent by SNS a month"),
    Known("endpoint_hours", "hours", "that an asynchronous endpoint's instances run a month, all together"),
    Known("hours_per_month", "hours", "that machines without office hours run a month"),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What is used a month, by key; a key that is not given is not known."""

    values: Mapping[str, Decimal] = field(default_factory=dict)

    def get(self, key: str) -> Decimal | None:
        return self.values.get(key)


def read_usage(path: Path) -> Usage:
    """The usage file (YAML, one number a key). Raises `UserError` for a key or number that is none."""
    known = {k.key: k for k in USAGE_KEYS}
    values: dict[str, Decimal] = {}
    for key, value in plain(load_yaml(path)).items():
        if key not in known:
            raise unknown(f"key of {path.name}", key, known, f"known: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise UserError(f"{path}: {key} is {value}; it must be a number of {known[key].unit}, 0 or more")
        values[key] = Decimal(str(value))
    return Usage(values)
