"""The Arrow streaming format: a schema, then one record batch per part, decimals as decimal128."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from tapewick.formats._flatbuffer import Builder, Place, Slot
from tapewick.formats.table import PRECISION, Column, Field, Layout
from tapewick.model import CandleBatch, TradeBatch

__all__ = ["ArrowWriter"]

_V5 = 4
_SCHEMA, _RECORD_BATCH = 1, 3
_INT, _UTF8, _BOOL, _DECIMAL, _TIMESTAMP = 2, 5, 6, 7, 10
_NANOSECOND = 3
_END = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowWriter:
    """Writes an Arrow IPC stream; readers see each part as soon as it is sent."""

    media_type = "application/vnd.apache.arrow.stream"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def head(self) -> bytes:
        builder = Builder()
        fields = builder.refs([_field(builder, field) for field in self._layout.fields])
        facts = builder.refs([_fact(builder, *fact) for fact in self._layout.facts.items()])
        schema = builder.table([Slot(0, "i16", 0), Slot(1, "ref", fields), Slot(2, "ref", facts)])
        return _message(builder, _SCHEMA, schema, b"")

    def part(self, batch: CandleBatch | TradeBatch) -> bytes:
        columns = self._layout.columns(batch)
        length = len(columns[0].values)
        if not length:
            return b""
        nodes, spans, body = [], [], bytearray()
        for field, column in zip(self._layout.fields, columns, strict=True):
            nulls = 0 if column.valid is None else int(length - column.valid.sum())
            nodes.append(struct.pack("<qq", length, nulls))
            for data in _buffers(field, column, nulls):
                spans.append(struct.pack("<qq", len(body), len(data)))
                body += data
                body += b"\0" * (-len(data) % 8)
        builder = Builder()
        buffers = builder.structs(len(spans), b"".join(spans))
        shapes = builder.structs(len(nodes), b"".join(nodes))
        made = builder.table([Slot(0, "i64", length), Slot(1, "ref", shapes), Slot(2, "ref", buffers)])
        return _message(builder, _RECORD_BATCH, made, bytes(body))

    def end(self) -> bytes:
        return _END


def _message(builder: Builder, kind: int, header: Place, body: bytes) -> bytes:
    slots = [Slot(0, "i16", _V5), Slot(1, "u8", kind), Slot(2, "ref", header), Slot(3, "i64", len(body))]
    data = builder.finish(builder.table(slots))
    return b"\xff\xff\xff\xff" + struct.pack("<i", len(data)) + data + body


def _fact(builder: Builder, key: str, value: str) -> Place:
    return builder.table([Slot(0, "ref", builder.text(key)), Slot(1, "ref", builder.text(value))])


def _field(builder: Builder, field: Field) -> Place:
    kind, type = _type(builder, field)
    name, children = builder.text(field.name), builder.refs([])
    slots = [Slot(0, "ref", name), Slot(1, "u8", field.nullable), Slot(2, "u8", kind), Slot(3, "ref", type)]
    return builder.table([*slots, Slot(5, "ref", children)])


def _type(builder: Builder, field: Field) -> tuple[int, Place]:
    if field.kind == "int":
        return _INT, builder.table([Slot(0, "i32", 64), Slot(1, "u8", 1)])
    if field.kind == "decimal":
        slots = [Slot(0, "i32", PRECISION), Slot(1, "i32", field.scale), Slot(2, "i32", 128)]
        return _DECIMAL, builder.table(slots)
    if field.kind == "time":
        zone = builder.text("UTC")
        return _TIMESTAMP, builder.table([Slot(0, "i16", _NANOSECOND), Slot(1, "ref", zone)])
    return (_BOOL if field.kind == "bool" else _UTF8), builder.table([])


def _buffers(field: Field, column: Column, nulls: int) -> Sequence[bytes]:
    """Validity, then the values as Arrow lays them out."""
    valid = b"" if not nulls or column.valid is None else np.packbits(column.valid, bitorder="little").tobytes()
    values = column.values
    if isinstance(values, list):
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        return valid, ends.astype("<i4").tobytes(), b"".join(values)
    if field.kind == "bool":
        return valid, np.packbits(values.astype(np.bool_), bitorder="little").tobytes()
    return valid, np.ascontiguousarray(values, "<u8" if field.kind == "decimal" else "<i8").tobytes()
