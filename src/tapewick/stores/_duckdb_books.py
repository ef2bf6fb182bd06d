"""Stored order books: whole ones, written now and then, found by time."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np

from tapewick.model import BookUpdate

__all__ = ["book_at", "put_books"]

Connection = duckdb.DuckDBPyConnection

_SIDES = ("bid_price", "bid_size", "ask_price", "ask_size")
_COLUMNS = (
    "ts", "ts_event", "ts_recv", "run", "source", "seq", "first_id", "last_id", "price_scale", "size_scale", *_SIDES,
)  # fmt: skip
_PUT = f"INSERT INTO books VALUES (?, {', '.join('?' * len(_COLUMNS))}) ON CONFLICT DO NOTHING"


def put_books(connection: Connection, rows: Sequence[tuple[int, BookUpdate]]) -> None:
    """Add books to the instruments' numbers; one of a known time is left as it is."""
    for number, book in rows:
        told = [getattr(book, name) for name in _COLUMNS[1 : -len(_SIDES)]]
        sides = [getattr(book, name).tolist() for name in _SIDES]
        connection.execute(_PUT, [number, book.ts_event or book.ts_recv, *told, *sides])


def book_at(connection: Connection, number: int, instrument: str, at: int) -> BookUpdate | None:
    """The newest book not after ``at``."""
    row = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM books WHERE number = ? AND ts <= ? ORDER BY ts DESC LIMIT 1", [number, at]
    ).fetchone()
    if row is None:
        return None
    told = dict(zip(_COLUMNS[1:], row[1:], strict=True))
    for name in _SIDES:
        told[name] = np.array(told[name], np.int64)
    return BookUpdate(instrument=instrument, prev_seq=told["seq"], state="live", snapshot=True, **told)
