"""What happens inside one transaction each: claim, commit, rescale, import.

Row locks on ``tape_head`` order engines: who moved or claimed a head first, the other waits for and
then finds a head that is not the expected one. They are taken in the order of numbers, so
that two groups never wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from msgspec.structs import replace

from tapewick import metrics
from tapewick.errors import Fenced, ModelError
from tapewick.model import NO_TIME, Candles, Gap, Instrument, Origin, Refused, State, TapeCommit
from tapewick.stores._postgres_names import write_names
from tapewick.stores._postgres_rows import copy_candles, copy_trades, instruments
from tapewick.stores._rows import INSTRUMENT_NAMES, Known, batches_of, candle_rows, merged, new_epoch
from tapewick.timeframe import HOUR

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["commit", "put_imported", "put_instrument", "raise_owners", "renew_epochs", "rescale"]

log = structlog.get_logger()

_OUT_OF_RANGE = "22003"  # SQL state of a number that its type cannot hold
LONG = 3600.0  # seconds that rewriting a whole tape may take
_SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
_BATCH = (
    "unnest($1::INTEGER[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::TEXT[]) "
    "AS batch(number, owner, expected_pos, seq, pos, watermark, epoch)"
)
_HOLD_HEADS = "SELECT FROM tape_head WHERE number = ANY($1::INTEGER[]) ORDER BY number FOR UPDATE"
_MOVE_HEADS = f"""
UPDATE tape_head SET seq = batch.seq, pos = batch.pos, watermark = batch.watermark FROM {_BATCH}
WHERE tape_head.number = batch.number AND tape_head.owner = batch.owner AND tape_head.pos = batch.expected_pos
AND tape_head.epoch = batch.epoch
RETURNING tape_head.number, EXISTS (SELECT FROM retention_floors f WHERE f.number = tape_head.number) AS floored
"""
_AT_HEADS = f"""
SELECT number FROM tape_head WHERE (number, owner, seq, pos, watermark, epoch)
IN (SELECT number, owner, seq, pos, watermark, epoch FROM {_BATCH})
"""
_REWOUND = """
UPDATE tape_head SET epoch = batch.fresh, owner = greatest(tape_head.owner, batch.owner) + 1
FROM unnest($1::INTEGER[], $2::BIGINT[], $3::BIGINT[], $4::TEXT[], $5::TEXT[])
AS batch(number, owner, expected_pos, epoch, fresh)
WHERE tape_head.number = batch.number AND tape_head.epoch = batch.epoch AND (tape_head.owner < batch.owner
    OR tape_head.owner = batch.owner AND tape_head.pos < batch.expected_pos)
RETURNING tape_head.number
"""
_DROP_ROWS = """
DELETE FROM {table} USING unnest($1::INTEGER[], $2::SMALLINT[], $3::BIGINT[]) AS batch(number, tf, open_time)
WHERE {table}.number = batch.number AND {table}.tf = batch.tf AND {table}.open_time = batch.open_time
AND {table}.origin = {origin}
"""
_DROP_BELOW_FLOORS = """
DELETE FROM {table} USING retention_floors f WHERE {table}.number = ANY($1::INTEGER[])
AND f.number = {table}.number AND f.tf = {table}.tf AND {table}.open_time < f.floor AND {table}.origin = 0
"""
_DROP_RANGES = """
DELETE FROM coverage USING unnest($1::INTEGER[], $2::BIGINT[]) AS batch(number, from_id)
WHERE coverage.number = batch.number AND coverage.from_id = batch.from_id
"""
_PUT_RANGES = """
INSERT INTO coverage SELECT * FROM unnest($1::INTEGER[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[])
ON CONFLICT (number, from_id) DO UPDATE SET to_id = excluded.to_id, from_ts = excluded.from_ts, to_ts = excluded.to_ts
"""
_PUT_HOURS = """
INSERT INTO trade_hours SELECT n, h, min(a), max(b)
FROM unnest($1::INTEGER[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[]) AS batch(n, h, a, b) GROUP BY n, h
ON CONFLICT (number, hour) DO UPDATE SET first_seq = least(trade_hours.first_seq, excluded.first_seq),
last_seq = greatest(trade_hours.last_seq, excluded.last_seq)
"""
_PUT_GAPS = """
INSERT INTO gaps SELECT * FROM unnest(
    $1::INTEGER[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::TEXT[], $7::TEXT[], $8::INTEGER[],
    $9::BIGINT[], $10::BIGINT[]
) ON CONFLICT (number, left_id, right_id) DO UPDATE SET
left_ts = excluded.left_ts, right_ts = excluded.right_ts, reason = excluded.reason, state = excluded.state,
attempts = excluded.attempts, closed_at = excluded.closed_at
"""


# Whoever stands still in here is ended soon, and who waits for a session that is not ours is soon told that it does.
_ALONE = """
SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '2s';
LOCK TABLE instruments IN SHARE ROW EXCLUSIVE MODE
"""


async def put_instrument(connection: Connection, wanted: Instrument) -> Known:
    """Insert an instrument under the next number, or update what may change of a known one."""
    # One at a time, readers excepted: two collectors may bring the same instrument, and numbers have no holes.
    await connection.execute(_ALONE)
    known = await instruments(connection, "id = $1", wanted.id)
    if known:
        number, stored = known[0][0], merged(wanted, known[0][1])
        await connection.execute(
            "UPDATE instruments SET base = $2, quote = $3, status = $4 WHERE number = $1",
            number, stored.base, stored.quote, stored.status,
        )  # fmt: skip
        return number, stored
    number = await connection.fetchval("SELECT coalesce(max(number), 0) + 1 FROM instruments")
    values = [number, *(getattr(wanted, name) for name in INSTRUMENT_NAMES)]
    places = ", ".join(f"${k + 1}" for k in range(len(values)))
    await connection.execute(f"INSERT INTO instruments VALUES ({places})", *values)
    return number, wanted


async def add_heads(connection: Connection, numbers: Sequence[int]) -> None:
    """Give each instrument that has no tape yet an empty one, with an epoch of its own."""
    await connection.execute(
        f"INSERT INTO tape_head SELECT n, e, 0, 0, 0, {NO_TIME} FROM unnest($1::INTEGER[], $2::TEXT[]) AS u(n, e) "
        "ORDER BY n ON CONFLICT DO NOTHING",
        list(numbers), [new_epoch() for _ in numbers],
    )  # fmt: skip


async def commit(connection: Connection, group: Sequence[TapeCommit], now: int) -> frozenset[str]:
    """Write what the heads admit; the instruments they refuse.

    A part that is in the store already, because it is tried again after an error that came too
    late, is neither written twice nor refused.
    """
    heads = _heads(group)
    if len(group) > 1:
        await connection.execute(_HOLD_HEADS, heads[0])
    moved = {row["number"]: row["floored"] for row in await connection.fetch(_MOVE_HEADS, *heads)}
    admitted = [part for part in group if part.number in moved]
    if admitted:
        await _write_trades(connection, admitted)
        await write_names(connection, admitted)
        await _write_candles(connection, candle_rows(admitted), [n for n, floored in moved.items() if floored])
        await _write_ranges(connection, admitted)
        await _write_gaps(connection, [(part.number, gap) for part in admitted for gap in part.gaps], now)
    if len(admitted) == len(group):
        return frozenset()
    done = {row["number"] for row in await connection.fetch(_AT_HEADS, *heads)}
    refused = [part for part in group if part.number not in done and part.number not in moved]
    await _renew_rewound(connection, refused)
    return await _told_apart(connection, refused)


async def _told_apart(connection: Connection, refused: Sequence[TapeCommit]) -> Refused:
    """Which tapes somebody else owns, and which are not those any more that were committed to: another epoch tells."""
    ask = "SELECT number, epoch FROM tape_head WHERE number = ANY($1::INTEGER[])"
    epochs = dict(await connection.fetch(ask, [part.number for part in refused]))
    rewound = [part.instrument for part in refused if epochs.get(part.number) != part.head.epoch]
    return Refused((part.instrument for part in refused), rewound)


async def _renew_rewound(connection: Connection, refused: Sequence[TapeCommit]) -> None:
    """Give tapes a new epoch that are shorter than what was acknowledged of them.

    A replica that was promoted without the last commits, or a backup: their seq and pos will name other trades.
    """
    columns = [(part.number, part.owner, part.expected_pos, part.head.epoch, new_epoch()) for part in refused]
    rows = await connection.fetch(_REWOUND, *map(list, zip(*columns, strict=True))) if columns else []
    if rows:
        gone = {row["number"] for row in rows}
        metrics.store_rewound.inc(len(rows))
        log.error(
            "the database has lost commits it had acknowledged: these tapes go on under a new epoch, what they lack "
            "is a gap to repair. Replicate synchronously (synchronous_standby_names) to rule that out",
            instruments=[part.instrument for part in refused if part.number in gone],
        )


def _heads(group: Sequence[TapeCommit]) -> list[list[int | str]]:
    columns = [
        (part.number, part.owner, part.expected_pos, part.head.seq, part.head.pos, part.head.watermark, part.head.epoch)
        for part in group
    ]
    return [list(column) for column in zip(*columns, strict=True)]


async def _write_trades(connection: Connection, group: Sequence[TapeCommit]) -> None:
    batches_of(group)  # what cannot be written is refused before anything is
    hours = [hour for part in group for batch in part.trades for hour in _hours(part.number, batch)]
    if hours:  # before the trades, in the order in which retention locks them
        await connection.execute(_PUT_HOURS, *(list(column) for column in zip(*hours, strict=True)))
        await copy_trades(connection, group)


def _hours(number: int, batch: Any) -> list[tuple[int, int, int, int]]:
    """Per hour of the batch's trades: number, hour, lowest and highest seq."""
    if not len(batch):
        return []
    hour = int(batch.ts_event.min()) // HOUR
    if hour == int(batch.ts_event.max()) // HOUR:
        return [(number, hour * HOUR, int(batch.seq.min()), int(batch.seq.max()))]
    hours = batch.ts_event // HOUR * HOUR
    each, inverse = np.unique(hours, return_inverse=True)
    first, last = np.full(len(each), 2**63 - 1), np.zeros(len(each), np.int64)
    np.minimum.at(first, inverse, batch.seq)
    np.maximum.at(last, inverse, batch.seq)
    return [(number, *row) for row in zip(each.tolist(), first.tolist(), last.tolist(), strict=True)]


async def _write_candles(connection: Connection, rows: Candles, floored: list[int]) -> None:
    if not len(rows):
        return
    still_open = rows["state"] == State.OPEN
    await _drop(connection, "open_candles", rows)
    await copy_candles(connection, "open_candles", rows[still_open])
    if not still_open.all():
        await _drop(connection, "candles", rows[~still_open])
        await copy_candles(connection, "candles", rows[~still_open])
    if floored:
        # What retention has taken away stays away: a late trade would make a row that looks whole.
        for table in ("candles", "open_candles"):
            await connection.execute(_DROP_BELOW_FLOORS.format(table=table), floored)


async def _drop(connection: Connection, table: str, rows: Candles, origin: int = Origin.TAPE) -> None:
    """Take away the rows that ``rows`` will replace."""
    keys = (rows[name].tolist() for name in ("number", "tf", "open_time"))
    await connection.execute(_DROP_ROWS.format(table=table, origin=int(origin)), *keys)


async def _write_ranges(connection: Connection, group: Sequence[TapeCommit]) -> None:
    gone = [(part.number, id) for part in group for id in part.ranges_gone.tolist()]
    if gone:
        await connection.execute(_DROP_RANGES, *(list(column) for column in zip(*gone, strict=True)))
    kept = [(part.number, *row) for part in group for row in part.ranges_put.tolist()]
    if kept:
        await connection.execute(_PUT_RANGES, *(list(column) for column in zip(*kept, strict=True)))


async def _write_gaps(connection: Connection, gaps: Sequence[tuple[int, Gap]], now: int) -> None:
    rows = {
        (number, gap.left_id, gap.right_id): (
            number, gap.left_id, gap.right_id, gap.left_ts, gap.right_ts, gap.reason, gap.state, gap.attempts, now,
            now if gap.state == "closed" else NO_TIME,
        )
        for number, gap in gaps
    }  # fmt: skip
    if rows:
        await connection.execute(_PUT_GAPS, *(list(column) for column in zip(*rows.values(), strict=True)))


async def put_imported(connection: Connection, number: int, rows: Candles) -> None:
    """Replace import rows of the same key."""
    await add_heads(connection, [number])
    rows = rows.copy()
    rows["number"], rows["origin"] = number, Origin.IMPORT
    await _drop(connection, "candles", rows, Origin.IMPORT)
    await copy_candles(connection, "candles", rows)


async def rescale(
    connection: Connection, number: int, id: str, price_scale: int, size_scale: int, owner: int | None
) -> Known:
    """Multiply every stored price, size and sum up to wider scales.

    Raises ``ModelError``, changing nothing, when a value would no longer fit or a scale shrinks, ``Fenced`` when the
    tape has another ``owner`` or is no more.
    """
    await connection.execute(_HOLD_HEADS, [number])
    known = next((one for _, one in await instruments(connection, "number = $1", number)), None)
    stored = await connection.fetchval("SELECT owner FROM tape_head WHERE number = $1", number)
    if known is None or known.id != id or owner not in (None, stored):
        raise Fenced(frozenset({id}))
    if price_scale < known.price_scale or size_scale < known.size_scale:
        raise ModelError(f"{known.id} has scales {known.price_scale} and {known.size_scale}: they only ever widen")
    price, size = 10 ** (price_scale - known.price_scale), 10 ** (size_scale - known.size_scale)
    try:
        for table in ("candles", "open_candles"):
            scaled = f"UPDATE {table} SET {_scaled_candle(price, size)} WHERE number = $1"
            await connection.execute(scaled, number, timeout=LONG)
        await connection.execute(
            f"UPDATE trades SET price = price * {price}::BIGINT, size = size * {size}::BIGINT WHERE number = $1",
            number, timeout=LONG,
        )  # fmt: skip
    except Exception as error:
        if getattr(error, "sqlstate", None) != _OUT_OF_RANGE:
            raise
        raise ModelError(
            f"{known.id} holds values that do not fit scales {price_scale} and {size_scale}: keep the digits it has"
        ) from error
    await connection.execute(
        "UPDATE instruments SET price_scale = $2, size_scale = $3 WHERE number = $1", number, price_scale, size_scale
    )
    return number, replace(known, price_scale=price_scale, size_scale=size_scale)


def _scaled_candle(price: int, size: int) -> str:
    sets = [f"{name} = {name} * {price}::BIGINT" for name in ("open", "high", "low", "close")]
    for name in _SUMS:
        product = f"wide({name}_hi, {name}_lo) * {price * size if 'quote' in name else size}"
        sets.append(f"{name}_hi = high_word({product})")
        sets.append(f"{name}_lo = low_word({product})")
    return ", ".join(sets)


async def raise_owners(connection: Connection, numbers: Sequence[int]) -> None:
    """Make every earlier owner of these tapes a stranger; an instrument without a tape gets one."""
    await connection.execute("SET LOCAL lock_timeout = '30s'")  # who stands still is ended before, who works not
    await add_heads(connection, numbers)
    await connection.execute(_HOLD_HEADS, list(numbers))
    await connection.execute("UPDATE tape_head SET owner = owner + 1 WHERE number = ANY($1)", list(numbers))


async def renew_epochs(connection: Connection) -> None:
    """Give every tape a new epoch; positions of the old ones are refused from then on."""
    for row in await connection.fetch("SELECT number FROM tape_head ORDER BY number"):
        await connection.execute("UPDATE tape_head SET epoch = $2 WHERE number = $1", row["number"], new_epoch())
