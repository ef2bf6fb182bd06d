"""Rows between the model and PostgreSQL: whole columns in both directions, never a value at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tapewick.errors import ModelError
from tapewick.model import CANDLE, Candles, Head, Instrument, Origin, TapeCommit, TradeBatch
from tapewick.stores._postgres_copy import Columns, Layout, messages

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = [
    "CANDLES",
    "INSTRUMENT_NAMES",
    "MAX_TIME",
    "MIN_TIME",
    "TRADES",
    "Window",
    "candle_rows",
    "copy_candles",
    "copy_out",
    "copy_trades",
    "fetch_candles",
    "instruments",
    "number",
    "numbered",
    "trade_batch",
]

INSTRUMENT_NAMES = (
    "id", "venue", "symbol", "base", "quote", "price_scale", "size_scale", "status", "id_kind", "granularity",
)  # fmt: skip
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
MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1
SEND = 60.0  # seconds a COPY to the server may take: the driver sets no bound while it may not send


class Window(NamedTuple):
    """Which rows a caller wants: ``start`` ≤ time < ``end``, at most ``limit`` (0 = all) from either end."""

    start: int | None = None
    end: int | None = None
    limit: int = 0
    newest: bool = False

    @property
    def direction(self) -> str:
        return "DESC" if self.newest else "ASC"

    def within(self, column: str) -> str:
        """The SQL condition on a time column."""
        conditions = []
        if self.start is not None:
            conditions.append(f"{column} >= {number(self.start)}")
        if self.end is not None:
            conditions.append(f"{column} < {number(self.end)}")
        return " AND ".join(conditions) or "true"


def number(value: int) -> str:
    """An int64 as SQL writes it; what lies beyond becomes the nearest."""
    return f"'{min(max(int(value), MIN_TIME), MAX_TIME)}'::BIGINT"


async def instruments(connection: Connection, condition: str = "true", *values: object) -> list[tuple[int, Instrument]]:
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


def numbered(group: Sequence[TapeCommit]) -> None:
    """Raise ``ModelError`` for a batch without seq."""
    if any(batch.seq is None for commit in group for batch in commit.trades if len(batch)):
        raise ModelError("trades are numbered by the engine before they are stored: seq is missing")


async def copy_trades(connection: Connection, group: Sequence[TapeCommit]) -> None:
    """Add the trades of a commit group, which has some."""
    owners = [(commit.number, batch) for commit in group for batch in commit.trades if len(batch)]
    batches = [batch for _, batch in owners]
    lengths = [len(batch) for batch in batches]
    columns: dict[str, npt.NDArray[Any]] = {
        "number": np.repeat(np.array([number for number, _ in owners], np.int32), lengths),
        "late": np.repeat(np.array([batch.late for batch in batches]), lengths),
    }
    for name in TRADES.names:
        if name not in columns:
            columns[name] = np.concatenate([getattr(batch, name) for batch in batches])
    await copy_in(connection, "trades", TRADES, columns, sum(lengths))


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


def trade_batch(rows: npt.NDArray[np.void], instrument: Instrument, head: Head) -> TradeBatch:
    """Fetched rows as one batch, ascending by seq; at scales and epoch of the tape."""
    seq = rows["seq"].astype(np.int64)
    if len(seq) > 1 and bool((seq[1:] <= seq[:-1]).any()):
        order = np.argsort(seq, kind="stable")
        rows, seq = rows[order], seq[order]
    return TradeBatch(
        instrument=instrument.id,
        trade_id=rows["trade_id"].astype(np.int64),
        first_id=rows["first_id"].astype(np.int64),
        count=rows["count"].astype(np.int32),
        ts_event=rows["ts_event"].astype(np.int64),
        ts_recv=rows["ts_recv"].astype(np.int64),
        price=rows["price"].astype(np.int64),
        size=rows["size"].astype(np.int64),
        side=rows["side"].astype(np.int8),
        price_scale=instrument.price_scale,
        size_scale=instrument.size_scale,
        seq=seq,
        epoch=head.epoch,
        late_rows=rows["late"].astype(np.bool_),
    )


def candle_rows(group: Sequence[TapeCommit]) -> Candles:
    """The candles of a commit group as one array, marked as tape rows of their instruments."""
    parts = [commit.rows for commit in group if len(commit.rows)]
    if not parts:
        return np.empty(0, CANDLE)
    # Joined as bytes: numpy copies structured arrays field by field, fifty times slower for many small parts.
    rows = np.frombuffer(bytearray().join(part.tobytes() for part in parts), CANDLE)
    rows["number"] = np.repeat([c.number for c in group if len(c.rows)], [len(part) for part in parts])
    rows["origin"] = Origin.TAPE
    return rows
