"""What the writer thread does inside one transaction each: claim, commit, rescale, import."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
from msgspec.structs import replace

from tapewick.errors import Fenced, ModelError
from tapewick.model import NO_TIME, Candles, Gap, Instrument, Origin, State, TapeCommit
from tapewick.stores._duckdb_names import write_names
from tapewick.stores._duckdb_rows import (
    CANDLE_COLUMNS,
    CANDLE_NAMES,
    Columns,
    candle_columns,
    instruments,
    put,
    trade_columns,
)
from tapewick.stores._rows import INSTRUMENT_NAMES, Known, candle_rows, merged, new_epoch

__all__ = ["commit", "put_imported", "put_instrument", "raise_owners", "renew_epochs", "rescale"]

Connection = duckdb.DuckDBPyConnection

_KEY = ("number", "tf", "open_time", "origin")
RANGE_NAMES = ("from_id", "to_id", "from_ts", "to_ts")
_SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")

FEW = 4
"""Up to so many rows a statement with values costs DuckDB a third of one that reads a table."""

_MOVE_HEAD = """
UPDATE tape_head SET seq = $seq, pos = $pos, watermark = $watermark
WHERE number = $number AND owner = $owner AND pos = $expected RETURNING number
"""
_MOVE_HEADS = """
UPDATE tape_head SET seq = batch.seq, pos = batch.pos, watermark = batch.watermark FROM batch
WHERE tape_head.number = batch.number AND tape_head.owner = batch.owner AND tape_head.pos = batch.expected_pos
RETURNING tape_head.number
"""
_AT_HEADS = "SELECT number FROM tape_head SEMI JOIN batch USING (number, owner, seq, pos, watermark)"
_OWNER = "SELECT owner FROM tape_head WHERE number = ?"
_ADD_TRADES = "INSERT INTO trades SELECT * FROM batch"
_DROP_OPEN = """
DELETE FROM open_candles USING batch
WHERE open_candles.number = batch.number AND open_candles.tf = batch.tf AND open_candles.open_time = batch.open_time
"""
_ADD_OPEN = "INSERT INTO open_candles SELECT * FROM batch"
_PUT_CANDLES = (
    f"INSERT INTO candles SELECT {CANDLE_COLUMNS} FROM batch ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in CANDLE_NAMES if name not in _KEY)
)
_DROP_RANGES = (
    "DELETE FROM coverage USING batch WHERE coverage.number = batch.number AND coverage.from_id = batch.from_id"
)
_MOVE_RANGE = """
UPDATE coverage SET to_id = $to_id, from_ts = $from_ts, to_ts = $to_ts
WHERE number = $number AND from_id = $from_id RETURNING number
"""
_ADD_RANGE = "INSERT INTO coverage VALUES ($number, $from_id, $to_id, $from_ts, $to_ts)"
_PUT_RANGES = """
INSERT INTO coverage SELECT number, from_id, to_id, from_ts, to_ts FROM batch
ON CONFLICT (number, from_id) DO UPDATE SET to_id = excluded.to_id, from_ts = excluded.from_ts, to_ts = excluded.to_ts
"""
_PUT_GAPS = """
INSERT INTO gaps SELECT * FROM batch ON CONFLICT (number, left_id, right_id) DO UPDATE SET
left_ts = excluded.left_ts, right_ts = excluded.right_ts, reason = excluded.reason, state = excluded.state,
attempts = excluded.attempts, closed_at = excluded.closed_at
"""


def put_instrument(connection: Connection, wanted: Instrument) -> Known:
    """Insert an instrument under the next number, or update what may change of a known one."""
    known = instruments(connection, "id = ?", [wanted.id])
    if known:
        number, stored = known[0][0], merged(wanted, known[0][1])
        connection.execute(
            "UPDATE instruments SET base = ?, quote = ?, status = ? WHERE number = ?",
            [stored.base, stored.quote, stored.status, number],
        )
        return number, stored
    [number] = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM instruments").fetchone() or (1,)
    values = [number, *(getattr(wanted, name) for name in INSTRUMENT_NAMES)]
    connection.execute(f"INSERT INTO instruments VALUES ({', '.join('?' * len(values))})", values)
    return number, wanted


def add_heads(connection: Connection, numbers: Sequence[int]) -> None:
    """Give each instrument that has no tape yet an empty one, with an epoch of its own."""
    batch: Columns = {
        "number": np.array(numbers, np.int32),
        "epoch": np.array([new_epoch() for _ in numbers], object),
    }
    put(
        connection,
        f"INSERT INTO tape_head SELECT number, epoch, 0, 0, 0, {NO_TIME} FROM batch ON CONFLICT DO NOTHING",
        batch,
    )


def commit(connection: Connection, group: Sequence[TapeCommit], now: int) -> frozenset[str]:
    """Write what the heads admit; the instruments they refuse.

    A part that is in the store already, because it is tried again after an error that came too
    late, is neither written twice nor refused.
    """
    if len({part.number for part in group}) != len(group):
        raise ModelError("a commit group holds one part per instrument")
    moved = _move_heads(connection, group)
    admitted = [part for part in group if part.number in moved]
    if admitted:
        _write_trades(connection, admitted)
        write_names(connection, admitted)
        _write_candles(connection, candle_rows(admitted))
        _write_ranges(connection, admitted)
        _write_gaps(connection, [(part.number, gap) for part in admitted for gap in part.gaps], now)
    if len(admitted) == len(group):
        return frozenset()
    done = set(put(connection, _AT_HEADS, _heads(group)).fetchnumpy()["number"].tolist())
    return frozenset(part.instrument for part in group if part.number not in done)


def _move_heads(connection: Connection, group: Sequence[TapeCommit]) -> set[int]:
    """Move the heads that are where the engine left them; the numbers of those."""
    if len(group) > FEW:
        return set(put(connection, _MOVE_HEADS, _heads(group)).fetchnumpy()["number"].tolist())
    moved: set[int] = set()
    for part in group:
        head = {"seq": part.head.seq, "pos": part.head.pos, "watermark": part.head.watermark}
        owner = {"number": part.number, "owner": part.owner, "expected": part.expected_pos}
        moved.update(number for (number,) in connection.execute(_MOVE_HEAD, head | owner).fetchall())
    return moved


def _heads(group: Sequence[TapeCommit]) -> Columns:
    return {
        "number": np.array([part.number for part in group], np.int32),
        "owner": np.array([part.owner for part in group], np.int64),
        "expected_pos": np.array([part.expected_pos for part in group], np.int64),
        "seq": np.array([part.head.seq for part in group], np.int64),
        "pos": np.array([part.head.pos for part in group], np.int64),
        "watermark": np.array([part.head.watermark for part in group], np.int64),
    }


def _write_trades(connection: Connection, group: Sequence[TapeCommit]) -> None:
    if columns := trade_columns(group):
        put(connection, _ADD_TRADES, columns)


def _write_candles(connection: Connection, rows: Candles) -> None:
    if not len(rows):
        return
    put(connection, _DROP_OPEN, candle_columns(rows, ("number", "tf", "open_time")))
    still_open = rows["state"] == State.OPEN
    if still_open.any():
        put(connection, _ADD_OPEN, candle_columns(rows[still_open]))
    if not still_open.all():
        put(connection, _PUT_CANDLES, candle_columns(rows[~still_open]))


def _write_ranges(connection: Connection, group: Sequence[TapeCommit]) -> None:
    gone = [part for part in group if len(part.ranges_gone)]
    if gone:
        ids = np.concatenate([part.ranges_gone for part in gone])
        numbers = np.repeat([part.number for part in gone], [len(part.ranges_gone) for part in gone])
        put(connection, _DROP_RANGES, {"number": numbers, "from_id": ids})
    kept = [part for part in group if len(part.ranges_put)]
    if sum(len(part.ranges_put) for part in kept) <= FEW:
        _write_few_ranges(connection, kept)
    elif kept:
        ranges = np.concatenate([part.ranges_put for part in kept])
        columns = dict(zip(RANGE_NAMES, np.ascontiguousarray(ranges.T), strict=True))
        numbers = np.repeat([part.number for part in kept], [len(part.ranges_put) for part in kept])
        put(connection, _PUT_RANGES, {"number": numbers, **columns})


def _write_few_ranges(connection: Connection, group: Sequence[TapeCommit]) -> None:
    for part in group:
        for values in part.ranges_put.tolist():
            row = {"number": part.number, **dict(zip(RANGE_NAMES, values, strict=True))}
            if not connection.execute(_MOVE_RANGE, row).fetchall():
                connection.execute(_ADD_RANGE, row)


def _write_gaps(connection: Connection, gaps: Sequence[tuple[int, Gap]], now: int) -> None:
    if not gaps:
        return
    batch: Columns = {
        "number": np.array([number for number, _ in gaps], np.int32),
        "left_id": np.array([gap.left_id for _, gap in gaps], np.int64),
        "right_id": np.array([gap.right_id for _, gap in gaps], np.int64),
        "left_ts": np.array([gap.left_ts for _, gap in gaps], np.int64),
        "right_ts": np.array([gap.right_ts for _, gap in gaps], np.int64),
        "reason": np.array([gap.reason for _, gap in gaps], object),
        "state": np.array([gap.state for _, gap in gaps], object),
        "attempts": np.array([gap.attempts for _, gap in gaps], np.int32),
        "detected_at": np.full(len(gaps), now, np.int64),
        "closed_at": np.array([now if gap.state == "closed" else NO_TIME for _, gap in gaps], np.int64),
    }
    put(connection, _PUT_GAPS, batch)


def put_imported(connection: Connection, number: int, rows: Candles) -> None:
    """Replace import rows of the same key."""
    add_heads(connection, [number])
    rows = rows.copy()
    rows["number"], rows["origin"] = number, Origin.IMPORT
    put(connection, _PUT_CANDLES, candle_columns(rows))


def rescale(connection: Connection, number: int, price_scale: int, size_scale: int, owner: int | None) -> Known:
    """Multiply every stored price, size and sum up to wider scales.

    Raises ``ModelError``, changing nothing, when a value would no longer fit or a scale shrinks, ``Fenced`` when the
    tape has another ``owner``.
    """
    [(_, known)] = instruments(connection, "number = ?", [number])
    if owner is not None and (owner,) != connection.execute(_OWNER, [number]).fetchone():
        raise Fenced(frozenset({known.id}))
    if price_scale < known.price_scale or size_scale < known.size_scale:
        raise ModelError(f"{known.id} has scales {known.price_scale} and {known.size_scale}: they only ever widen")
    price, size = 10 ** (price_scale - known.price_scale), 10 ** (size_scale - known.size_scale)
    try:
        for table in ("candles", "open_candles"):
            connection.execute(f"UPDATE {table} SET {_scaled_candle(price, size)} WHERE number = {number}")
        connection.execute(
            f"UPDATE trades SET price = price * {price}::BIGINT, size = size * {size}::BIGINT WHERE number = {number}"
        )
    except (duckdb.OutOfRangeException, duckdb.ConversionException) as error:
        raise ModelError(
            f"{known.id} holds values that do not fit scales {price_scale} and {size_scale}: keep the digits it has"
        ) from error
    connection.execute(
        "UPDATE instruments SET price_scale = ?, size_scale = ? WHERE number = ?", [price_scale, size_scale, number]
    )
    return number, replace(known, price_scale=price_scale, size_scale=size_scale)


def _scaled_candle(price: int, size: int) -> str:
    sets = [f"{name} = {name} * {price}::BIGINT" for name in ("open", "high", "low", "close")]
    for name in _SUMS:
        product = f"wide({name}_hi, {name}_lo) * {price * size if 'quote' in name else size}::HUGEINT"
        sets.append(f"{name}_hi = (({product}) >> 64)::BIGINT")
        sets.append(f"{name}_lo = (({product}) & 18446744073709551615)::UBIGINT")
    return ", ".join(sets)


def raise_owners(connection: Connection, numbers: Sequence[int]) -> None:
    """Make every earlier owner of these tapes a stranger; an instrument without a tape gets one."""
    add_heads(connection, numbers)
    batch = {"number": np.array(numbers, np.int32)}
    put(connection, "UPDATE tape_head SET owner = owner + 1 FROM batch WHERE tape_head.number = batch.number", batch)


def renew_epochs(connection: Connection) -> None:
    """Give every tape a new epoch; positions of the old ones are refused from then on."""
    for (number,) in connection.execute("SELECT number FROM tape_head").fetchall():
        connection.execute("UPDATE tape_head SET epoch = ? WHERE number = ?", [new_epoch(), number])
