"""What a family builder returns, and the small vocabulary builders share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sizing.errors import UserError
from sizing.models.facts import Architecture, Kind, Part, Shard, Stack, Tensor

Config = Mapping[str, Any]
"""The keys of a `config.json`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A model's tensors and shape as its config says; names and licence are the catalogue's."""

    architecture: Architecture
    tensors: tuple[Tensor, ...]
    vocab_size: int
    context_window: int | None
    tied_embeddings: bool
    encoder: Stack | None = None
    decoder: Stack | None = None
    notes: tuple[str, ...] = ()

    @property
    def params(self) -> int:
        return sum(t.numel for t in self.tensors)


def positive_int(config: Config, key: str, *fallbacks: str, default: int | None = None) -> int:
    """The whole number `config[key]` (or the first of `fallbacks` that is there). Raises `UserError` naming the key."""
    for name in (key, *fallbacks):
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"config.json: '{name}' is {value!r}; it must be a whole number of at least 1")
        return value
    if default is not None:
        return default
    raise UserError(f"config.json lacks '{key}'; a model's shape cannot be read without it")


class Tensors:
    """Collects tensors in order; `linear` and `norm` add the bias beside the weight."""

    def __init__(self) -> None:
        self.items: list[Tensor] = []

    def add(
        self,
        name: str,
        shape: tuple[int, ...],
        count: int = 1,
        *,
        part: Part = "decoder",
        kind: Kind = "linear",
        shard: Shard = "none",
        layered: bool = True,
        expert: bool = False,
        keep_fp32: bool = False,
        tied_to: str = "",
    ) -> None:
        if count:
            self.items.append(Tensor(name, shape, count, part, kind, shard, layered, expert, keep_fp32, tied_to))

    def linear(
        self,
        name: str,
        out_features: int,
        in_features: int,
        count: int = 1,
        *,
        bias: bool = False,
        part: Part = "decoder",
        shard: Shard = "none",
        layered: bool = True,
        expert: bool = False,
        keep_fp32: bool = False,
    ) -> None:
        """A linear layer: weight [out_features, in_features], and its bias where it has one."""
        kept = {"part": part, "layered": layered, "expert": expert, "keep_fp32": keep_fp32}
        self.add(f"{name}.weight", (out_features, in_features), count, shard=shard, **kept)  # type: ignore[arg-type]
        if bias:
            bias_shard: Shard = shard if shard == "column" else "none"
            self.add(f"{name}.bias", (out_features,), count, kind="bias", shard=bias_shard, **kept)  # type: ignore[arg-type]

    def norm(
        self, name: str, size: int, count: int = 1, *, bias: bool = False, part: Part = "decoder", layered: bool = True
    ) -> None:
        self.add(f"{name}.weight", (size,), count, kind="norm", part=part, layered=layered)
        if bias:
            self.add(f"{name}.bias", (size,), count, kind="norm", part=part, layered=layered)

    def done(self) -> tuple[Tensor, ...]:
        return tuple(self.items)
