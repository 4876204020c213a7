"""A cheaper machine that a leaner way of loading would open, beside the choice that does without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sizing.choosing.fit import LEAN_LOADING
from sizing.choosing.refusal import Refusal
from sizing.choosing.wishes import Wishes
from sizing.hardware.load import Hardware

LEAN_HOLDS = {
    "transformers": "the weights are safetensors and from_pretrained of transformers 4.57 or 5 reads them, as Berth's "
    "handler does",
    "vllm": "the weights are safetensors",
}
"""By engine: what has to hold for `LEAN_LOADING`. The versions are those of the rows in
`sizing/memory/data/loading_measured.csv`; 4.28 took twice as much."""
SOURCE = "docs/loading.md"
LEAST_SAVING_USD = 0.01
"""A month: below a cent prices are the same."""


@dataclass(frozen=True, slots=True)
class Leaner:
    """The machine that would be chosen if weights were read as `loading`. Costs are US dollars, all hosts together."""

    loading: str
    instance_type: str
    region: str
    pay: str
    gpu: str
    dtype: str
    hosts: int
    usd_per_month: float
    saves_usd_per_month: float
    """What the choice costs more a month: always above 0."""
    host_bytes: int
    """System RAM that loading takes then, in bytes, as likely."""
    usable_bytes: int
    """What of that machine's RAM can be used, in bytes."""
    holds_where: str

    def to_json(self) -> dict[str, Any]:
        return {
            "loading": self.loading,
            "instance_type": self.instance_type,
            "region": self.region,
            "pay": self.pay,
            "gpu": self.gpu,
            "dtype": self.dtype,
            "hosts": self.hosts,
            "usd_per_month": round(self.usd_per_month, 2),
            "saves_usd_per_month": round(self.saves_usd_per_month, 2),
            "host_bytes": self.host_bytes,
            "usable_bytes": self.usable_bytes,
            "holds_where": self.holds_where,
        }

    @property
    def line(self) -> str:
        """In one line: the machine, what it costs and saves, and what has to hold."""
        hosts = f"{self.hosts:,} × " if self.hosts > 1 else ""
        return (
            f"Cheaper with --loading {self.loading}: {hosts}{self.instance_type} ({self.gpu}, {self.dtype}) in "
            f"{self.region}, {self.pay}: ${self.usd_per_month:,.2f} a month, ${self.saves_usd_per_month:,.2f} less; "
            f"where {self.holds_where} ({SOURCE})"
        )


def could_open(hardware: Hardware, wishes: Wishes, refused: list[Refusal]) -> Hardware | None:
    """The catalogue of those types on which leaner loading changes anything; None where there are none.

    They are what system RAM refused, and machines of several GPUs, where it may have ruled out one of their layouts
    alone.
    """
    if wishes.loading in (LEAN_LOADING, "convert"):  # one call: see `sizing.memory.loading`
        return None
    short = {r.instance_type for r in refused if r.kind == "system RAM"}
    opened = {n: i for n, i in hardware.instances.items() if n in short or 1 < i.gpus <= wishes.max_gpus}
    return replace(hardware, instances=opened, _offers={}) if opened else None
