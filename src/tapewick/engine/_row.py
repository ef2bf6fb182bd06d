"""A candle in readable Python, and its way into and out of the ``CANDLE`` dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapewick.model import CANDLE, Candles, Change, Reason, State

__all__ = ["Row", "pack", "unpack"]

_MASK64 = 2**64 - 1


@dataclass(slots=True)
class Row:
    """A candle or a delta of one: a commutative monoid under ``merge``."""

    open_time: int
    open: int = 0
    high: int = 0
    low: int = 0
    close: int = 0
    volume: int = 0
    quote_volume: int = 0
    taker_buy_volume: int = 0
    taker_buy_quote_volume: int = 0
    trades: int = 0
    first_id: int = -1
    last_id: int = -1
    first_ts: int = 0
    last_ts: int = 0
    first_key: int = 0
    last_seq: int = 0
    pos: int = 0
    rev: int = 0
    state: int = State.OPEN
    complete: int = 0
    reason: int = Reason.PROOF
    changed: bool = False

    def merge(self, other: Row) -> None:
        """self ⊕ other, in place; ``other`` has trades."""
        if self.trades == 0:
            self.high, self.low = other.high, other.low
        if self.trades == 0 or (other.first_ts, other.first_key) < (self.first_ts, self.first_key):
            self.open, self.first_id = other.open, other.first_id
            self.first_ts, self.first_key = other.first_ts, other.first_key
        if self.trades == 0 or (other.last_ts, other.last_id) > (self.last_ts, self.last_id):
            self.close, self.last_ts, self.last_id = other.close, other.last_ts, other.last_id
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.volume += other.volume
        self.quote_volume += other.quote_volume
        self.taker_buy_volume += other.taker_buy_volume
        self.taker_buy_quote_volume += other.taker_buy_quote_volume
        self.trades += other.trades
        self.last_seq = max(self.last_seq, other.last_seq)
        self.reason = max(self.reason, other.reason)


def pack(changed: Sequence[tuple[int, Row, int]], number: int) -> Candles:
    """CANDLE rows of (timeframe index, row, change)."""
    return np.array([_fields(index, row, change, number) for index, row, change in changed], CANDLE)


def _fields(index: int, row: Row, change: int, number: int) -> tuple[int | bytes, ...]:
    sums = (row.volume, row.quote_volume, row.taker_buy_volume, row.taker_buy_quote_volume)
    words = (word for value in sums for word in (value & _MASK64, value >> 64))
    reason = row.reason if change == Change.REVISED else 0
    # In the order of CANDLE: prices, sums, keys, counters, life cycle.
    return (
        row.open_time, row.open, row.high, row.low, row.close, *words,
        row.trades, row.first_id, row.last_id, row.first_ts, row.last_ts, row.first_key,
        row.last_seq, row.pos, number, index, row.rev,
        row.state, row.complete, 0, 0, change, reason, b"",
    )  # fmt: skip


def unpack(rows: Candles) -> list[tuple[int, Row]]:
    """(timeframe index, row) of each CANDLE row; what the commit did to it is not kept."""
    out = []
    for open_time, open, high, low, close, *words, _, _, _, _, _ in rows.tolist():
        volume, quote, bought, bought_quote = (words[i] + (words[i + 1] << 64) for i in (0, 2, 4, 6))
        trades, first_id, last_id, first_ts, last_ts, first_key, last_seq, pos, _, tf, rev, state, complete = words[8:]
        row = Row(
            open_time, open, high, low, close, volume, quote, bought, bought_quote,
            trades, first_id, last_id, first_ts, last_ts, first_key, last_seq, pos, rev, state, complete,
        )  # fmt: skip
        out.append((tf, row))
    return out
