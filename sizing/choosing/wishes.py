"""What a person wants of the machine, apart from the work: region, way of paying, limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizing.errors import UserError, unknown
from sizing.hardware.load import Hardware
from sizing.hardware.types import PAYS, Pay
from sizing.memory.loading import DEFAULT_WAY, loading_way
from sizing.models.facts import ModelFacts
from sizing.throughput.tables import engine_names

PAY_CHOICES: tuple[str, ...] = (*PAYS, "savings", "best")
"""`savings` is the one-year plan, the lesser commitment; `best` is the cheapest of all that are priced."""
SERVED_ENGINES = ("transformers", "vllm")
"""What Berth's handler runs, and the stock path of the LMI containers."""
ANY_REGION = "any"


def check_engine(model: ModelFacts, engine: str) -> None:
    """Raise `UserError` where `engine` does not serve the model's architecture.

    vLLM dropped every encoder-decoder but Whisper (vllm-project/vllm: supported models), and what it makes of encoders
    (pooling) is no text that a request for tokens gets.
    """
    if engine == "vllm" and model.architecture != "decoder-only":
        raise UserError(f"vLLM serves decoder-only models; {model.name} is {model.architecture}: --engine transformers")


@dataclass(frozen=True, slots=True)
class Wishes:
    """`dtype` auto follows each GPU; `region` any compares all that are priced; limits in US dollars and GPUs."""

    dtype: str = "auto"
    region: str = "us-east-1"
    pay: str = "on-demand"
    max_monthly_usd: float | None = None
    max_gpus: int = 1
    loading: str = ""
    """How weights are read; empty: as the engine does it (vLLM reads safetensors memory-mapped)."""
    engine: str = "transformers"

    def __post_init__(self) -> None:
        if not self.loading:
            object.__setattr__(self, "loading", "mmap" if self.engine == "vllm" else DEFAULT_WAY)
        if self.pay not in PAY_CHOICES:
            raise unknown("way of paying", self.pay, PAY_CHOICES)
        if self.dtype != "auto":
            from sizing.dtypes import dtype

            dtype(self.dtype)
        if self.engine not in SERVED_ENGINES:
            raise unknown("engine", self.engine, SERVED_ENGINES, f"speeds are known of {', '.join(engine_names())}")
        loading_way(self.loading)
        if not isinstance(self.max_gpus, int) or not 1 <= self.max_gpus <= 64:
            raise UserError(f"max-gpus is {self.max_gpus}; it must be a whole number from 1 to 64")
        limit = self.max_monthly_usd
        if limit is not None and not (math.isfinite(limit) and 0 < limit <= 1e9):
            raise UserError(
                f"max-monthly is {limit:g}; it must be an amount in US dollars above 0, at most 1,000,000,000"
            )

    def regions(self, hardware: Hardware) -> tuple[str, ...]:
        """The regions compared. Raises `UserError` for one that is unknown or has no prices."""
        if self.region == ANY_REGION:
            return hardware.priced_regions
        name = hardware.region(self.region)
        if name not in hardware.priced_regions:
            raise UserError(
                f"no prices are known for {name}; `berth catalog refresh --region {name}` fetches them, "
                f"or take one of {', '.join(hardware.priced_regions)}"
            )
        return (name,)

    def pays(self, latency_promised: bool) -> tuple[Pay, ...]:
        """The ways of paying compared. `best` leaves spot out when a latency is promised: it can be taken away."""
        if self.pay == "best":
            return tuple(p for p in PAYS if not (latency_promised and p == "spot"))
        if self.pay == "savings":
            return ("savings-1y",)
        return tuple(p for p in PAYS if p == self.pay)
