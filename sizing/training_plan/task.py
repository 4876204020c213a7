"""What is to be trained: how many examples, how long, how often, in what batch; and what is wished of the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, get_args

from sizing.errors import UserError, unknown
from sizing.hardware.load import Hardware
from sizing.hardware.types import PAYS
from sizing.memory.training.setup import Method, Optimizer, Precision
from sizing.training_plan.lengths import Lengths

METHODS: tuple[Method, ...] = get_args(Method)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
BASE_DTYPES = ("int8", "nf4", "nf4-dq")
"""What `transformers.BitsAndBytesConfig` can hold frozen weights as (`sizing.dtypes`)."""
_LISTED = ", ".join(BASE_DTYPES)
CAPACITY_BLOCK = "capacity-block"
PAY_CHOICES: tuple[str, ...] = (*PAYS, "savings", CAPACITY_BLOCK, "best")
"""`best` is the cheapest of on demand, spot and Capacity Blocks: what needs no commitment beyond the run."""
DEFAULT_GLOBAL_BATCH = 64
"""Sequences an optimizer step, when none is given: Berth's assumption. Published fine-tunes use 16 to 128 (FLAN-T5-XXL
on 8 x 8: philschmid; Alpaca: 128)."""
MOST_NODES = 8
_LIMIT = 10**12


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """`epochs` may be a fraction. `global_batch`: sequences of one optimizer step over all GPUs."""

    examples: int
    lengths: Lengths
    epochs: float = 1.0
    global_batch: int = DEFAULT_GLOBAL_BATCH
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("examples", "global_batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LIMIT:
                raise UserError(f"{name.replace('_', '-')} is {value}; it must be a whole number from 1 to {_LIMIT:,}")
        if self.global_batch > 65_536:
            raise UserError(f"global-batch is {self.global_batch:,}; at most 65,536 sequences make a step")
        if not (math.isfinite(self.epochs) and 0 < self.epochs <= 10_000):
            raise UserError(f"epochs is {self.epochs:g}; it must be above 0 and at most 10,000")

    def steps(self, global_batch: int) -> int:
        """Optimizer steps of the whole run, as transformers' Trainer counts them."""
        return math.ceil(self.epochs * math.ceil(self.examples / global_batch))

    def to_json(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "epochs": self.epochs,
            "global_batch": self.global_batch,
            "input_tokens": self.lengths.input_tokens,
            "output_tokens": self.lengths.output_tokens,
            "mean_input_tokens": round(self.lengths.padded(1)[0], 1),
            "mean_output_tokens": round(self.lengths.padded(1)[1], 1),
        }


@dataclass(frozen=True, slots=True)
class TrainingWishes:
    """`methods`, `optimizers`: those compared. `precision` auto follows each GPU. `base_dtype`: how frozen weights are
    held (empty: 16 bit for lora and prompt, NF4 for qlora). Limits in hours and US dollars, at the likely estimate.
    `max_nodes` None: one machine, several only for a method that no single machine can run."""

    methods: tuple[Method, ...] = METHODS
    precision: str = "auto"
    optimizers: tuple[Optimizer, ...] = ("adamw",)
    region: str = "us-east-1"
    pay: str = "on-demand"
    max_hours: float | None = None
    max_usd: float | None = None
    max_nodes: int | None = None
    nodes: int | None = None
    """Exactly so many machines, whatever their network."""
    instance: str = ""
    """Only this instance type."""
    base_dtype: str = ""
    lora_rank: int = 16

    def __post_init__(self) -> None:
        named: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
            ("method", self.methods, METHODS),
            ("optimizer", self.optimizers, OPTIMIZERS),
        )
        for kind, given, known in named:
            if not given:
                raise UserError(f"no {kind} given; allowed: {', '.join(known)}")
            for name in given:
                if name not in known:
                    raise unknown(kind, name, known, f"allowed: any, {', '.join(known)}")
        if self.precision != "auto" and self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS, f"allowed: auto, {', '.join(PRECISIONS)}")
        if self.pay not in PAY_CHOICES:
            raise unknown("way of paying", self.pay, PAY_CHOICES)
        if self.base_dtype and self.base_dtype not in BASE_DTYPES:
            raise unknown("base dtype", self.base_dtype, BASE_DTYPES, f"bitsandbytes trains over {_LISTED}")
        for name, value in (("max-hours", self.max_hours), ("max-usd", self.max_usd)):
            if value is not None and not (math.isfinite(value) and 0 < value <= 1e9):
                raise UserError(f"{name} is {value:g}; it must be above 0 and at most 1,000,000,000")
        if self.max_nodes is not None and not 1 <= self.max_nodes <= 64:
            raise UserError(f"max-nodes is {self.max_nodes}; it must be a whole number from 1 to 64")
        if self.nodes is not None and not 1 <= self.nodes <= 64:
            raise UserError(f"nodes is {self.nodes}; it must be a whole number from 1 to 64")
        if not 1 <= self.lora_rank <= 65_536:
            raise UserError(f"lora-rank is {self.lora_rank}; it must be a whole number from 1 to 65,536")

    def regions(self, hardware: Hardware) -> tuple[str, ...]:
        """The regions compared. Raises `UserError` for one that is unknown or has no prices."""
        if self.region == "any":
            return hardware.priced_regions
        name = hardware.region(self.region)
        if name not in hardware.priced_regions:
            raise UserError(
                f"no prices are known for {name}; `berth catalog refresh --region {name}` fetches them, "
                f"or take one of {', '.join(hardware.priced_regions)}"
            )
        return (name,)

    def to_json(self) -> dict[str, Any]:
        return {
            "methods": list(self.methods),
            "precision": self.precision,
            "optimizers": list(self.optimizers),
            "region": self.region,
            "pay": self.pay,
            "max_hours": self.max_hours,
            "max_usd": self.max_usd,
            "max_nodes": self.max_nodes,
            "instance_type": self.instance or None,
            "base_dtype": self.base_dtype or None,
            "lora_rank": self.lora_rank,
        }


def chosen_of(text: str, known: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """`any` (or `auto`), one name, or several with commas between, as a tuple without repeats."""
    if text in ("any", "auto"):
        return known
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UserError(f"no {kind} given; allowed: any, {', '.join(known)}")
    for name in names:
        if name not in known:
            raise unknown(kind, name, known, f"allowed: any, {', '.join(known)}, or several with commas between")
    return names
