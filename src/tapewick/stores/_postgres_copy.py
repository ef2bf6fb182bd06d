"""COPY's binary format: columns of numbers to rows of fixed width and back, by numpy alone.

A row is its count of columns (int16) and per column a length (int32) and the value, all big-endian. Where
no column is NULL or of variable width every row has the same layout, so a structured array of
that layout *is* the message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tapewick.errors import StoreError

__all__ = ["Columns", "Layout", "messages"]

Columns = Mapping[str, npt.NDArray[Any]] | npt.NDArray[np.void]
"""Columns by name: a mapping of arrays, or a structured array."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, length of the header's extension
TRAILER = b"\xff\xff"
MESSAGE = 1 << 20  # bytes of one CopyData message


class Layout:
    """The columns of a table and their numpy types: ``i2``, ``i4``, ``i8``, ``u8`` (an int8's bits) or ``?``."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.names = tuple(columns)
        fields = [("columns", ">i2")]
        for name, kind in columns.items():
            fields += [(f"length of {name}", ">i4"), (name, f">{kind}")]
        self.row = np.dtype(fields)
        self._blank = np.zeros(1, self.row)
        self._blank["columns"] = len(self.names)
        for name in self.names:
            self._blank[f"length of {name}"] = self.row[name].itemsize

    @property
    def none(self) -> npt.NDArray[np.void]:
        """No rows."""
        return np.empty(0, self.row)

    def encode(self, columns: Columns, count: int) -> npt.NDArray[np.uint8]:
        """``count`` rows as the bytes of a whole COPY."""
        size = len(HEADER) + count * self.row.itemsize
        message = np.empty(size + len(TRAILER), np.uint8)
        message[: len(HEADER)], message[size:] = np.frombuffer(HEADER, np.uint8), np.frombuffer(TRAILER, np.uint8)
        body = message[len(HEADER) : size]
        body.reshape(count, self.row.itemsize)[:] = self._blank.view(np.uint8)
        rows = body.view(self.row)
        for name in self.names:
            rows[name] = columns[name]
        return message

    def decode(self, message: bytes) -> npt.NDArray[np.void]:
        """The rows of a whole COPY, a read-only view. Raises ``StoreError`` for another layout."""
        count, rest = divmod(len(message) - len(HEADER) - len(TRAILER), self.row.itemsize)
        if rest or count < 0 or not message.startswith(HEADER) or not message.endswith(TRAILER):
            raise StoreError("the store answered rows of another layout: bring its schema up to date (migrate up)")
        rows = np.frombuffer(message, self.row, count, len(HEADER))
        if count and not (rows["columns"] == len(self.names)).all():
            raise StoreError("the store answered rows of another layout: bring its schema up to date (migrate up)")
        return rows


async def messages(copy: npt.NDArray[np.uint8]) -> AsyncIterator[npt.NDArray[np.uint8]]:
    """A COPY cut into messages."""
    for start in range(0, len(copy), MESSAGE):
        yield copy[start : start + MESSAGE]
