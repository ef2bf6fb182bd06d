"""Letting go of what is old, tier by tier: trades, then candles under an hour, and stored books.

Time counts back from each tape's watermark, never from the clock on the wall. What is gone stays
gone: a floor per instrument and timeframe is kept, and no later commit writes a candle below it.
Trades go by seq, from the oldest on, so that those that stay are contiguous; whole chunks of a
hypertable are dropped where nothing in them stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tapewick.model import NO_TIME, Floor
from tapewick.stores._postgres_schema import LOCK, Level
from tapewick.timeframe import BY_INDEX, DAY, HOUR

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Keep", "expire", "floor"]

SEQS = 200_000  # trades that one transaction deletes
SPAN = 30 * DAY  # of candles that one transaction deletes
TIERS = [tf.index for tf in BY_INDEX if 0 < tf.index and tf.length < HOUR]

_FLOOR = """
INSERT INTO retention_floors VALUES ($1, $2, $3, $4)
ON CONFLICT (number, tf) DO UPDATE SET floor = greatest(retention_floors.floor, excluded.floor),
    pos = greatest(retention_floors.pos, excluded.pos)
"""
_KEPT = """
SELECT coalesce((SELECT min(first_seq) FROM trade_hours WHERE number = $1 AND hour >= $2), seq + 1)
FROM tape_head WHERE number = $1
"""


# Chunks of which nothing stays: every trade that does lies in an hour that is listed still.
_EMPTY = """
SELECT range_start_integer, range_end_integer FROM timescaledb_information.chunks
WHERE hypertable_schema = current_schema() AND hypertable_name = 'trades' AND range_end_integer <= $1
AND NOT EXISTS (SELECT FROM trade_hours WHERE hour >= range_start_integer AND hour < range_end_integer)
"""


class Keep(NamedTuple):
    """How far back (ns) each tier is kept; 0 keeps it for good."""

    trades: int = 0
    minutes: int = 0
    books: int = 0


async def floor(connection: Connection, number: int, tf: int) -> Floor:
    """What has been let go of a timeframe's candles, with ``tf`` 0 of the trades."""
    row = await connection.fetchrow("SELECT floor, pos FROM retention_floors WHERE number = $1 AND tf = $2", number, tf)
    return Floor() if row is None else Floor(row["floor"], row["pos"])


async def expire(connection: Connection, keep: Keep, level: Level) -> dict[str, int]:
    """Delete what is older than ``keep``; rows deleted per table, chunks dropped.

    Nothing is done while another process does it. The connection must be outside a transaction.
    """
    done = {"trades": 0, "candles": 0, "books": 0, "chunks": 0}
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK + 1):
        return done
    try:
        tapes = await connection.fetch(
            f"SELECT number, watermark FROM tape_head WHERE watermark > {NO_TIME} ORDER BY number"
        )
        if keep.trades:
            cuts = {number: (watermark - keep.trades) // HOUR * HOUR for number, watermark in tapes}
            await _trades(connection, cuts, level, done)
        for number, watermark in tapes if keep.minutes else ():
            await _minutes(connection, number, (watermark - keep.minutes) // DAY * DAY, done)
        for number, watermark in tapes if keep.books else ():
            status = await connection.execute(
                "DELETE FROM books WHERE number = $1 AND ts < $2", number, watermark - keep.books
            )
            done["books"] += _count(status)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK + 1)
    return done


async def _trades(connection: Connection, cuts: dict[int, int], level: Level, done: dict[str, int]) -> None:
    kept = {}
    for number, cut in cuts.items():
        async with connection.transaction():
            kept[number] = seq = await connection.fetchval(_KEPT, number, cut)
            await connection.execute(_FLOOR, number, 0, cut, (seq or 1) - 1)
            await connection.execute("DELETE FROM trade_hours WHERE number = $1 AND last_seq < $2", number, seq)
            await connection.execute(
                "UPDATE trade_hours SET first_seq = $2 WHERE number = $1 AND first_seq < $2", number, seq
            )
    if level.name != "plain" and await _owned(connection):
        async with connection.transaction():
            # No commit may bring a late trade to a chunk between the look and the drop.
            await connection.execute("LOCK TABLE trade_hours IN SHARE ROW EXCLUSIVE MODE")
            for start, end in await connection.fetch(_EMPTY, min(cuts.values(), default=0)):
                dropped = await connection.fetch(
                    f"SELECT drop_chunks('trades', older_than => {end}::BIGINT, newer_than => {start}::BIGINT)"
                )
                done["chunks"] += len(dropped)
    for number, seq in kept.items():
        first = await connection.fetchval("SELECT min(seq) FROM trades WHERE number = $1", number)
        while first is not None and first < seq:
            first = min(first + SEQS, seq)
            done["trades"] += _count(
                await connection.execute("DELETE FROM trades WHERE number = $1 AND seq < $2", number, first)
            )


async def _owned(connection: Connection) -> bool:
    """Whether we may drop chunks: a mere writer may not, and deletes rows instead."""
    owned: bool = await connection.fetchval(
        "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = 'trades'::regclass"
    )
    return owned


async def _minutes(connection: Connection, number: int, cut: int, done: dict[str, int]) -> None:
    for tf in TIERS:
        going = "FROM candles WHERE number = $1 AND tf = $2 AND open_time < $3"
        newest = await connection.fetchval(f"SELECT coalesce(max(pos), 0) {going}", number, tf, cut)
        await connection.execute(_FLOOR, number, tf, cut, newest)  # first, so that no commit comes between
        first = await connection.fetchval(f"SELECT min(open_time) {going}", number, tf, cut)
        while first is not None and first < cut:
            first = min(first + SPAN, cut)
            status = await connection.execute(f"DELETE {going}", number, tf, first)
            done["candles"] += _count(status)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
