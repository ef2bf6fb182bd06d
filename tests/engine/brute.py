"""Candles and completeness by brute force, and a store that is two dictionaries.

Everything here is written from the definitions, in plain integers, so that it shares no
idea with the delta cascade it judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tapewick.model import CANDLE, NO_TIME, Reason, State
from tapewick.timeframe import BY_INDEX, STORED, bucket, bucket_end


class Trade(NamedTuple):
    id: int
    ts: int
    price: int
    size: int
    side: int = 0
    first: int = -1  # -1: the id itself
    spans: int = 1

    @property
    def first_id(self) -> int:
        return self.id if self.first == -1 else self.first


VALUES = (
    "open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume",
    "trades", "first_id", "last_id", "first_ts", "last_ts", "first_key",
)  # fmt: skip


def columns(trades: Sequence[Trade]) -> tuple[Any, ...]:
    """What ``ingest`` takes, with the dtypes of ``TradeBatch``."""
    plain = [
        np.array(c, np.int64) for c in zip(*((t.id, t.first_id, t.ts, t.price, t.size) for t in trades), strict=True)
    ]
    id, first, ts, price, size = plain or [np.empty(0, np.int64)] * 5
    count, side = np.array([t.spans for t in trades], np.int32), np.array([t.side for t in trades], np.int8)
    return id, first, count, ts, price, size, side


def values(row: Any) -> tuple[int, ...]:
    """The value fields of a ``CANDLE`` row, sums joined."""
    return tuple(
        int(row[n]) if n in CANDLE.names else (int(row[n + "_hi"]) << 64) + int(row[n + "_lo"])  # type: ignore[operator]
        for n in VALUES
    )


def candles(trades: Iterable[Trade]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Value fields of every stored candle by (tf index, open time): sort the bucket's unique trades, look."""
    members: dict[tuple[int, int], list[Trade]] = {}
    for trade in set(trades):
        for tf in STORED:
            members.setdefault((tf.index, bucket(tf, trade.ts)), []).append(trade)
    return {key: _candle(sorted(found, key=lambda t: (t.ts, t.id))) for key, found in members.items()}


def _candle(trades: list[Trade]) -> tuple[int, ...]:
    bought = [t for t in trades if t.side == 1]
    first, last = trades[0], trades[-1]
    return (
        first.price,
        max(t.price for t in trades),
        min(t.price for t in trades),
        last.price,
        sum(t.size for t in trades),
        sum(t.price * t.size for t in trades),
        sum(t.size for t in bought),
        sum(t.price * t.size for t in bought),
        sum(t.spans for t in trades),
        first.first_id,
        last.id,
        first.ts,
        last.ts,
        first.id,
    )


def is_complete(known: Iterable[Trade], start: int, end: int, slack: int) -> bool:
    """Trades p before and q after the bucket with every id between them known; id 0 has nothing before it."""
    runs: list[list[Trade]] = []
    for trade in sorted(known):
        if runs and runs[-1][-1].id + 1 == trade.id:
            runs[-1].append(trade)
        else:
            runs.append([trade])
    return any(
        (run[0].id == 0 or any(t.ts < start - slack for t in run)) and any(t.ts >= end + slack for t in run)
        for run in runs
    )


class DictStore:
    """What a store promises the engine, kept in dictionaries."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], Any] = {}
        self.ranges: dict[int, tuple[int, ...]] = {}
        self.seq = self.pos = 0
        self.watermark = NO_TIME

    def commit(self, core: Any, taken: Any) -> None:
        for row in taken.rows:
            self.rows[int(row["tf"]), int(row["open_time"])] = row.copy()
        for first in taken.ranges_gone.tolist():
            del self.ranges[first]
        for row in taken.ranges_put.tolist():
            self.ranges[row[0]] = tuple(row)
        for low, high in pairwise(sorted(self.ranges.values())):
            assert low[1] < high[0] - 1, "stored ranges must be disjoint and merged"
        self.seq, self.pos, self.watermark = core.seq, core.pos, core.watermark

    def restore(self, core: Any) -> None:
        """Bring a fresh core to where the last commit left off."""
        newest = np.full(len(BY_INDEX), NO_TIME, np.int64)
        for tf, open_time in self.rows:
            newest[tf] = max(newest[tf], open_time)
        ranges = np.array(sorted(self.ranges.values()), np.int64).reshape(-1, 4)
        rows = self._array(row for row in self.rows.values() if row["state"] != State.FINAL)
        core.restore(self.seq, self.pos, self.watermark, ranges, rows, newest)

    def load(self, keys: Any, windows: Any) -> Any:
        """Rows with ``keys``, and incomplete closed ones that overlap the half-open ``windows``."""
        wanted = {key: self.rows[key] for key in map(tuple, keys.tolist()) if key in self.rows}
        for start, to in windows.tolist():
            for key, row in self.rows.items():
                if row["state"] == State.CLOSED and row["complete"] == 0 and key[1] < to:
                    if bucket_end(BY_INDEX[key[0]], key[1]) > start:
                        wanted[key] = row
        return self._array(wanted.values())

    @staticmethod
    def _array(rows: Iterable[Any]) -> Any:
        found = list(rows)
        out = np.zeros(len(found), CANDLE)
        for i, row in enumerate(found):
            out[i] = row
        return out


class Driven:
    """A core on a ``DictStore``, driven as the pipeline drives one."""

    def __init__(self, make: Any, store: DictStore | None = None) -> None:
        self.make = make
        self.store = store or DictStore()
        self.restart()

    def restart(self) -> None:
        """Lose everything that was not committed."""
        self.core = self.make()
        self.store.restore(self.core)

    def ingest(self, trades: Sequence[Trade], covers: Any = None, clock: int = 0, reason: int = 0) -> Any:
        pairs = None if covers is None else np.array(covers, np.int64).reshape(-1, 2)
        return self.core.ingest(*columns(trades), covers=pairs, clock=clock, reason=reason)

    def take(self) -> Any:
        """``take`` after loading what was missing."""
        self.core.load(self.store.load(*self.core.missing()))
        return self.core.take()

    def commit(self) -> Any:
        taken = self.take()
        self.store.commit(self.core, taken)
        return taken

    @property
    def values(self) -> dict[tuple[int, int], tuple[int, ...]]:
        return {key: values(row) for key, row in self.store.rows.items()}

    def proven(self) -> dict[tuple[int, int], bool]:
        return {key: row["complete"] == 1 for key, row in self.store.rows.items()}


REPAIR = int(Reason.REPAIR)
