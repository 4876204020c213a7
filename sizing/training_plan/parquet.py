"""The number of rows of a Parquet file, from its footer, without reading the data (or needing pyarrow).

The footer is a `FileMetaData` in Thrift's compact protocol (apache/parquet-format, README and parquet.thrift: field 3
is `num_rows`), its length in the 4 bytes before the closing `PAR1`.
"""

from __future__ import annotations

import struct
from pathlib import Path

from sizing.errors import UserError

_MAGIC = b"PAR1"
_NUM_ROWS = 3
_BOOLS, _BYTE, _INTS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12


def row_count(path: Path) -> int:
    """Rows of a Parquet file. Raises `UserError` for one that is cut off or none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < 12 or file.read(4) != _MAGIC:
            raise UserError(f"{path} is no Parquet file")
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != _MAGIC or length > size - 12:
            raise UserError(f"{path} is cut off: its Parquet footer is missing")
        file.seek(size - 8 - length)
        footer = file.read(length)
    try:
        return _Compact(footer).field(_NUM_ROWS)
    except (IndexError, ValueError):
        raise UserError(f"{path}: its Parquet footer is damaged") from None


class _Compact:
    """As much of Thrift's compact protocol as skips to one integer field of the outer struct."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def field(self, wanted: int) -> int:
        number = 0
        while True:
            kind, number = self._header(number)
            if kind == 0:
                raise ValueError("no such field")
            if number == wanted and kind in _INTS:
                return self._zigzag()
            self._skip(kind)

    def _header(self, last: int) -> tuple[int, int]:
        byte = self._byte()
        kind, delta = byte & 0x0F, byte >> 4
        if kind == 0:
            return 0, last
        return kind, last + delta if delta else self._zigzag()

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 70:
                raise ValueError("a number without end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, *, element: bool = False) -> None:
        if kind in _BOOLS:
            self._at += int(element)  # a field's value is in its header
        elif kind == _BYTE:
            self._at += 1
        elif kind in _INTS:
            self._varint()
        elif kind == _DOUBLE:
            self._at += 8
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
        elif kind in _LISTS:
            self._list()
        elif kind == _MAP:
            self._map()
        elif kind == _STRUCT:
            self._struct()
        else:
            raise ValueError(f"unknown type {kind}")

    def _list(self) -> None:
        header = self._byte()
        size = header >> 4 if header >> 4 != 15 else self._varint()
        for _ in range(size):
            self._skip(header & 0x0F, element=True)

    def _map(self) -> None:
        size = self._varint()
        if size:
            kinds = self._byte()
            for _ in range(size):
                self._skip(kinds >> 4, element=True)
                self._skip(kinds & 0x0F, element=True)

    def _struct(self) -> None:
        number = 0
        while True:
            kind, number = self._header(number)
            if kind == 0:
                return
            self._skip(kind)
