"""COPY's binary format: columns of numbers to rows of fixed width and back, by numpy alone.

A row is its count of columns (int16) and per column a length (int32) and the value, all big-endian. Where
no column is NULL or of variable width every row has the same layout, so a structured array of
that layout *is* the message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tapewick.errors import StoreError

__all__ = ["Columns", "Layout", "messages"]

Columns = Mapping[str, npt.NDArray[Any]] | npt.NDArray[np.void]
"""Columns by name: a mapping of arrays, or a structured array."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, length of the header's extension
TRAILER = b"\xff\xff"
MESSAGE = 1 << 16  # bytes of one CopyData message: encoded in cache, and the server takes its rows when it has it whole


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

    def encode(self, columns: Columns, count: int) -> Iterator[bytes]:
        """``count`` rows as the messages of a whole COPY, each made when it is asked for."""
        most = max(MESSAGE // self.row.itemsize, 1)
        for start in range(0, max(count, 1), most):
            end = min(start + most, count)
            rows = self._rows(columns, start, end)
            first, last = HEADER if start == 0 else b"", TRAILER if end == count else b""
            yield b"".join((first, rows.data, last))

    def _rows(self, columns: Columns, start: int, end: int) -> npt.NDArray[np.void]:
        rows = np.empty(end - start, self.row)
        rows.view(np.uint8).reshape(len(rows), self.row.itemsize)[:] = self._blank.view(np.uint8)
        for name in self.names:
            rows[name] = columns[name][start:end]
        return rows

    def decode(self, message: bytes) -> npt.NDArray[np.void]:
        """The rows of a whole COPY, a read-only view. Raises ``StoreError`` for another layout."""
        count, rest = divmod(len(message) - len(HEADER) - len(TRAILER), self.row.itemsize)
        if rest or count < 0 or not message.startswith(HEADER) or not message.endswith(TRAILER):
            raise StoreError("the store answered rows of another layout: bring its schema up to date (migrate up)")
        rows = np.frombuffer(message, self.row, count, len(HEADER))
        if count and not (rows["columns"] == len(self.names)).all():
            raise StoreError("the store answered rows of another layout: bring its schema up to date (migrate up)")
        return rows


async def messages(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The parts of a COPY as the driver takes them."""
    for part in parts:
        yield part
