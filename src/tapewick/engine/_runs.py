"""Runs of well-behaved trades, folded by column: what keeps the engine usable without a compiler.

Most batches are raw trades with the next ids, in order of time, each within bounds. Such a
run needs no look at single trades. Whatever is not provably so goes the readable way, trade by trade.
"""

from __future__ import annotations

import numpy as np

from tapewick.engine._row import Row
from tapewick.model import I8, I32, I64
from tapewick.timeframe import BY_INDEX, Timeframe, buckets

__all__ = ["Run", "plain_run"]

SHORTEST = 32  # below this the loop over single trades is as fast


class Run:
    """Columns of a plain run: contiguous ids, times that never go back, sums that fit 64 bits."""

    def __init__(self, id: I64, ts: I64, price: I64, size: I64, side: I64) -> None:
        self.id, self.ts, self.price, self.size = id, ts, price, size
        self.buy = np.where(side > 0, size, 0)

    def __len__(self) -> int:
        return len(self.id)

    def deltas(self, tf: Timeframe, seq: int, reason: int) -> list[Row]:
        """One delta per bucket of ``tf``, ascending; ``seq`` is that of the trade before the run."""
        opens = buckets(tf, self.ts)
        starts = np.concatenate(([0], np.flatnonzero(opens[1:] != opens[:-1]) + 1))
        ends = np.append(starts[1:], len(opens)) - 1
        columns = (
            opens[starts],
            self.price[starts],
            np.maximum.reduceat(self.price, starts),
            np.minimum.reduceat(self.price, starts),
            self.price[ends],
            np.add.reduceat(self.size, starts),
            np.add.reduceat(self.price * self.size, starts),
            np.add.reduceat(self.buy, starts),
            np.add.reduceat(self.price * self.buy, starts),
            ends - starts + 1,
            self.id[starts],
            self.id[ends],
            self.ts[starts],
            self.ts[ends],
            self.id[starts],
            ends + (seq + 1),
        )
        rows = [Row(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]
        for row in rows:
            row.reason = reason
        return rows

    def newest_second(self) -> Run:
        """The trades that share the last one's second."""
        opens = buckets(BY_INDEX[0], self.ts[-1:])[0]
        part = slice(int(np.searchsorted(self.ts, opens)), None)
        run = Run.__new__(Run)
        run.id, run.ts, run.price, run.size, run.buy = (
            c[part] for c in (self.id, self.ts, self.price, self.size, self.buy)
        )
        return run


def plain_run(
    trade_id: I64,
    first_id: I64,
    count: I64 | I32,
    ts: I64,
    price: I64,
    size: I64,
    side: I64 | I8,
    *,
    after: int,
    window: tuple[int, int],
) -> Run | None:
    """The batch as a run, if every trade is new (id above ``after``) and certainly valid; else None.

    ``window``: earliest and latest legal time. Columns have the same length.
    """
    n = len(trade_id)
    if n < SHORTEST or trade_id[0] <= max(after, -1) or int(trade_id[-1]) - int(trade_id[0]) != n - 1:
        return None
    if not ((trade_id == first_id).all() and (count == 1).all() and (np.diff(trade_id) == 1).all()):
        return None
    if ts[0] < window[0] or ts[-1] > window[1] or not (ts[1:] >= ts[:-1]).all():
        return None
    if price.min() <= 0 or size.min() <= 0 or side.min() < -1 or side.max() > 1:
        return None
    if int(price.max()) * int(size.max()) * n >= 2**63:
        return None
    return Run(*(np.asarray(c, np.int64) for c in (trade_id, ts, price, size, side)))
