"""Protobuf's fields: values to bytes and back, by a list of names, numbers and kinds."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from tapewick.errors import WireError

__all__ = [
    "BYTES",
    "FIXED64",
    "TAGS",
    "VARINT",
    "Field",
    "columns",
    "decode_fields",
    "encode_fields",
    "fields",
    "split",
    "varint",
]

_LITTLE = sys.byteorder == "little"
VARINT, FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field: its number and kind (str, int, bool, fixed, sub for an encoded message,
    subs for several, or a numpy dtype for a column)."""

    name: str
    number: int
    kind: str

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return np.dtype(self.kind) if self.kind[0] in "<i|" and self.kind != "int" else None


def fields(text: str) -> tuple[Field, ...]:
    """Fields from ``name:kind``, numbered from 1."""
    parts = (item.split(":") for item in text.split())
    return tuple(Field(name, number, kind) for number, (name, kind) in enumerate(parts, 1))


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


TAGS = {(number, wire): varint(number << 3 | wire) for number in range(1, 64) for wire in (VARINT, FIXED64, BYTES)}


def encode_fields(known: tuple[Field, ...], values: dict[str, Any]) -> bytes:
    """Protobuf bytes of ``values``; defaults are omitted, as proto3 does."""
    parts: list[Any] = []
    for name, number, kind in known:
        value = values[name]
        if value is None:
            continue
        if kind == "str":
            raw: Any = value.encode()
        elif kind in ("sub", "subs"):
            for one in (value,) if kind == "sub" else value:
                parts += (TAGS[number, BYTES], varint(len(one)), one)
            continue
        elif kind in ("int", "bool"):
            if value:
                parts += (TAGS[number, VARINT], varint(int(value)))
            continue
        elif kind == "fixed":
            if value:
                parts += (TAGS[number, FIXED64], int(value).to_bytes(8, "little", signed=True))
            continue
        else:
            raw = np.ascontiguousarray(value, dtype=kind).tobytes()
        if raw:
            parts += (TAGS[number, BYTES], varint(len(raw)), raw)
    return b"".join(parts)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("the message is cut inside a number; is it a tapewick message?")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
        shift += 7


def split(data: memoryview) -> list[tuple[int, int, Any]]:
    """(field number, wire type, value) of each field; groups are refused."""
    out: list[tuple[int, int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0; is it a tapewick message?")
        value: Any
        if wire == VARINT:
            value, at = _read_varint(data, at)
        else:
            if wire == BYTES:
                size, at = _read_varint(data, at)
            elif wire in (FIXED64, _FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise WireError(f"wire type {wire} in field {number}; is it a tapewick message?")
            if at + size > len(data):
                raise WireError(f"field {number} is cut short")
            value, at = data[at : at + size], at + size
        out.append((number, wire, value))
    return out


def _signed(value: int, bits: int = 64) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def decode_fields(known: tuple[Field, ...], data: memoryview) -> dict[str, Any]:
    """Values by name: defaults where absent, columns as read-only views on ``data``."""
    found: dict[int, list[Any]] = {}
    kinds = {f.number: f for f in known}
    for number, wire, value in split(data):
        field = kinds.get(number)
        if field is not None and _accepts(field, wire):
            found.setdefault(number, []).append(value)
    return {field.name: _value(field, found.get(field.number, [])) for field in known}


def _accepts(field: Field, wire: int) -> bool:
    if field.dtype is None:
        return (
            wire
            == {"str": BYTES, "int": VARINT, "bool": VARINT, "fixed": FIXED64, "sub": BYTES, "subs": BYTES}[field.kind]
        )
    return wire == BYTES or wire == {8: FIXED64, 4: _FIXED32, 1: BYTES}[field.dtype.itemsize]


def _value(field: Field, parts: list[Any]) -> Any:
    kind, dtype = field.kind, field.dtype
    if dtype is not None:
        # bytes fields: the last one wins; repeated ones concatenate, whether packed or not
        raw = (parts[-1] if parts else b"") if dtype.itemsize == 1 else parts[0] if len(parts) == 1 else b"".join(parts)
        if len(raw) % dtype.itemsize:
            raise WireError(f"column {field.name} has {len(raw)} bytes, not a multiple of {dtype.itemsize}")
        column = np.frombuffer(raw, dtype)
        return column if _LITTLE else column.astype(dtype.newbyteorder("="))
    if kind in ("sub", "subs"):
        return parts if kind == "subs" else parts[-1] if parts else None
    if not parts:
        return {"str": "", "int": 0, "bool": False, "fixed": 0}[kind]
    last = parts[-1]
    if kind == "str":
        try:
            return str(last, "utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"field {field.name} is not valid UTF-8") from error
    if kind == "fixed":
        return int.from_bytes(last, "little", signed=True)
    return bool(last) if kind == "bool" else _signed(last)


def columns(values: dict[str, Any], names: tuple[str, ...]) -> int:
    """The common length of the columns ``names``; raises ``WireError`` where they differ."""
    sizes = {len(values[name]) for name in names}
    if len(sizes) > 1:
        detail = ", ".join(f"{name} {len(values[name])}" for name in names)
        raise WireError(f"columns of different length: {detail}")
    return sizes.pop() if sizes else 0
