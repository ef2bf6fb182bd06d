"""Queries inside one snapshot each: heads, trades, candles, coverage, and what an engine restarts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np

from tapewick.model import CANDLE, I64, NO_TIME, Candles, Gap, Head, Instrument, TapeState
from tapewick.stores._duckdb_rows import CANDLE_COLUMNS, TRADE_COLUMNS, Columns, fetch_candles, put
from tapewick.stores._rows import Known, Window, one_each
from tapewick.timeframe import BY_INDEX, SECOND

__all__ = ["candles", "changed_candles", "head", "load_candles", "states", "trades"]

Connection = duckdb.DuckDBPyConnection

PAGE = 1_000_000  # trades per inner query: bounds what DuckDB holds beside the answer
FEW = 4096  # up to here DuckDB's top-n, which skips row groups, beats a scan
SETTLING = 120 * SECOND  # how long after its end a candle may still be proven by the tape's own growth

_LENGTHS = f"[{', '.join(str(tf.length) for tf in BY_INDEX)}]"


def head(connection: Connection, number: int, instrument: Instrument) -> Head:
    """How far the tape is; an instrument no engine has claimed has the empty epoch."""
    row = connection.execute(f"SELECT epoch, seq, pos, watermark FROM tape_head WHERE number = {number}").fetchone()
    epoch, seq, pos, watermark = row or ("", 0, 0, NO_TIME)
    return Head(
        instrument=instrument.id,
        epoch=epoch,
        seq=seq,
        pos=pos,
        watermark=watermark,
        price_scale=instrument.price_scale,
        size_scale=instrument.size_scale,
    )


def trades(connection: Connection, number: int, since: int | None, last: int, window: Window) -> list[Columns]:
    """Trades with ``since`` < seq ≤ ``last`` inside the window, in ascending parts."""
    low, within = max(since or 0, 0), window.within("ts_event")
    if 0 < window.limit <= FEW:
        direction = "DESC" if window.newest else "ASC"
        found: Columns = connection.execute(
            f"SELECT {TRADE_COLUMNS} FROM trades WHERE number = {number} AND seq > {low} AND {within} "
            f"ORDER BY seq {direction} LIMIT {window.limit}"
        ).fetchnumpy()
        return [found]  # in either direction: the batch is put in order
    if window.start is not None or window.end is not None:
        first, final = connection.execute(
            f"SELECT min(seq), max(seq) FROM trades WHERE number = {number} AND seq > {low} AND {within}"
        ).fetchone() or (None, None)
        if first is None:
            return []
        low, last = first - 1, final
    return _pages(
        connection, f"SELECT {TRADE_COLUMNS} FROM trades WHERE number = {number} AND {within}", low, last, window
    )


def _pages(connection: Connection, sql: str, low: int, high: int, window: Window) -> list[Columns]:
    """Parts with ``low`` < seq ≤ ``high`` from the wanted end, at most PAGE rows of the file at a time.

    The first part reads no more than what is wanted if all rows fit the window; each next one reaches further.
    """
    parts: list[Columns] = []
    left = window.limit or high
    reach = min(PAGE, max(left, 16 * FEW))
    while low < high and left > 0:
        a, b = (max(low, high - reach), high) if window.newest else (low, min(high, low + reach))
        part: Columns = connection.execute(f"{sql} AND seq > {a} AND seq <= {b}").fetchnumpy()
        parts.append(_cut(part, left, window.newest))
        left -= len(part["seq"])
        low, high = (low, a) if window.newest else (b, high)
        reach = min(PAGE, 2 * reach)
    return parts[::-1] if window.newest else parts


def _cut(part: Columns, keep: int, newest: bool) -> Columns:
    if len(part["seq"]) <= keep:
        return part
    order = np.argsort(part["seq"], kind="stable")
    order = order[-keep:] if newest else order[:keep]
    return {name: column[order] for name, column in part.items()}


def candles(connection: Connection, number: int, tf: int, window: Window) -> Candles:
    """One row per open time: the tape's where complete, else the import's, else the tape's."""
    where = f"WHERE number = {number} AND tf = {tf} AND {window.within('open_time')}"
    if window.limit:
        cut = _last_wanted(connection, f"FROM candle_rows {where}", window)
        where += f" AND open_time {'>=' if window.newest else '<='} {cut}"
    # Each table for itself: the view that unites them costs as much again as the rows. And sorted here: DuckDB would
    # carry all 29 columns through its sort, at three times the cost.
    parts = [
        fetch_candles(connection.execute(f"SELECT {CANDLE_COLUMNS} FROM {table} {where}"))
        for table in ("candles", "open_candles")
    ]
    return one_each(np.concatenate(parts) if len(parts[1]) else parts[0], window)


def _last_wanted(connection: Connection, where: str, window: Window) -> int:
    """An open time at or beyond the last candle inside the limit. A candle has at most two rows."""
    rows, direction = 2 * window.limit, "DESC" if window.newest else "ASC"
    few = f"ORDER BY open_time {direction} LIMIT {rows}" if rows <= FEW else ""
    times = connection.execute(f"SELECT open_time {where} {few}").fetchnumpy()["open_time"]
    if len(times) > rows:
        times = np.partition(times, -rows)[-rows:] if window.newest else np.partition(times, rows - 1)[:rows]
    return int(times.min() if window.newest else times.max()) if len(times) else 0


def changed_candles(connection: Connection, number: int, tf: int, since_pos: int, window: Window) -> Candles:
    """Tape rows whose newest version is after ``since_pos``, by pos."""
    direction = "DESC" if window.newest else "ASC"
    limit = f"LIMIT {window.limit}" if window.limit else ""
    rows = fetch_candles(
        connection.execute(
            f"SELECT {CANDLE_COLUMNS} FROM candle_rows WHERE number = {number} AND tf = {tf} AND pos > {since_pos} "
            f"AND origin = 0 AND {window.within('open_time')} ORDER BY pos {direction}, open_time {direction} {limit}"
        )
    )
    return rows[::-1] if window.newest else rows


def load_candles(connection: Connection, number: int, keys: I64, windows: I64) -> Candles:
    """Tape rows by key, and closed incomplete ones that overlap a window (months: by their longest length)."""
    rows = f"SELECT {CANDLE_COLUMNS} FROM candle_rows WHERE number = {number} AND origin = 0"
    parts = [np.empty(0, CANDLE)]
    if len(keys):
        batch = {"tf": np.ascontiguousarray(keys[:, 0]), "open_time": np.ascontiguousarray(keys[:, 1])}
        sql = f"{rows} AND (tf, open_time) IN (SELECT (tf::TINYINT, open_time) FROM batch)"
        parts.append(fetch_candles(put(connection, sql, batch)))
    for some in np.array_split(windows, range(50, len(windows), 50)):
        overlaps = " OR ".join(
            f"(open_time < {high} AND open_time + {_LENGTHS}[tf + 1] > {low})" for low, high in some.tolist()
        )
        if overlaps:
            parts.append(fetch_candles(connection.execute(f"{rows} AND state = 1 AND complete <> 1 AND ({overlaps})")))
    found = np.concatenate(parts)
    if not len(found):
        return found
    _, first = np.unique(np.column_stack((found["tf"], found["open_time"])), axis=0, return_index=True)
    return found[first]


_TAPE = "SELECT number, epoch, owner, seq, pos, watermark FROM tape_head SEMI JOIN batch USING (number)"
_RANGES = """
SELECT number, from_id, to_id, from_ts, to_ts FROM coverage SEMI JOIN batch USING (number) ORDER BY number, from_id
"""
_NEWEST = """
SELECT number, tf, max(open_time) AS open_time FROM candle_rows SEMI JOIN batch USING (number)
WHERE origin = 0 GROUP BY number, tf
"""
_GAPS = """
SELECT number, left_id, right_id, left_ts, right_ts, reason, state, attempts
FROM gaps SEMI JOIN batch USING (number) ORDER BY number, left_id, detected_at
"""
# What may change without a new trade: what is open, what waits for its grace, and what the
# next trades may prove because it lies near the end of the tape.
_UNSETTLED = f"""
WITH tails AS (
    SELECT number, arg_max(to_ts, to_id) AS tail FROM coverage SEMI JOIN batch USING (number) GROUP BY number
)
SELECT {CANDLE_COLUMNS} FROM candle_rows SEMI JOIN batch USING (number) LEFT JOIN tails USING (number)
WHERE origin = 0 AND state < 2 AND (
    state = 0 OR complete = 1
    OR (complete = 0 AND (tail IS NULL OR open_time + {_LENGTHS}[tf + 1] + {SETTLING} >= tail))
)
ORDER BY number, tf, open_time
"""


def states(connection: Connection, wanted: Sequence[Known], *, rows: bool, every_gap: bool) -> list[TapeState]:
    """The tapes of many instruments with one set of queries; trades are never scanned.

    ``rows``: with the candles and newest open times an engine restarts from.
    """
    batch = {"number": np.array([number for number, _ in wanted], np.int32)}
    tapes = {
        number: TapeState(instrument=instrument, number=number, epoch="", owner=0) for number, instrument in wanted
    }
    for number, *rest in put(connection, _TAPE, batch).fetchall():
        tape = tapes[number]
        tape.epoch, tape.owner, tape.seq, tape.pos, tape.watermark = rest
    ranges = put(connection, _RANGES, batch).fetchnumpy()
    for number, part in _split(ranges, ("from_id", "to_id", "from_ts", "to_ts")):
        tapes[number].ranges = np.column_stack(part)
    for number, *gap in put(connection, _GAPS, batch).fetchall():
        if every_gap or gap[5] != "closed":
            tapes[number].gaps += (_gap(tapes[number].instrument.id, gap),)
    if rows:
        newest = put(connection, _NEWEST, batch).fetchnumpy()
        for number, tf, open_time in zip(*(newest[n].tolist() for n in ("number", "tf", "open_time")), strict=True):
            tapes[number].newest[tf] = open_time
        found = fetch_candles(put(connection, _UNSETTLED, batch))
        numbers, starts = np.unique(found["number"], return_index=True)
        for number, own in zip(numbers.tolist(), np.split(found, starts[1:]), strict=False):
            tapes[number].rows = own
    return list(tapes.values())


def _split(columns: Columns, names: Sequence[str]) -> list[tuple[int, list[I64]]]:
    """Columns sorted by number, cut into one list of ``names`` columns per number."""
    numbers, starts = np.unique(columns["number"], return_index=True)
    cut = [np.split(columns[name], starts[1:]) for name in names]
    return [(number, [column[k] for column in cut]) for k, number in enumerate(numbers.tolist())]


def _gap(instrument: str, row: Sequence[Any]) -> Gap:
    left_id, right_id, left_ts, right_ts, reason, state, attempts = row
    return Gap(
        instrument=instrument,
        left_id=left_id,
        right_id=right_id,
        left_ts=left_ts,
        right_ts=right_ts,
        reason=reason,
        state=state,
        attempts=attempts,
    )
