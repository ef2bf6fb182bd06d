"""Thrift's compact protocol, as much of it as a Parquet footer needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["I32", "Struct", "Value", "encode", "varint"]


class I32(int):
    """An integer written as 32 bits wide; a plain ``int`` is 64."""


class Struct(dict[int, "Value"]):
    """Field number to value, numbers ascending; None leaves a field out."""


Value: TypeAlias = "None | bool | int | I32 | bytes | str | Struct | Sequence[Value]"

_TRUE, _FALSE, _I32, _I64, _BINARY, _LIST, _STRUCT = 1, 2, 5, 6, 8, 9, 12


def varint(value: int) -> bytes:
    """An unsigned integer in groups of 7 bits, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _type(value: Value) -> int:
    match value:
        case bool():
            return _TRUE if value else _FALSE
        case I32():
            return _I32
        case int():
            return _I64
        case bytes() | str():
            return _BINARY
        case Struct():
            return _STRUCT
    return _LIST


def encode(value: Value) -> bytes:
    """``value`` without its type; a boolean is all type."""
    match value:
        case bool() | None:
            return b""
        case int():
            return _zigzag(value)
        case str():
            return encode(value.encode())
        case bytes():
            return varint(len(value)) + value
        case Struct():
            return _struct(value)
    kind = _type(value[0]) if len(value) else _STRUCT
    size = bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([0xF0 | kind]) + varint(len(value))
    return size + b"".join(map(encode, value))


def _struct(fields: Struct) -> bytes:
    out, last = bytearray(), 0
    for number, value in fields.items():
        if value is None:
            continue
        step, kind = number - last, _type(value)
        out += bytes([step << 4 | kind]) if step <= 15 else bytes([kind]) + _zigzag(number)
        out += encode(value)
        last = number
    return bytes(out) + b"\0"
