"""Klines as the venue answers them: flat bars for quiet buckets, and days that begin at any local midnight.

Stored candles are UTC. A ``timeZone`` moves the boundaries of longer intervals; those bars are rolled
up for the one answer from the longest frame whose buckets the shifted ones consist of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tapewick.engine.candles import fill, nests, roll_up
from tapewick.market import FAR, Market, Window
from tapewick.model import CandleBatch, Candles, Head, State, empty_candles
from tapewick.timeframe import BY_INDEX, BY_NAME, Timeframe, bucket, bucket_end

__all__ = ["Klines", "klines"]

MOST_ROWS = 50_000  # candles one shifted answer is rolled up from; longer answers are cut short
BASES = tuple(BY_NAME[name] for name in ("1h", "30m", "15m", "5m", "1m"))


class Klines(NamedTuple):
    """Bars of one interval, ascending. ``shift`` (ns) was added to their open times. ``complete``:
    whether all closed ones are proven whole; None where that cannot be told."""

    batch: CandleBatch
    shift: int
    complete: bool | None


async def klines(
    market: Market, id: str, tf: Timeframe, start: int | None, end: int | None, limit: int, zone: int = 0
) -> Klines:
    """Bars with ``start`` ≤ open time < ``end`` (ns): the oldest ``limit`` where ``start`` is given, else the newest.

    ``zone``: how far local time is ahead of UTC, ns. Raises ``NotFound``, ``BadRequest``.
    """
    window = Window(start, end, limit, newest=start is None)
    if start is not None and end is not None and end <= start:
        head = await market.head(id)
        return Klines(_batch(id, empty_candles(), head), 0, None)
    if not _moves(tf, zone):
        batch = (await market.candles(id, tf, window, fill="prev")).batch
        return Klines(batch, 0, _complete(batch.rows))
    batch = await _shifted(market, id, tf, window, zone)
    return Klines(batch, zone, _complete(batch.rows))


def _moves(tf: Timeframe, zone: int) -> bool:
    """Whether local buckets of ``tf`` begin at other times than UTC ones."""
    return zone != 0 and (tf.calendar or zone % tf.length != 0)


def _batch(id: str, rows: Candles, head: Head) -> CandleBatch:
    return CandleBatch(
        instrument=id,
        rows=rows,
        price_scale=head.price_scale,
        size_scale=head.size_scale,
        epoch=head.epoch,
        pos=head.pos,
    )


async def _shifted(market: Market, id: str, tf: Timeframe, window: Window, zone: int) -> CandleBatch:
    """The local bars of ``window``, with open times in local time."""
    base = next(one for one in BASES if zone % one.length == 0 and nests(one, tf))
    local = window._replace(
        start=None if window.start is None else _first_open(tf, window.start + zone),
        end=None if window.end is None else _first_open(tf, window.end + zone),
    )
    reach = min(MOST_ROWS, window.limit * -(-tf.length // base.length))
    wanted = Window(
        None if local.start is None else local.start - zone,
        None if local.end is None else local.end - zone,
        reach,
        window.newest,
    )
    answer = await market.candles(id, base, wanted)
    rows = answer.batch.rows.copy()
    rows["open_time"] += zone
    made = roll_up(rows, tf)
    if len(rows) >= reach and len(made):  # the read may have ended inside a bucket
        made = made[1:] if window.newest else made[:-1]
    filled = await _filled(market, id, tf, made, local, answer.head, zone)
    return _batch(id, local.cut(filled), answer.head)


async def _filled(
    market: Market, id: str, tf: Timeframe, rows: Candles, local: Window, head: Head, zone: int
) -> Candles:
    """``rows`` with flat bars in quiet buckets, up to the watermark."""
    before = empty_candles()
    start = local.start
    if start is None:
        if not len(rows):
            return rows
        last = max(bucket_end(tf, int(rows["open_time"][-1])), bucket(tf, max(head.watermark, 0) + zone))
        start = max(int(rows["open_time"][0]), min(last, local.end or FAR) - (local.limit + 1) * tf.length)
    else:
        minute = BY_INDEX[1]
        before = (await market.candles(id, minute, Window(end=start - zone, limit=1, newest=True))).batch.rows.copy()
        before["open_time"] = [bucket(tf, int(t) + zone) for t in before["open_time"]]
        before["tf"] = tf.index
        if not len(before):
            if not len(rows):
                return rows
            start = max(start, int(rows["open_time"][0]))
    end = FAR if local.end is None else local.end
    if not local.newest:
        end = min(end, start + (local.limit + 1) * tf.length)
    state = await market.coverage(id)
    gaps = [(gap.left_ts + zone, gap.right_ts + zone) for gap in state.gaps if gap.state != "closed"]
    return fill(np.concatenate((before, rows)), tf, start, end, "prev", watermark=head.watermark + zone, gaps=gaps)


def _first_open(tf: Timeframe, t: int) -> int:
    """The first open time at or after ``t``."""
    begin = bucket(tf, min(t, FAR))
    return begin if begin >= t else bucket_end(tf, begin)


def _complete(rows: Candles) -> bool | None:
    """Whether the closed bars are proven whole; a flat bar lies between two proven ones or proves nothing."""
    if not len(rows) or int(rows["tf"][0]) == 0:  # seconds are folded from trades and carry no proof
        return None
    closed = rows["complete"][(rows["state"] != State.OPEN) & (rows["filled"] == 0)]
    if not len(closed) or (closed < 0).any():
        return None
    return bool((closed == 1).all())
