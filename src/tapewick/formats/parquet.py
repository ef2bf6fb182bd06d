"""Parquet: one row group per part, pages compressed, decimals as DECIMAL of 38 digits.

The footer needs only sizes and places, so a file of any length is written while it is sent.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tapewick import __version__
from tapewick.formats._thrift import I32, Struct, encode, varint
from tapewick.formats.table import PRECISION, Column, Field, Layout
from tapewick.model import CandleBatch, TradeBatch

__all__ = ["ParquetWriter"]

_MAGIC = b"PAR1"
_BOOLEAN, _INT64, _BYTES, _FIXED = 0, 2, 6, 7
_REQUIRED, _OPTIONAL = 0, 1
_PLAIN, _RLE = 0, 3
_GZIP = 2
_TYPES = {"bool": _BOOLEAN, "int": _INT64, "time": _INT64, "text": _BYTES, "decimal": _FIXED}
_LEVEL = 1  # of compression: speed matters more than the last percent


class ParquetWriter:
    """Writes one Parquet file; readers can open it once ``end`` is there."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._at = 0
        self._rows = 0
        self._groups: list[Struct] = []

    def head(self) -> bytes:
        self._at = len(_MAGIC)
        return _MAGIC

    def part(self, batch: CandleBatch | TradeBatch) -> bytes:
        columns = self._layout.columns(batch)
        count = len(columns[0].values)
        if not count:
            return b""
        chunks, out, raw = [], bytearray(), 0
        for field, column in zip(self._layout.fields, columns, strict=True):
            page, size = _page(field, column, count)
            chunks.append(_chunk(field, count, self._at + len(out), size, len(page)))
            out += page
            raw += size
        self._groups.append(Struct({1: chunks, 2: raw, 3: count}))
        self._at += len(out)
        self._rows += count
        return bytes(out)

    def end(self) -> bytes:
        root = Struct({4: "candles_or_trades", 5: I32(len(self._layout.fields))})
        facts = [Struct({1: key, 2: value}) for key, value in self._layout.facts.items()]
        footer = encode(
            Struct(
                {
                    1: I32(2),
                    2: [root, *map(_element, self._layout.fields)],
                    3: self._rows,
                    4: self._groups,
                    5: facts or None,
                    6: f"tapewick version {__version__}",
                }
            )
        )
        return footer + struct.pack("<I", len(footer)) + _MAGIC


def _element(field: Field) -> Struct:
    """A column in the schema, in the old and the new spelling of its type."""
    repetition = I32(_OPTIONAL if field.nullable else _REQUIRED)
    made = Struct({1: I32(_TYPES[field.kind]), 2: None, 3: repetition, 4: field.name})
    if field.kind == "text":
        made |= {6: I32(0), 10: Struct({1: Struct()})}
    elif field.kind == "time":
        made |= {10: Struct({8: Struct({1: True, 2: Struct({3: Struct()})})})}
    elif field.kind == "decimal":
        scale, precision = I32(field.scale), I32(PRECISION)
        made |= {2: I32(16), 6: I32(5), 7: scale, 8: precision, 10: Struct({5: Struct({1: scale, 2: precision})})}
    return made


def _chunk(field: Field, count: int, at: int, size: int, compressed: int) -> Struct:
    meta = Struct(
        {
            1: I32(_TYPES[field.kind]),
            2: [I32(_PLAIN), I32(_RLE)],
            3: [field.name],
            4: I32(_GZIP),
            5: count,
            6: size,
            7: compressed,
            9: at,
        }
    )
    return Struct({2: at, 3: meta})


def _page(field: Field, column: Column, count: int) -> tuple[bytes, int]:
    """One data page with its header, and how long it would be uncompressed."""
    body = _levels(column, count) if field.nullable else b""
    body += _values(field, column)
    packer = zlib.compressobj(_LEVEL, wbits=31)
    packed = packer.compress(body) + packer.flush()
    levels = {1: I32(count), 2: I32(_PLAIN), 3: I32(_RLE), 4: I32(_RLE)}
    header = encode(Struct({1: I32(0), 2: I32(len(body)), 3: I32(len(packed)), 5: Struct(levels)}))
    return header + packed, len(header) + len(body)


def _levels(column: Column, count: int) -> bytes:
    """Which rows hold a value, as one bit-packed run."""
    valid = np.ones(count, np.bool_) if column.valid is None else column.valid
    bits = np.packbits(valid, bitorder="little").tobytes()
    run = varint(len(bits) << 1 | 1) + bits
    return struct.pack("<I", len(run)) + run


def _values(field: Field, column: Column) -> bytes:
    """The values that are there, in the plain encoding."""
    values = column.values
    if isinstance(values, list):
        return b"".join(struct.pack("<I", len(one)) + one for one in values)
    if column.valid is not None:
        values = values[column.valid]
    if field.kind == "bool":
        return np.packbits(values.astype(np.bool_), bitorder="little").tobytes()
    if field.kind == "decimal":
        return np.ascontiguousarray(values[:, ::-1], ">u8").tobytes()
    return np.ascontiguousarray(values, "<i8").tobytes()
