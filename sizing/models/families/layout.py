"""What a family builder returns, and the small vocabulary builders share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


LIMIT = 10_000_000
"""No width, vocabulary or context of a published model comes near it; a larger figure is a slip of the keyboard."""
LAYER_LIMIT = 10_000


def positive_int(
    config: Config, key: str, *fallbacks: str, default: int | None = None, limit: int = LIMIT, least: int = 1
) -> int:
    """The whole number `config[key]` (or the first of `fallbacks` that is there), within `least`..`limit`.

    Raises `UserError` naming the key when it is absent without a `default`, of another type, or out of range.
    """
    for name in (key, *fallbacks):
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"config.json: '{name}' is {shown(value)}; it must be a whole number of at least {least}")
        if value > limit:
            raise UserError(f"config.json: '{name}' is {value:,}; no model goes beyond {limit:,}")
        return value
    if default is not None:
        return default
    raise UserError(f"config.json lacks '{key}'; a model's shape cannot be read without it")


def layer_count(config: Config, key: str, *fallbacks: str, default: int | None = None) -> int:
    """Layers of a stack, 1..10,000."""
    return positive_int(config, key, *fallbacks, default=default, limit=LAYER_LIMIT)


def probability(config: Config, key: str, *fallbacks: str, default: float = 0.0) -> float:
    """A dropout probability in 0..1; `default` where the config is silent."""
    for name in (key, *fallbacks):
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"config.json: '{name}' is {shown(value)}; it must be a probability between 0 and 1")
        return float(value)
    return default


def flag(config: Config, key: str, default: bool = False) -> bool:
    """A true/false switch of the config."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f"config.json: '{key}' is {shown(value)}; it must be true or false")
    return value


def text(config: Config, key: str, default: str) -> str:
    """A word of the config, such as an activation's name."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise UserError(f"config.json: '{key}' is {shown(value)}; it must be a word")
    return value


def section(config: Config, key: str) -> Config:
    """A nested object of the config (`text_config`, `attn_config`)."""
    value = config.get(key)
    if not isinstance(value, Mapping):
        raise UserError(f"config.json: '{key}' is {shown(value)}; it must be an object")
    return value


def shown(value: object) -> str:
    """`value` for an error message: short, on one line."""
    written = " ".join(repr(value).split())
    return written if len(written) <= 40 else f"{written[:37]}..."


def head_dim_of(config: Config, hidden: int, heads: int) -> int:
    """Elements of one attention head: `head_dim`, else the hidden size shared out evenly."""
    if config.get("head_dim") is not None:
        return positive_int(config, "head_dim")
    if hidden % heads:
        raise UserError(f"config.json: a hidden size of {hidden} cannot be shared out over {heads} attention heads")
    return hidden // heads


def check_groups(heads: int, kv_heads: int) -> None:
    """Grouped-query attention gives every key-value head the same number of query heads."""
    if heads % kv_heads:
        raise UserError(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads")


def check_experts(chosen: int, experts: int) -> None:
    """A token cannot be sent to more experts than a layer has."""
    if chosen > experts:
        raise UserError(f"config.json: {chosen} experts a token, of {experts}")


def class_name(config: Config) -> str:
    """The transformers class whose tensors the checkpoint holds, empty where it is not said.

    `architectures` says it; the catalogue's own key `checkpoint_class` goes before it where a checkpoint holds more
    heads than the class it names.
    """
    if config.get("checkpoint_class") is not None:
        return text(config, "checkpoint_class", "")
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return ""


def label_count(config: Config) -> int:
    """Classes of a classification head: `num_labels`, else as many as `id2label` names, else transformers' 2."""
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and labels:
        return len(labels)
    return positive_int(config, "num_labels", default=2)


def output_head(
    t: Tensors, config: Config, vocab: int, hidden: int, *, embedding: str, tied: bool, bias: bool = False
) -> None:
    """What stands on a decoder: the language-model head, a classifier (`…ForSequenceClassification`), or nothing.

    `embedding` is the tensor whose storage a tied head shares.
    """
    kind = class_name(config)
    if kind.endswith("ForSequenceClassification"):
        t.linear("score", label_count(config), hidden, part="head", layered=False)
        return
    if kind.endswith("Model") and not kind.endswith("LMHeadModel"):
        return
    t.add(
        "lm_head.weight",
        (vocab, hidden),
        part="head",
        shard="vocab",
        layered=False,
        tied_to=embedding if tied else "",
    )
    if bias:
        t.add("lm_head.bias", (vocab,), part="head", kind="bias", shard="vocab", layered=False)


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
        bare: bool = False,
        tied_to: str = "",
    ) -> None:
        """`count` tensors of `shape`. An expert is `bare`: transformers 5 stacks a layer's experts in one parameter."""
        if count:
            held_apart = bare or expert
            self.items.append(
                Tensor(name, shape, count, part, kind, shard, layered, expert, keep_fp32, held_apart, tied_to)
            )

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
        bare: bool = False,
    ) -> None:
        """A linear layer: weight [out_features, in_features], and its bias where it has one."""
        kept = {"part": part, "layered": layered, "expert": expert, "keep_fp32": keep_fp32, "bare": bare}
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

    def gated_mlp(
        self,
        block: str,
        width: int,
        hidden: int,
        count: int = 1,
        *,
        names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
        bias: bool = False,
        expert: bool = False,
    ) -> None:
        """Gate and up [width, hidden], and down [hidden, width]."""
        gate, up, down = names
        for name in (gate, up):
            self.linear(f"{block}.{name}", width, hidden, count, bias=bias, shard="column", expert=expert)
        self.linear(f"{block}.{down}", hidden, width, count, bias=bias, shard="row", expert=expert)

    def mixture(
        self,
        block: str,
        router: str,
        experts: int,
        width: int,
        hidden: int,
        layers: int,
        *,
        names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
    ) -> None:
        """In each of `layers` a router and `experts` gated MLPs of `width`.

        transformers 5 holds the router as a bare parameter, which no quantizer turns.
        """
        self.add(f"{block}.{router}.weight", (experts, hidden), layers, kind="other")
        self.gated_mlp(f"{block}.experts", width, hidden, layers * experts, names=names, expert=True)

    def done(self) -> tuple[Tensor, ...]:
        return tuple(self.items)
