"""Aggregates on a tape of raw trades: of one whose ids are known in part, what is missing becomes one record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tapewick.model import I64, TradeBatch

__all__ = ["known_in_part", "trimmed", "widened", "without_empty"]


def known_in_part(batch: TradeBatch, ranges: I64) -> I64:
    """Indices of the records of which some ids, and not all, lie in ``ranges`` (n, 4), the coverage ledger."""
    several = np.flatnonzero(batch.trade_id > batch.first_id)
    covered = held(batch, several, ranges)
    ids = batch.trade_id[several] - batch.first_id[several] + 1
    return several[(covered > 0) & (covered < ids)]


def held(batch: TradeBatch, rows: I64, ranges: I64) -> I64:
    """How many ids of each of the records ``rows`` (indices) lie in ``ranges``."""
    if not len(rows) or not len(ranges):
        return np.zeros(len(rows), np.int64)
    return _covered_upto(batch.trade_id[rows], ranges) - _covered_upto(batch.first_id[rows] - 1, ranges)


def widened(batch: TradeBatch, size_scale: int) -> TradeBatch:
    """``batch`` with sizes of at least ``size_scale`` digits: a part may need more of them than the whole."""
    if batch.size_scale >= size_scale:
        return batch
    return replace(batch, size=batch.size * 10 ** (size_scale - batch.size_scale), size_scale=size_scale)


def trimmed(batch: TradeBatch, part: int, ranges: I64, known: TradeBatch) -> TradeBatch:
    """``batch`` with its record ``part`` reduced to the ids that are missing in ``ranges``.

    The record is then keyed by its highest missing id and has the size that the ``known`` trades of its ids, of no
    wider scale, leave: 0 where nothing is left. Where that cannot be told it stays as it is, for the tape to refuse:
    known trades reach beyond its ids, were let go by retention, or are more than the whole.
    """
    trade_id, first_id, size = batch.trade_id.copy(), batch.first_id.copy(), batch.size.copy()
    count = batch.count.copy()
    low, high = int(first_id[part]), int(trade_id[part])
    ids = np.arange(low, high + 1)
    missing = ids[_covered_upto(ids, ranges) == _covered_upto(ids - 1, ranges)]
    own = (known.first_id >= low) & (known.trade_id <= high)
    beyond = (known.first_id <= high) & (known.trade_id >= low) & ~own
    accounted = int(known.count[own].sum()) + len(ids) - int(count[part])
    left = int(size[part]) - int(known.size[own].sum()) * 10 ** (batch.size_scale - known.size_scale)
    if beyond.any() or accounted < len(ids) - len(missing) or left < 0:
        return batch
    size[part] = left
    first_id[part], trade_id[part], count[part] = missing[0], missing[-1], len(missing)
    return replace(batch, trade_id=trade_id, first_id=first_id, count=count, size=size)


def without_empty(batch: TradeBatch) -> TradeBatch:
    """The records of which something is left; the batch still vouches for all of its ids."""
    return batch.select(np.flatnonzero(batch.size > 0))


def _covered_upto(ids: I64, ranges: I64) -> I64:
    """How many covered ids are at most as high as each of ``ids``."""
    lengths = ranges[:, 1] - ranges[:, 0] + 1
    before = np.concatenate(([0], np.cumsum(lengths)))
    at = np.searchsorted(ranges[:, 0], ids, side="right")
    last = np.maximum(at - 1, 0)
    inside = np.minimum(ids, ranges[last, 1]) - ranges[last, 0] + 1
    return np.where(at == 0, 0, before[last] + inside)
