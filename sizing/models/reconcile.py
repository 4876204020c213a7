"""A config says what a model should hold, the safetensors headers what it holds: the two are brought together here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sizing.errors import UserError
from sizing.models.facts import Tensor
from sizing.models.families.layout import Config, Layout
from sizing.models.stored import Stored

Shape = tuple[int, ...]
_BUFFER_NAMES = (
    "inv_freq",
    "masked_bias",
    "position_ids",
    "final_logits_bias",
    "e_score_correction_bias",
    "cos_cached",
    "sin_cached",
    "embed_positions.weights",
)
"""Ends of names of what transformers keeps beside the parameters: masks, frequencies, computed tables."""


def is_buffer(tensor: Stored) -> bool:
    """Not a parameter: counters and masks, by type, by name, or (GPT-2, GPT-NeoX `attn.bias`) by four dimensions."""
    return (
        not tensor.floating
        or tensor.name.endswith(_BUFFER_NAMES)
        or (tensor.name.endswith(("attn.bias", "attention.bias")) and len(tensor.shape) == 4)
    )


def unnumbered(name: str) -> str:
    """`name` without layer and expert numbers: `model.layers.self_attn.q_proj.weight`."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def _is_expert(name: str) -> bool:
    return re.search(r"(^|\.)experts(\.|$)", name) is not None


def _layer(name: str) -> int | None:
    """The first number in a name, its layer."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _canonical(shape: Sequence[int]) -> Shape:
    """A shape whichever way a matrix lies (GPT-2 stores [in, out])."""
    return tuple(sorted(shape))


def _predicted(config: Config, layout: Layout, stored: Sequence[Stored]) -> list[Stored]:
    """`stored` without the layers for multi-token prediction, which stand behind the model's own (DeepSeek V3)."""
    if not config.get("num_nextn_predict_layers") or layout.decoder is None:
        return list(stored)
    return [t for t in stored if (_layer(t.name) or 0) < layout.decoder.layers]


def _difference(layout: Layout, stored: Sequence[Stored]) -> str:
    """The first tensor that config and files have alike in name and unlike in shape or number, in words."""
    held: dict[str, list[Stored]] = {}
    for tensor in stored:
        held.setdefault(unnumbered(tensor.name), []).append(tensor)
    for t in layout.tensors:
        # Checkpoints of a bare model leave the first part of the name out.
        found = held.get(t.name) or held.get(t.name.split(".", 1)[-1])
        if not found or t.tied_to:
            continue
        if _canonical(found[0].shape) != _canonical(t.shape):
            return f"; '{t.name}' is {list(t.shape)} by the config and {list(found[0].shape)} in the files"
        if len(found) != t.count:
            return f"; '{t.name}' is there {t.count} times by the config and {len(found)} times in the files"
    return ""


def _disagreement(layout: Layout, stored: Sequence[Stored], where: str) -> UserError:
    """The error for a config that lies: both totals, and a tensor that shows it."""
    return UserError(
        f"{where}: config.json and weights disagree: the config describes {layout.params:,} parameters, the safetensors"
        f" headers hold {sum(t.numel for t in stored):,}{_difference(layout, stored)}; take both from the same model"
    )


def reconcile(config: Config, layout: Layout, stored: Sequence[Stored], where: str) -> tuple[Tensor, ...]:
    """`layout.tensors` as the files have them: without heads they lack, with heads the config does not speak of.

    Shapes are compared, not names, which differ between libraries. A copy of a tied tensor does not count. Raises
    `UserError` when the body of the model differs: another width, depth or vocabulary.
    """
    held = [t for t in _predicted(config, layout, stored) if not is_buffer(t)]
    body = [t for t in held if not _is_expert(t.name)]
    own = [t for t in layout.tensors if not t.tied_to]
    want: Counter[Shape] = Counter()
    optional: Counter[Shape] = Counter()
    computed = {s.position for s in (layout.encoder, layout.decoder) if s is not None} == {"sinusoidal"}
    for t in own:
        if not t.expert:
            want[_canonical(t.shape)] += t.count
            if t.part == "head" or (computed and t.kind == "position"):
                optional[_canonical(t.shape)] += t.count
    have = Counter(_canonical(t.shape) for t in body)
    missing, extra = want - have, have - want

    experts = sum(t.numel for t in own if t.expert)
    if experts != sum(t.numel for t in held if _is_expert(t.name)) or missing - optional:
        raise _disagreement(layout, held, where)

    embeddings = {_canonical(t.shape) for t in layout.tensors if t.kind == "embedding" or t.tied_to}
    repeated = Counter(unnumbered(t.name) for t in body)
    added: list[Tensor] = []
    for shape, count in extra.items():
        if shape in embeddings:
            continue
        alone = [
            t
            for t in body
            if _canonical(t.shape) == shape and (_layer(t.name) is None or repeated[unnumbered(t.name)] == 1)
        ]
        tied_biases = [t for t in alone if t.name.endswith("decoder.bias")]
        spare = [t for t in alone if t not in tied_biases]
        if len(alone) < count:
            raise _disagreement(layout, held, where)
        added += [
            Tensor(
                t.name,
                t.shape,
                part="head",
                kind="linear" if len(t.shape) == 2 else "bias",
                layered=False,
            )
            for t in spare[max(0, len(spare) - (count - len(tied_biases))) :]
        ]
    kept: list[Tensor] = []
    for t in layout.tensors:
        shape = _canonical(t.shape)
        dropped = not t.tied_to and not t.expert and t.part in ("head",) and missing[shape] >= t.count
        if dropped:
            missing[shape] -= t.count
        else:
            kept.append(t)
    return (*kept, *added)
