"""Queries inside one snapshot each: heads, trades, candles, coverage, and what an engine restarts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tapewick.errors import NotFound
from tapewick.model import CANDLE, I64, NO_TIME, Candles, Gap, Head, Instrument, TapeState
from tapewick.stores._postgres_copy import Layout
from tapewick.stores._postgres_rows import TRADES, copy_out, fetch_candles
from tapewick.stores._rows import INSTRUMENT_NAMES, MAX_TIME, MIN_TIME, Known, Window, bigint, one_each
from tapewick.timeframe import BY_INDEX, HOUR, SECOND

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["candles", "changed_candles", "head", "load_candles", "states", "trades"]

SETTLING = 120 * SECOND  # how long after its end a candle may still be proven by the tape's own growth

_LENGTHS = f"('{{{','.join(str(tf.length) for tf in BY_INDEX)}}}'::BIGINT[])"
_HEAD = f"""
SELECT {", ".join(INSTRUMENT_NAMES)}, epoch, seq, pos, watermark
FROM instruments LEFT JOIN tape_head USING (number) WHERE number = $1
"""


async def head(connection: Connection, key: int, id: str) -> tuple[Instrument, Head]:
    """An instrument and how far its tape is; one no engine has claimed has the empty epoch. Raises ``NotFound`` where
    ``key`` is not (any more) the number of ``id``."""
    row = await connection.fetchrow(_HEAD, key)
    if row is None or row["id"] != id:
        raise NotFound(f"the store has no {id} any more (or, where it is a replica, not yet)")
    found = Instrument(**{name: row[name] for name in INSTRUMENT_NAMES})
    empty = row["epoch"] is None
    return found, Head(
        instrument=found.id,
        epoch="" if empty else row["epoch"],
        seq=0 if empty else row["seq"],
        pos=0 if empty else row["pos"],
        watermark=NO_TIME if empty else row["watermark"],
        price_scale=found.price_scale,
        size_scale=found.size_scale,
    )


_HOURS = """
SELECT min(first_seq), max(last_seq) FROM trade_hours
WHERE number = $1 AND hour > $2::BIGINT AND hour < $3::BIGINT
"""


async def trades(
    connection: Connection, key: int, since: int | None, last: int, window: Window
) -> npt.NDArray[np.void]:
    """Trades with ``since`` < seq ≤ ``last`` inside the window, in any order."""
    low, own = max(since or 0, 0), f"FROM trades WHERE number = {key}"
    timed = window.start is not None or window.end is not None
    if timed:
        start = MIN_TIME if window.start is None else max(window.start - HOUR, MIN_TIME)
        end = MAX_TIME if window.end is None else window.end
        first, final = await connection.fetchrow(_HOURS, key, min(start, MAX_TIME), max(min(end, MAX_TIME), MIN_TIME))
        if first is None:
            return TRADES.none
        low, last = max(low, first - 1), min(last, final)
    elif window.limit and low < last:
        # Seqs have no holes: the wanted ones are a range, unless retention has taken some of it.
        a, b = (max(low, last - window.limit), last) if window.newest else (low, min(last, low + window.limit))
        rows = await copy_out(connection, TRADES, f"{own} AND seq > {bigint(a)} AND seq <= {bigint(b)}")
        if len(rows) == b - a:
            return rows
    where = f"{own} AND seq > {bigint(low)} AND seq <= {bigint(last)}"
    if timed:
        where += f" AND {window.within('ts_event')}"
    if window.limit:
        where += f" ORDER BY seq {window.direction} LIMIT {window.limit}"
    return await copy_out(connection, TRADES, where)


async def candles(connection: Connection, key: int, tf: int, window: Window) -> Candles:
    """One row per open time: the tape's where complete, else the import's, else the tape's."""
    where = f"WHERE number = {key} AND tf = {tf} AND {window.within('open_time')}"
    if window.limit:  # a candle has at most two rows
        where += f" ORDER BY open_time {window.direction} LIMIT {2 * window.limit + 1}"
    return one_each(await fetch_candles(connection, where), window)


async def changed_candles(connection: Connection, key: int, tf: int, since_pos: int, window: Window) -> Candles:
    """Tape rows whose newest version is after ``since_pos``, by pos."""
    limit = f"LIMIT {window.limit}" if window.limit else ""
    rows = await fetch_candles(
        connection,
        f"WHERE number = {key} AND tf = {tf} AND pos > {bigint(since_pos)} AND origin = 0 "
        f"AND {window.within('open_time')} ORDER BY pos {window.direction}, open_time {window.direction} {limit}",
    )
    return rows[::-1] if window.newest else rows


async def load_candles(connection: Connection, key: int, keys: I64, windows: I64) -> Candles:
    """Tape rows by key, and closed incomplete ones that overlap a window (months: by their longest length)."""
    own = f"number = {key} AND origin = 0"
    parts = [np.empty(0, CANDLE)]
    if len(keys):
        listed = f"{_array(keys[:, 0])}, {_array(keys[:, 1])}"
        parts.append(
            await fetch_candles(
                connection,
                f"WHERE {own} AND (tf, open_time) IN (SELECT k::SMALLINT, t FROM unnest({listed}) AS u(k, t))",
            )
        )
    for some in np.array_split(windows, range(50, len(windows), 50)):
        overlaps = " OR ".join(
            f"(open_time < {bigint(high)} AND open_time + {_LENGTHS}[tf + 1] > {bigint(low)})"
            for low, high in some.tolist()
        )
        if overlaps:
            parts.append(
                await fetch_candles(connection, f"WHERE {own} AND state = 1 AND complete <> 1 AND ({overlaps})")
            )
    found = np.concatenate(parts)
    if not len(found):
        return found
    _, first = np.unique(np.column_stack((found["tf"], found["open_time"])), axis=0, return_index=True)
    return found[first]


def _array(values: I64) -> str:
    return "'{" + ",".join(map(str, values.tolist())) + "}'::BIGINT[]"


_TAPE = "SELECT number, epoch, owner, seq, pos, watermark FROM tape_head WHERE number = ANY($1)"
_RANGES = Layout({"number": "i4", "from_id": "i8", "to_id": "i8", "from_ts": "i8", "to_ts": "i8"})
_GAPS = """
SELECT number, left_id, right_id, left_ts, right_ts, reason, state, attempts
FROM gaps WHERE number = ANY($1) AND (state <> 'closed' OR $2) ORDER BY number, left_id, detected_at
"""
# One step down the index per instrument and timeframe: the tables themselves are not read.
_NEWEST = """
SELECT n, t, max(c.open_time) AS open_time
FROM unnest($1::INTEGER[]) AS n CROSS JOIN generate_series(1, 17) AS t
CROSS JOIN LATERAL (
    (SELECT open_time FROM candles WHERE number = n AND tf = t AND origin = 0 ORDER BY open_time DESC LIMIT 1)
    UNION ALL
    SELECT max(open_time) FROM open_candles WHERE number = n AND tf = t AND origin = 0
) AS c WHERE c.open_time IS NOT NULL GROUP BY n, t
"""


async def states(connection: Connection, wanted: Sequence[Known], *, rows: bool, every_gap: bool) -> list[TapeState]:
    """The tapes of many instruments with one set of queries; trades are never scanned.

    ``rows``: with the candles and newest open times an engine restarts from.
    """
    keys = [key for key, _ in wanted]
    tapes = {key: TapeState(instrument=instrument, number=key, epoch="", owner=0) for key, instrument in wanted}
    for row in await connection.fetch(_TAPE, keys):
        tape = tapes[row["number"]]
        tape.epoch, tape.owner, tape.seq, tape.pos, tape.watermark = tuple(row)[1:]
    listed = f"'{{{','.join(map(str, keys))}}}'::INTEGER[]"
    ranges = await copy_out(connection, _RANGES, f"FROM coverage WHERE number = ANY({listed}) ORDER BY number, from_id")
    for key, part in _split(ranges):
        columns = [part[name].astype(np.int64) for name in _RANGES.names[1:]]
        tapes[key].ranges = np.column_stack(columns)
    for row in await connection.fetch(_GAPS, keys, every_gap):
        tape = tapes[row["number"]]
        tape.gaps += (Gap(instrument=tape.instrument.id, **{k: v for k, v in row.items() if k != "number"}),)
    if rows:
        for key, tf, open_time in await connection.fetch(_NEWEST, keys):
            tapes[key].newest[tf] = open_time
        for key, part in _split(await fetch_candles(connection, _unsettled(listed))):
            tapes[key].rows = part
    return list(tapes.values())


def _unsettled(listed: str) -> str:
    """What may change without a new trade: what is open, what waits for its grace, and what the
    next trades may prove because it lies near the end of the tape."""
    tail = "(SELECT to_ts FROM coverage WHERE coverage.number = candle_rows.number ORDER BY to_id DESC LIMIT 1)"
    return f"""
    WHERE number = ANY({listed}) AND origin = 0 AND state < 2 AND (
        state = 0 OR complete = 1
        OR (complete = 0 AND open_time + {_LENGTHS}[tf + 1] + {SETTLING} >= coalesce({tail}, {NO_TIME + 1}))
    )
    ORDER BY number, tf, open_time
    """


def _split(rows: npt.NDArray[np.void]) -> list[tuple[int, npt.NDArray[np.void]]]:
    """Rows sorted by number, cut into those of each."""
    numbers, starts = np.unique(rows["number"], return_index=True)
    return list(zip(numbers.tolist(), np.split(rows, starts[1:]), strict=False))
