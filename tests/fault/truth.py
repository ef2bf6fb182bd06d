"""What must be in a store after everything that went wrong: the venue's trades, and candles of them by brute force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Protocol

from tapewick.model import State
from tapewick.protocols import Store
from tapewick.sim.bars import INTERVALS
from tapewick.sim.market import SimTrade
from tapewick.sim.venue import SimVenue
from tapewick.timeframe import BY_INDEX, STORED, bucket_end
from tests.engine.brute import Trade, candles, values
from tests.fault.rig import opened

__all__ = ["Collected", "assert_tape_is_the_truth"]

MS = 1_000_000
LATENESS = 2 * 10**9


class Collected(Protocol):
    """What was collected of which venue's symbols, and where it is."""

    @property
    def venue(self) -> SimVenue: ...
    @property
    def store(self) -> Store: ...
    @property
    def symbols(self) -> Sequence[str]: ...
    def id(self, symbol: str) -> str:
        """The instrument of a symbol."""
        ...


async def assert_tape_is_the_truth(rig: Collected) -> int:
    """Every trade once and exact, no hole, every candle of the 17 stored timeframes right; how many trades.

    The tape begins with the first trade that was collected.
    """
    return sum([await _assert_one(rig, symbol, rig.venue.truth(symbol)) for symbol in rig.symbols])


async def _assert_one(rig: Collected, symbol: str, happened: list[SimTrade]) -> int:
    id = rig.id(symbol)
    state = await rig.store.coverage(id)
    assert not opened(state)
    assert len(state.ranges) == 1, "one unbroken range of ids"
    low, high = state.ranges[0, :2].tolist()
    truth = [trade for trade in happened if low <= trade.id <= high]
    ids = {trade.id for trade in truth}
    assert set(range(low, high + 1)) - ids <= rig.venue.voids(symbol), "what is covered is a trade or void"
    own = state.instrument
    stored, head = await rig.store.trades(id)
    assert stored.seq is not None and stored.seq.tolist() == list(range(1, head.seq + 1))
    columns = zip(stored.trade_id, stored.price, stored.size, stored.ts_event, stored.side, strict=True)
    tape = sorted(tuple(map(int, row)) for row in columns)
    scaled = [_row(trade, own.price_scale, own.size_scale) for trade in truth]
    assert tape == scaled, f"{id}: {_difference(tape, scaled)}"
    await _assert_candles(rig, id, [Trade(*row[:1], row[3], row[1], row[2], row[4]) for row in scaled])
    await _assert_bars(rig, id, symbol, truth)
    return len(truth)


def _row(trade: SimTrade, price_scale: int, size_scale: int) -> tuple[int, int, int, int, int]:
    price, size = Decimal(trade.price).scaleb(price_scale), Decimal(trade.size).scaleb(size_scale)
    assert price == int(price) and size == int(size)
    return trade.id, int(price), int(size), trade.time * MS, -1 if trade.buyer_is_maker else 1


def _difference(got: Iterable[tuple[object, ...]], wanted: Iterable[tuple[object, ...]]) -> str:
    first, second = set(got), set(wanted)
    return f"too much {sorted(first - second, key=str)[:5]}, missing {sorted(second - first, key=str)[:5]}"


async def _assert_candles(rig: Collected, id: str, trades: list[Trade]) -> None:
    """Values by brute force; complete wherever an id on either side proves it, and only there."""
    wanted = candles(trades)
    first, last = trades[0].ts, trades[-1].ts
    for tf in STORED:
        rows, head = await rig.store.candles(id, tf.index)
        got = {(tf.index, int(row["open_time"])): values(row) for row in rows}
        assert len(got) == len(rows), f"{id} {tf.name}: a candle is stored twice"
        true = {key: value for key, value in wanted.items() if key[0] == tf.index}
        assert got == true, f"{id} {tf.name}: {_difference(got.items(), true.items())}; {rows}; {head}"
        for row in rows:
            start = int(row["open_time"])
            end = bucket_end(BY_INDEX[tf.index], start)
            assert (row["state"] == State.OPEN) == (end > head.watermark), (id, tf.name, start)
            if row["state"] != State.OPEN:
                proven = first < start - LATENESS and last >= end + LATENESS
                assert (row["complete"] == 1) == proven, (id, tf.name, start)


async def _assert_bars(rig: Collected, id: str, symbol: str, truth: list[SimTrade]) -> None:
    """The venue's own bars, where all their trades are on the tape."""
    names = {tf.name: tf for tf in STORED}
    for interval in INTERVALS:
        if interval not in names:
            continue
        rows, _ = await rig.store.candles(id, names[interval].index)
        bars = rig.venue.bars(symbol, interval, start=truth[0].time, end=truth[-1].time)
        told = {bar.start * MS: bar for bar in bars if bar.trades and bar.end <= truth[-1].time}
        for row in rows:
            bar = told.pop(int(row["open_time"]), None)
            if bar is not None:
                own = values(row)
                assert own[:11] == (
                    bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote, bar.taker, bar.taker_quote,
                    bar.trades, bar.first_id, bar.last_id,
                ), (id, interval)  # fmt: skip
        assert not told, f"{id} {interval}: no candle at {sorted(told)}"
