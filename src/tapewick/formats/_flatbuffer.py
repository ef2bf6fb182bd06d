"""A FlatBuffers writer, as much of it as Arrow's messages need. Built from the end to the front."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Builder", "Place", "Slot"]

Place: TypeAlias = int
"""Where something starts, counted in bytes from the end."""

_FORMATS = {"u8": "<B", "i16": "<h", "i32": "<i", "i64": "<q", "ref": "<I"}


class Slot(NamedTuple):
    """One field of a table: its number in the schema, its type and value (``ref``: the place of another object)."""

    number: int
    type: Literal["u8", "i16", "i32", "i64", "ref"]
    value: int


class Builder:
    """Write inner objects first: a table refers to what is there already."""

    def __init__(self) -> None:
        self._bytes = b""

    def _put(self, data: bytes, align: int) -> Place:
        """Prepend ``data`` so that it starts at a multiple of ``align``."""
        padding = -(len(self._bytes) + len(data)) % align
        self._bytes = data + b"\0" * padding + self._bytes
        return len(self._bytes)

    def text(self, value: str) -> Place:
        data = value.encode()
        return self._put(struct.pack("<I", len(data)) + data + b"\0", 4)

    def refs(self, places: Sequence[Place]) -> Place:
        """A vector of objects."""
        size = 4 * len(places)
        self._put(b"", 4)
        start = len(self._bytes) + size  # of the first element
        data = b"".join(struct.pack("<I", start - 4 * i - place) for i, place in enumerate(places))
        return self._put(struct.pack("<I", len(places)) + data, 4)

    def structs(self, count: int, data: bytes) -> Place:
        """A vector of ``count`` structs of 8-byte words."""
        self._put(data, 8)
        return self._put(struct.pack("<I", count), 4)

    def table(self, slots: Sequence[Slot]) -> Place:
        offsets, at = {}, 4
        ordered = sorted(slots, key=lambda slot: -struct.calcsize(_FORMATS[slot.type]))
        for slot in ordered:
            size = struct.calcsize(_FORMATS[slot.type])
            at += -at % size
            offsets[slot.number] = at
            at += size
        size = at + -at % 8
        self._put(b"", 8)
        start = len(self._bytes) + size
        body = bytearray(size)
        numbers = max(offsets, default=-1) + 1
        vtable = struct.pack(f"<{2 + numbers}H", 4 + 2 * numbers, size, *(offsets.get(i, 0) for i in range(numbers)))
        struct.pack_into("<i", body, 0, len(vtable))
        for slot in slots:
            offset = offsets[slot.number]
            value = start - offset - slot.value if slot.type == "ref" else slot.value
            struct.pack_into(_FORMATS[slot.type], body, offset, value)
        place = self._put(bytes(body), 8)
        self._bytes = vtable + self._bytes
        return place

    def finish(self, root: Place) -> bytes:
        """The whole buffer, a multiple of 8 bytes long."""
        padding = -(len(self._bytes) + 4) % 8
        total = len(self._bytes) + 4 + padding
        return struct.pack("<I", total - root) + b"\0" * padding + self._bytes
