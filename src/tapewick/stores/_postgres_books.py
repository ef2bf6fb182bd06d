"""Stored order books: whole ones, written now and then, found by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tapewick.model import BookUpdate

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["book_at", "put_books"]

_SIDES = ("bid_price", "bid_size", "ask_price", "ask_size")
_COLUMNS = (
    "ts", "ts_event", "ts_recv", "run", "source", "seq", "first_id", "last_id", "price_scale", "size_scale", *_SIDES,
)  # fmt: skip
_PUT = f"""
INSERT INTO books (number, {", ".join(_COLUMNS)}) VALUES ({", ".join(f"${k + 1}" for k in range(len(_COLUMNS) + 1))})
ON CONFLICT DO NOTHING
"""
_AT = f"SELECT {', '.join(_COLUMNS)} FROM books WHERE number = $1 AND ts <= $2 ORDER BY ts DESC LIMIT 1"


async def put_books(connection: Connection, rows: Sequence[tuple[int, BookUpdate]]) -> None:
    """Add books to the instruments' numbers; one of a known time is left as it is."""
    for number, book in rows:
        told = [getattr(book, name) for name in _COLUMNS[1 : -len(_SIDES)]]
        sides = [getattr(book, name).tolist() for name in _SIDES]
        await connection.execute(_PUT, number, book.ts_event or book.ts_recv, *told, *sides)


async def book_at(connection: Connection, number: int, instrument: str, at: int) -> BookUpdate | None:
    """The newest book not after ``at``."""
    row = await connection.fetchrow(_AT, number, min(max(at, -(2**63)), 2**63 - 1))
    if row is None:
        return None
    told = dict(row)
    del told["ts"]
    for name in _SIDES:
        told[name] = np.array(told[name], np.int64)
    return BookUpdate(instrument=instrument, prev_seq=told["seq"], state="live", snapshot=True, **told)
