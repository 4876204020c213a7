"""Where a model's files are: a folder, or the hub by way of whoever can reach it; and how its files are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sizing.errors import UserError
from sizing.models.stored import LENGTH_BYTES, Stored, header_length, parse_header, parse_json

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXT_LIMIT = 64 << 20
"""Bytes of a config or an index; the longest published index has a few MiB."""


class Place(Protocol):
    """The files of one model."""

    @property
    def where(self) -> str:
        """What to call the place in an error: a path, or `org/name on the hub`."""

    def size(self, file: str) -> int | None:
        """Bytes of `file`, None where it is missing; -1 where it is there and its size is not known."""

    def read(self, file: str, start: int, length: int) -> bytes:
        """At most `length` bytes of `file` from `start`; fewer only at its end."""


class Folder:
    """A model's folder on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def where(self) -> str:
        return str(self.path)

    def size(self, file: str) -> int | None:
        try:
            found = (self.path / file).stat()
        except OSError:
            return None
        return found.st_size if (self.path / file).is_file() else None

    def read(self, file: str, start: int, length: int) -> bytes:
        try:
            with (self.path / file).open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except OSError as error:
            raise UserError(f"{self.path / file}: cannot be read ({error.strerror or error})") from error


def named(place: Place, file: str) -> str:
    """`file` of `place` for an error message."""
    return f"{place.where}/{file}"


def read_json(place: Place, file: str) -> dict[str, Any] | None:
    """The JSON object in `file`, None where the file is missing."""
    size = place.size(file)
    if size is None:
        return None
    if size > TEXT_LIMIT:
        raise UserError(f"{named(place, file)}: has {size:,} bytes; no such file is longer than {TEXT_LIMIT:,}")
    return parse_json(place.read(file, 0, TEXT_LIMIT + 1), named(place, file))


def read_header(place: Place, file: str) -> tuple[Stored, ...]:
    """The tensors that the safetensors `file` holds; only its header is read. Raises `UserError` for a damaged one."""
    where = named(place, file)
    size = place.size(file)
    if size is None:
        raise UserError(f"{where}: is missing; the index names it, download it again")
    known = size if size >= 0 else None
    length = header_length(place.read(file, 0, LENGTH_BYTES), where, known)
    text = place.read(file, LENGTH_BYTES, length)
    if len(text) < length:
        raise UserError(f"{where}: its header is cut after {len(text):,} of {length:,} bytes; download it again")
    return parse_header(text, where, None if known is None else known - LENGTH_BYTES - length)


def shards(place: Place) -> tuple[dict[str, str], int | None] | None:
    """Tensor -> file as the index says, and its total of bytes; None where there is no index."""
    index = read_json(place, INDEX)
    if index is None:
        return None
    where = named(place, INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UserError(f"{where}: lacks 'weight_map', which says which file holds which tensor")
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or PurePosixPath(file).name != file or file in ("", ".", ".."):
            raise UserError(f"{where}: '{tensor}' is in {str(file)[:60]!r}; a shard is a file beside the index")
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    return dict(weight_map), total if isinstance(total, int) and total > 0 else None


def read_headers(place: Place) -> tuple[Stored, ...] | None:
    """All tensors of the model's safetensors files; None where it has none.

    Raises `UserError` when a shard is missing or the index and the shards disagree.
    """
    found = shards(place)
    if found is None:
        return read_header(place, WEIGHTS) if place.size(WEIGHTS) is not None else None
    weight_map, _ = found
    tensors: dict[str, Stored] = {}
    for file in dict.fromkeys(weight_map.values()):
        for tensor in read_header(place, file):
            if tensor.name in tensors:
                raise UserError(f"{named(place, file)}: '{tensor.name}' is in another shard as well")
            tensors[tensor.name] = tensor
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise UserError(f"{named(place, INDEX)}: names '{missing[0]}', which none of its shards holds")
    return tuple(tensors.values())
