"""What a safetensors file holds, read from its header alone: names, shapes, dtypes and bytes; no weights are read.

The format (github.com/huggingface/safetensors, README "Format"): 8 bytes little-endian N, N bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}` with an optional `__metadata__`, then the data, which the
offsets cover without hole or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sizing.errors import UserError

LENGTH_BYTES = 8
HEADER_LIMIT = 100_000_000
"""Bytes; the library refuses longer headers (`MAX_HEADER_SIZE`)."""
BITS: dict[str, int] = {
    **dict.fromkeys(("F4", "F4_E2M1"), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
FLOATS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
"""Floating dtypes and what Berth calls them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file."""

    name: str
    dtype: str
    """As the file says: `F32`, `BF16` …"""
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        return self.dtype in FLOATS


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys are all different; a `ValueError` names the one that is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(n for n in names if names.count(n) > 1)}' is there twice")
    return found


def parse_json(text: bytes | str, where: str) -> dict[str, Any]:
    """The JSON object that `text` is. Raises `UserError` naming `where` for anything else, NaN to endless nesting."""
    try:
        found = json.loads(text, object_pairs_hook=unique_pairs)
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply to be what it should be") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, line {error.lineno} column {error.colno})") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: must be a JSON object, is {'a list' if isinstance(found, list) else 'a bare value'}")
    return found


def header_length(first: bytes, where: str, file_bytes: int | None = None) -> int:
    """N, from the first eight bytes of a file. Raises `UserError` for a cut file or a length that cannot be true."""
    if len(first) < LENGTH_BYTES:
        raise UserError(f"{where}: {len(first)} bytes long; a safetensors file starts with 8 bytes of header length")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise UserError(
            f"{where}: says its header is {length:,} bytes; safetensors allows 2 to {HEADER_LIMIT:,}"
            " (cut, damaged, or not a safetensors file)"
        )
    if file_bytes is not None and LENGTH_BYTES + length > file_bytes:
        raise UserError(
            f"{where}: says its header is {length:,} bytes, but the file has {file_bytes:,}; download it again"
        )
    return length


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _tensor(name: str, entry: object, where: str) -> tuple[int, int, Stored]:
    """One entry of a header: begin, end, tensor."""
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: the entry of '{name}' is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise UserError(f"{where}: '{name}' has dtype {str(dtype)[:40]!r}; known: {', '.join(sorted(BITS))}")
    if not isinstance(shape, list) or not all(_whole(size) for size in shape):
        raise UserError(f"{where}: '{name}' has a shape that is not a list of whole numbers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(o) for o in offsets):
        raise UserError(f"{where}: '{name}' has data offsets that are not two whole numbers")
    begin, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if end < begin or (end - begin) * 8 != bits:
        raise UserError(
            f"{where}: '{name}' is {dtype} of shape {shape}, {bits / 8:,.0f} bytes,"
            f" but its offsets {begin:,}..{end:,} hold {end - begin:,}"
        )
    return begin, end, Stored(name, dtype, tuple(shape), end - begin)


def parse_header(text: bytes, where: str, data_bytes: int | None = None) -> tuple[Stored, ...]:
    """The tensors that a header names, in the order of the file.

    `data_bytes`: bytes that follow the header, where known. Raises `UserError` for a header that contradicts itself or
    the file: wrong lengths, holes, overlaps, tensors that are there twice.
    """
    header = parse_json(text, f"{where}, header")
    header.pop("__metadata__", None)
    placed = sorted((_tensor(name, entry, where) for name, entry in header.items()), key=lambda p: (p[0], p[1]))
    expected = 0
    for begin, end, tensor in placed:
        if begin != expected:
            fault = "overlaps the tensor before it" if begin < expected else "leaves a hole before it"
            raise UserError(f"{where}: '{tensor.name}' starts at byte {begin:,} of the data and {fault}")
        expected = end
    if data_bytes is not None and data_bytes != expected:
        what = "cut" if data_bytes < expected else "longer than its header says"
        raise UserError(
            f"{where}: its header names {expected:,} bytes of data, the file holds {data_bytes:,}: {what};"
            " download it again"
        )
    return tuple(tensor for _, _, tensor in placed)


def main_dtype(tensors: Iterable[Stored]) -> str:
    """The floating dtype of most bytes, in Berth's spelling; `unknown` when nothing is floating."""
    totals: dict[str, int] = {}
    for tensor in tensors:
        if tensor.floating:
            name = FLOATS[tensor.dtype]
            totals[name] = totals.get(name, 0) + tensor.size_bytes
    return max(totals, key=lambda name: totals[name]) if totals else "unknown"
