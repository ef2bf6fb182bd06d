"""Rows between the model and PostgreSQL: whole columns in both directions, never a value at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tapewick.model import CANDLE, Candles, Instrument, TapeCommit
from tapewick.stores._postgres_copy import Columns, Layout, messages
from tapewick.stores._rows import INSTRUMENT_NAMES, Known, batches_of

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = [
    "CANDLES",
    "TRADES",
    "copy_candles",
    "copy_in",
    "copy_out",
    "copy_trades",
    "fetch_candles",
    "instruments",
    "trade_columns",
]

TRADES = Layout(
    {
        "seq": "i8", "trade_id": "i8", "first_id": "i8", "ts_event": "i8", "ts_recv": "i8", "price": "i8", "size": "i8",
        "number": "i4", "count": "i4", "side": "i2", "late": "?",
    }
)  # fmt: skip
CANDLES = Layout(
    {
        "open_time": "i8", "open": "i8", "high": "i8", "low": "i8", "close": "i8",
        "volume_lo": "u8", "volume_hi": "i8", "quote_volume_lo": "u8", "quote_volume_hi": "i8",
        "taker_buy_volume_lo": "u8", "taker_buy_volume_hi": "i8",
        "taker_buy_quote_volume_lo": "u8", "taker_buy_quote_volume_hi": "i8",
        "trades": "i8", "first_id": "i8", "last_id": "i8", "first_ts": "i8", "last_ts": "i8", "first_key": "i8",
        "last_seq": "i8", "pos": "i8", "number": "i4", "rev": "i4", "tf": "i2", "origin": "i2", "state": "i2",
        "complete": "i2", "change": "i2", "reason": "i2",
    }
)  # fmt: skip
"""The stored fields of ``CANDLE``; ``filled`` rows are never stored."""
SEND = 60.0  # seconds a COPY to the server may take: the driver sets no bound while it may not send


async def instruments(connection: Connection, condition: str = "true", *values: object) -> list[Known]:
    """Instruments that meet an SQL condition with their numbers, ascending."""
    rows = await connection.fetch(
        f"SELECT number, {', '.join(INSTRUMENT_NAMES)} FROM instruments WHERE {condition} ORDER BY number", *values
    )
    return [(row["number"], Instrument(**{name: row[name] for name in INSTRUMENT_NAMES})) for row in rows]


async def copy_in(connection: Connection, table: str, layout: Layout, columns: Columns, count: int) -> None:
    """Add rows to a table."""
    source = messages(layout.encode(columns, count))
    async with asyncio.timeout(SEND):
        await connection.copy_to_table(table, columns=list(layout.names), source=source, format="binary")


async def copy_out(connection: Connection, layout: Layout, rest: str) -> npt.NDArray[np.void]:
    """What ``SELECT`` of the layout's columns with ``rest`` (FROM …) answers."""
    parts: list[bytes] = []

    async def take(part: bytes) -> None:
        parts.append(part)

    await connection.copy_from_query(f"SELECT {', '.join(layout.names)} {rest}", output=take, format="binary")
    return layout.decode(b"".join(parts))


async def copy_trades(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Add the trades of a commit group, which has some. Raises ``ModelError`` for a batch without seq."""
    await copy_in(connection, "trades", TRADES, *trade_columns(group))


def trade_columns(group: Sequence[TapeCommit]) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The columns of ``TRADES`` of a commit group, which has some, and how many rows they are."""
    owners = batches_of(group)
    batches = [batch for _, batch in owners]
    lengths = [len(batch) for batch in batches]
    columns: dict[str, npt.NDArray[Any]] = {
        "number": np.repeat(np.array([number for number, _ in owners], np.int32), lengths),
        "late": np.repeat(np.array([batch.late for batch in batches]), lengths),
    }
    for name in TRADES.names:
        if name not in columns:
            columns[name] = np.concatenate([getattr(batch, name) for batch in batches])
    return columns, sum(lengths)


async def copy_candles(connection: Connection, table: str, rows: Candles) -> None:
    """Add candle rows to ``candles`` or ``open_candles``."""
    if len(rows):
        await copy_in(connection, table, CANDLES, rows, len(rows))


async def fetch_candles(connection: Connection, rest: str) -> Candles:
    """Candle rows of ``candle_rows``; ``rest`` is what follows FROM it."""
    found = await copy_out(connection, CANDLES, f"FROM candle_rows {rest}")
    rows = np.zeros(len(found), CANDLE)
    for name in CANDLES.names:
        rows[name] = found[name]
    return rows
