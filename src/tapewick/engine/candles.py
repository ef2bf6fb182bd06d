"""Candle arithmetic on ``CANDLE`` arrays: fold trades, roll candles up, fill empty buckets, choose an origin.

Everything here is exact: sums are 128-bit, carried as a signed high and an unsigned low word,
and every function is pure. The engine's delta cascade must equal these laws; imports and
reads use them directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tapewick.errors import ModelError
from tapewick.model import CANDLE, I64, NO_TIME, Candles, State, TradeBatch, empty_candles
from tapewick.timeframe import BY_INDEX, DAY, STORED, Timeframe, bucket, bucket_end, buckets

__all__ = ["SUMS", "choose", "fill", "fold", "nests", "put_sums", "roll_up", "roll_up_tree", "sums"]

SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
"""The four 128-bit fields."""

U64 = npt.NDArray[np.uint64]
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


def sums(rows: Candles, name: str) -> list[int]:
    """The values of one 128-bit field (``SUMS``) as Python integers, one per row."""
    pairs = zip(rows[name + "_hi"].tolist(), rows[name + "_lo"].tolist(), strict=True)
    return [(high << 64) + low for high, low in pairs]


def put_sums(rows: Candles, name: str, values: Sequence[int]) -> None:
    """Write one 128-bit field of every row."""
    rows[name + "_lo"] = np.array([value & 0xFFFF_FFFF_FFFF_FFFF for value in values], np.uint64)
    rows[name + "_hi"] = np.array([value >> 64 for value in values], np.int64)


def _add_groups(low: U64, high: I64, starts: I64) -> tuple[U64, I64]:
    """Sums of 128-bit words per group; groups begin at ``starts`` and hold fewer than 2**32 rows."""
    small = np.add.reduceat(low & _LOW, starts)
    large = np.add.reduceat(low >> _HALF, starts) + (small >> _HALF)
    carry = (large >> _HALF).astype(np.int64)
    return (large << _HALF) | (small & _LOW), np.add.reduceat(high, starts) + carry


def _products(a: I64, b: I64) -> tuple[U64, I64]:
    """``a * b`` of non-negative int64 columns as (low, high) words."""
    x, y = a.astype(np.uint64), b.astype(np.uint64)
    x_low, x_high, y_low, y_high = x & _LOW, x >> _HALF, y & _LOW, y >> _HALF
    bottom = x_low * y_low
    cross = x_high * y_low + (bottom >> _HALF)
    middle = x_low * y_high + (cross & _LOW)
    high = x_high * y_high + (cross >> _HALF) + (middle >> _HALF)
    return (middle << _HALF) | (bottom & _LOW), high.astype(np.int64)


def _group_starts(keys: I64) -> I64:
    """Where each run of equal ``keys`` (ascending, not empty) begins."""
    return np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))


def nests(child: Timeframe, parent: Timeframe) -> bool:
    """Whether every bucket of ``parent`` is a whole number of buckets of ``child``."""
    if child.calendar or child.index == parent.index:
        return False
    length = DAY if parent.calendar else parent.length
    # A day of 3d or 1w starts anywhere in a month, so only frames that divide a day nest in one.
    offset = 0 if parent.calendar else parent.offset
    return length % child.length == 0 and (offset - child.offset) % child.length == 0


def roll_up(rows: Candles, tf: Timeframe) -> Candles:
    """The candles of ``tf`` that ``rows``, candles of one finer frame, add up to; ascending.

    A row without trades contributes nothing, whatever prices it carries, and a bucket
    without trades has no candle. ``complete`` is the least of the children's: a hole lies
    between two trades, so it marks a child on either side. Raises ``ModelError`` when
    the frame of ``rows`` does not nest in ``tf``.
    """
    rows = rows[rows["trades"] > 0]
    if not len(rows):
        return empty_candles()
    source = BY_INDEX[int(rows["tf"][0])]
    if not nests(source, tf) or (rows["tf"] != source.index).any():
        raise ModelError(f"{source.name} candles do not add up to {tf.name}; roll up from a frame that divides it")
    rows = rows[np.argsort(rows["open_time"], kind="stable")]
    keys = buckets(tf, rows["open_time"])
    first = _group_starts(keys)
    last = np.append(first[1:], len(rows)) - 1
    out = rows[first]
    out["open_time"], out["tf"] = keys[first], tf.index
    for name in ("close", "last_id", "last_ts"):
        out[name] = rows[name][last]
    for name in ("high", "last_seq", "pos"):
        out[name] = np.maximum.reduceat(rows[name], first)
    for name in ("low", "state", "complete"):
        out[name] = np.minimum.reduceat(rows[name], first)
    out["trades"] = np.add.reduceat(rows["trades"], first)
    for name in SUMS:
        out[name + "_lo"], out[name + "_hi"] = _add_groups(rows[name + "_lo"], rows[name + "_hi"], first)
    for name in ("rev", "filled", "change", "reason"):
        out[name] = 0
    return out


def roll_up_tree(rows: Candles, tf: Timeframe) -> Candles:
    """Candles of every coarser stored frame that ``tf`` nests in, frame by frame, each ascending.

    Only buckets that lie wholly inside the span of ``rows`` are made: one cut by the edge of
    an import would look like a whole candle and be wrong.
    """
    if not len(rows):
        return empty_candles()
    start = int(rows["open_time"].min())
    end = bucket_end(tf, int(rows["open_time"].max()))
    parts = [rows[:0]]
    for parent in STORED:
        if parent.index > tf.index and nests(tf, parent):
            made = roll_up(rows, parent)
            whole = (made["open_time"] >= start) & (made["open_time"] < bucket(parent, end))
            parts.append(made[whole])
    return np.concatenate(parts)


def fold(batch: TradeBatch, tf: Timeframe, *, watermark: int = NO_TIME) -> Candles:
    """The candles of ``tf`` that unique trades make, ascending, at the batch's scales.

    Candles that end at or before ``watermark`` are closed, others open; ``complete`` is 0,
    since only the ledger can prove more.
    """
    if not len(batch):
        return empty_candles()
    batch = batch.select(np.lexsort((batch.trade_id, batch.ts_event)))
    keys = buckets(tf, batch.ts_event)
    first = _group_starts(keys)
    last = np.append(first[1:], len(batch)) - 1
    out = np.zeros(len(first), CANDLE)
    out["open_time"], out["tf"] = keys[first], tf.index
    out["open"], out["close"] = batch.price[first], batch.price[last]
    out["high"] = np.maximum.reduceat(batch.price, first)
    out["low"] = np.minimum.reduceat(batch.price, first)
    out["first_id"], out["last_id"] = batch.first_id[first], batch.trade_id[last]
    out["first_ts"], out["last_ts"] = batch.ts_event[first], batch.ts_event[last]
    out["first_key"] = batch.trade_id[first]
    out["trades"] = np.add.reduceat(batch.count.astype(np.int64), first)
    if batch.seq is not None:
        out["last_seq"] = np.maximum.reduceat(batch.seq, first)
    for taker, mine in (("", None), ("taker_buy_", batch.side > 0)):
        size = batch.size if mine is None else np.where(mine, batch.size, 0)
        base = (size.astype(np.uint64), np.zeros(len(size), np.int64))
        for name, (low, high) in ((taker + "volume", base), (taker + "quote_volume", _products(batch.price, size))):
            out[name + "_lo"], out[name + "_hi"] = _add_groups(low, high, first)
    ends = np.array([bucket_end(tf, open_time) for open_time in out["open_time"].tolist()], np.int64)
    out["state"] = np.where(ends <= watermark, State.CLOSED, State.OPEN)
    return out


def choose(tape: Candles, imported: Candles) -> Candles:
    """What a read of one frame returns: the tape's row where complete, else the import's, else the tape's."""
    if not len(imported) or not len(tape):
        return tape if len(tape) else imported
    proven = tape["open_time"][tape["complete"] == 1]
    imported = imported[~np.isin(imported["open_time"], proven)]
    kept = tape[~np.isin(tape["open_time"], imported["open_time"])]
    rows = np.concatenate((kept, imported))
    return rows[np.argsort(rows["open_time"], kind="stable")]


def fill(
    rows: Candles,
    tf: Timeframe,
    start: int,
    end: int,
    mode: Literal["prev", "null"],
    *,
    watermark: int | None = None,
    gaps: Sequence[tuple[int, int]] = (),
) -> Candles:
    """``rows`` of one frame with ``start`` ≤ open_time < ``end``, empty buckets filled; ascending.

    ``prev`` repeats the close before (``filled`` 1), ``null`` has no prices (``filled`` 2); both
    have no trades and ids -1. Rows before ``start`` are not returned but give the close to
    begin with: without one, nothing is filled before the first row. Filling ends with the
    last row, or with the last bucket that ended by ``watermark``; buckets that touch an open gap,
    given as (left_ts, right_ts), stay out. A filled row is complete where both neighbours are.
    """
    real = rows[rows["trades"] > 0]
    inside = real[(real["open_time"] >= start) & (real["open_time"] < end)]
    if not len(real):
        return inside
    opens = _empty_opens(real, tf, start, end, watermark, gaps)
    if not len(opens):
        return inside
    before = np.searchsorted(real["open_time"], opens) - 1
    filled = _filled(opens, real, before, mode)
    out = np.concatenate((inside, filled))
    return out[np.argsort(out["open_time"], kind="stable")]


def _empty_opens(
    real: Candles, tf: Timeframe, start: int, end: int, watermark: int | None, gaps: Sequence[tuple[int, int]]
) -> I64:
    """Open times of the buckets to fill."""
    first = max(start, int(real["open_time"][0]))
    last = min(end, bucket_end(tf, int(real["open_time"][-1])))
    if watermark is not None:
        last = min(end, max(last, bucket(tf, watermark)))
    opens = _grid(tf, first, last)
    opens = opens[~np.isin(opens, real["open_time"])]
    ends = opens + tf.length if not tf.calendar else np.array([bucket_end(tf, t) for t in opens.tolist()], np.int64)
    for left, right in gaps:
        hit = (opens <= right) & (ends > left)
        opens, ends = opens[~hit], ends[~hit]
    return opens


def _grid(tf: Timeframe, start: int, end: int) -> I64:
    """Every open time of ``tf`` in [start, end)."""
    begin = bucket(tf, start)
    if begin < start:
        begin = bucket_end(tf, begin)
    if not tf.calendar:
        return np.arange(begin, end, tf.length, dtype=np.int64)
    opens = []
    while begin < end:
        opens.append(begin)
        begin = bucket_end(tf, begin)
    return np.array(opens, np.int64)


def _filled(opens: I64, real: Candles, before: I64, mode: Literal["prev", "null"]) -> Candles:
    """Rows without trades at ``opens``; ``before``: index of the last real row before each."""
    left = real[before]
    has_right = before + 1 < len(real)
    right = real[np.minimum(before + 1, len(real) - 1)]
    out = np.zeros(len(opens), CANDLE)
    out["open_time"], out["first_id"], out["last_id"], out["first_key"] = opens, -1, -1, -1
    for name in ("tf", "number", "origin"):
        out[name] = left[name]
    unproven = np.minimum(left["complete"], 0)
    out["complete"] = np.where(has_right, np.minimum(left["complete"], right["complete"]), unproven)
    out["state"] = np.where(
        has_right & (left["state"] == State.FINAL) & (right["state"] == State.FINAL), State.FINAL, State.CLOSED
    )
    out["filled"] = 1 if mode == "prev" else 2
    if mode == "prev":
        for name in ("open", "high", "low", "close"):
            out[name] = left["close"]
    return out
