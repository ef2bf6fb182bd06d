"""A candle in readable Python, and its way into and out of the ``CANDLE`` dtype."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tapewick.model import Change, Reason, State

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


_PLAIN = (
    "open_time", "open", "high", "low", "close", "trades", "first_id", "last_id", "first_ts", "last_ts", "first_key",
    "last_seq", "pos", "rev", "state", "complete",
)  # fmt: skip
_SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def pack(slot: np.void, row: Row, index: int, number: int, change: int) -> None:
    """Write ``row`` of timeframe ``index`` into a ``CANDLE`` slot."""
    for name in _PLAIN:
        slot[name] = getattr(row, name)
    for name in _SUMS:
        value = getattr(row, name)
        slot[name + "_lo"], slot[name + "_hi"] = value & _MASK64, value >> 64
    slot["number"], slot["tf"], slot["change"] = number, index, change
    slot["reason"] = row.reason if change == Change.REVISED else 0


def unpack(slot: np.void) -> Row:
    """The row a ``CANDLE`` slot holds; what the commit did to it is not kept."""
    row = Row(int(slot["open_time"]))
    for name in _PLAIN:
        setattr(row, name, int(slot[name]))
    for name in _SUMS:
        setattr(row, name, (int(slot[name + "_hi"]) << 64) + int(slot[name + "_lo"]))
    return row
