"""An estimate of device memory with its measured parts put in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sizing.measured.carry import Seen, carried
from sizing.measured.read import Measured, Point
from sizing.memory.terms import METRICS, Breakdown, Term

Part = Literal["weights", "beyond the weights", "allocator slack", "CUDA context and libraries"]
PARTS: tuple[Part, ...] = ("weights", "beyond the weights", "allocator slack", "CUDA context and libraries")
"""What a total is made of and what is measured apart: parameters and buffers as they stand; the peak of everything else
that is allocated; reserved less allocated; the driver's figure less what is reserved."""
_WEIGHTS = ("weights", "quantization constants")


@dataclass(frozen=True, slots=True)
class Basis:
    """Where the parts of one estimate come from. `exact`: a measured batch of the same lengths."""

    measured: Measured
    parts: tuple[Part, ...]
    exact: bool


def is_weights(term: Term) -> bool:
    """Whether a term is of the parameters themselves, at whatever width."""
    return term.name.startswith(_WEIGHTS)


def part_of(term: Term) -> Part:
    """The part that a term is of."""
    if is_weights(term):
        return "weights"
    return PARTS[1 + METRICS.index(term.metric)]


def split(terms: Sequence[Term]) -> dict[Part, int]:
    """Bytes of each part of an estimate."""
    sizes: dict[Part, int] = dict.fromkeys(PARTS, 0)
    for term in terms:
        sizes[part_of(term)] += term.bytes
    return sizes


def split_point(point: Point, weights_bytes: int) -> dict[Part, int] | None:
    """Bytes of each part as they were measured; None for a point without a GPU's figures."""
    if point.allocated is None or point.reserved is None or point.driver is None:
        return None
    return {
        "weights": weights_bytes,
        "beyond the weights": max(0, point.allocated - weights_bytes),
        "allocator slack": point.reserved - point.allocated,
        "CUDA context and libraries": point.driver - point.reserved,
    }


def corrected(
    device: Breakdown, batch: int, basis: Basis, points: Sequence[tuple[Point, Breakdown]], *, same_shape: bool
) -> Breakdown:
    """`device` with the parts that `basis` names as measured, or carried over from what was measured.

    `points`: each measured batch with its own estimate, in ascending order. Terms of a part keep their proportions; a
    measured part has no range left, a carried one keeps its own, in proportion.
    """
    measured = basis.measured
    estimated = split(device.terms)
    wanted: dict[Part, int] = {"weights": measured.weights_bytes}
    known = [(p.batch, found, split(e.terms)) for p, e in points if (found := split_point(p, measured.weights_bytes))]
    for part in basis.parts:
        if part != "weights":
            seen = [Seen(b, found[part], likely[part]) for b, found, likely in known]
            wanted[part] = carried(estimated[part], batch, seen, same_shape=same_shape)
    terms = list(device.terms)
    for part in basis.parts:
        if wanted[part] == estimated[part] and not (basis.exact or part == "weights"):
            continue
        terms = _with_part(terms, part, wanted[part], estimated[part], sure=basis.exact or part == "weights")
    return replace(device, terms=tuple(terms))


def _with_part(terms: Sequence[Term], part: Part, wanted: int, estimated: int, *, sure: bool) -> list[Term]:
    own = [t for t in terms if part_of(t) == part]
    how = "measured" if sure else "carried over from the measurement"
    # A cache's size is known to the byte: what was measured beside it is what the other terms make up.
    known = sum(t.bytes for t in own if _is_cache(t))
    if known and known < estimated and wanted >= known:
        own = [t for t in own if not _is_cache(t)]
        wanted, estimated = wanted - known, estimated - known
    if not estimated:
        metric = METRICS[max(0, PARTS.index(part) - 1)]
        more = Term(f"{part}, {how}", wanted, f"{how}; the estimate has none", metric=metric)
        return [*terms, more] if wanted else list(terms)
    factor = wanted / estimated
    sizes = {t.name: round(t.bytes * factor) for t in own}
    largest = max(own, key=lambda t: t.bytes).name
    sizes[largest] = max(0, sizes[largest] + wanted - sum(sizes.values()))
    return [_resized(t, sizes[t.name], factor, how, sure=sure) if t.name in sizes else t for t in terms]


def _is_cache(term: Term) -> bool:
    return term.name.startswith("KV cache")


def _resized(term: Term, size: int, factor: float, how: str, *, sure: bool) -> Term:
    low, high = (size, size) if sure else (min(size, int(term.low * factor)), max(size, round(term.high * factor)))
    note = "" if size == term.bytes else f", {factor:.3g} × the estimate"
    return replace(term, bytes=size, low=low, high=high, formula=f"{term.formula}; {how}{note}")
