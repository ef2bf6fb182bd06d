"""What the sockets carry of one symbol, and when: trades as they happen, books in steps, bars and
tickers at their pace. Nothing is computed that nobody listens to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from tapewick.sim.bars import Bar, Grid
from tapewick.sim.book import STEP_MS, Best, Book, Levels
from tapewick.sim.frames import (
    Step,
    agg_frame,
    average_frame,
    depth_frame,
    kline_frame,
    mini_frame,
    partial_frame,
    quote_frame,
    ticker_frame,
    trade_frame,
)
from tapewick.sim.market import Market, SimTrade
from tapewick.sim.outlet import Make, Outlet
from tapewick.sim.symbol import DAY, Symbol, Top

__all__ = ["NEVER", "BarStreams", "BookStreams", "Spawn", "TradeStreams"]

Spawn = Callable[[Coroutine[Any, Any, None]], None]

NEVER = 1 << 62
CATCH_UP_MS = 10_000  # after a suspended machine wakes, older trades are a hole, as at a real venue
CATCH_UP_STEPS = 25  # after a pause: more would take longer than it lasted where the machine is that busy
CATCH_UP_BARS = 1000
_DEPTH = re.compile(r"depth(5|10|20|)(?:@(0|100|250|500|1000)ms)?", re.ASCII)


class TradeStreams:
    """``@trade`` and ``@aggTrade``. ``sent``: id of the last trade that has happened.

    ``skip``: how many of the next trades are not sent; ``late``: how many of the next frames come
    ``delay`` ms late.
    """

    def __init__(self, symbol: Symbol, outlet: Outlet, *, futures: bool, patience: float) -> None:
        self._symbol, self._outlet, self._futures = symbol, outlet, futures
        self._patience = int(CATCH_UP_MS * patience)
        self._held: list[tuple[int, str, Make]] = []
        self.first = self.sent = 0
        self.skip = self.late = self.delay = 0

    def start(self, now: int) -> None:
        self.sent = self._symbol.tape.last_id(now)
        self.first = self.sent + 1

    def void(self, count: int, now: int) -> None:
        """Take ``count`` of the ids to come after ``now``, each alone in its order, away from trading."""
        tape = self._symbol.tape
        assert isinstance(tape, Market)
        first = tape.last_id(now) + 1
        coming = tape.trades(first, first + 20 * count + 20)
        tape.voids.update([trade.id for trade in coming if trade.agg_first == trade.agg_last][:count])

    def due(self) -> int:
        tape = self._symbol.tape
        assert isinstance(tape, Market)
        return min([tape.time_of(self.sent + 1) + 1, *(due for due, _, _ in self._held)])

    def advance(self, now: int) -> None:
        """Send what has happened before the millisecond ``now``; its own may not be over yet."""
        self._release(now)
        tape, name = self._symbol.tape, self._symbol.name.lower()
        first, last = self.sent + 1, tape.last_id(now)
        if last < first:
            return
        first = max(first, tape.first_id_at(now - self._patience))
        if unsent := min(self.skip, last - first + 1):
            self.skip -= unsent
            first += unsent
        self.sent = last
        kinds = self._outlet.kinds(name)
        rows = tape.trades(first, last) if "trade" in kinds or "aggTrade" in kinds else []
        for trade in rows:
            if "trade" in kinds:
                self._send(f"{name}@trade", self._trade(trade, now), now)
            if "aggTrade" in kinds and trade.id == trade.agg_first:
                fills = tape.trades(trade.agg_first, trade.agg_last)
                self._send(f"{name}@aggTrade", self._aggregate(fills, now), now)

    def _trade(self, trade: SimTrade, now: int) -> Make:
        return lambda unit: trade_frame(self._symbol.name, trade, now, unit, futures=self._futures)

    def _aggregate(self, fills: list[SimTrade], now: int) -> Make:
        return lambda unit: agg_frame(self._symbol.name, fills, now, unit)

    def _send(self, stream: str, make: Make, now: int) -> None:
        if self.late:
            self.late -= 1
            self._held.append((now + self.delay, stream, make))
        else:
            self._outlet.publish(stream, make)

    def _release(self, now: int) -> None:
        due = [held for held in self._held if held[0] <= now]
        if due:
            self._held = [held for held in self._held if held[0] > now]
            for _, stream, make in due:
                self._outlet.publish(stream, make)


class BookStreams:
    """``@depth``, ``@depth<n>`` and ``@bookTicker``. ``skip``: how many of the next diffs are not sent;
    ``cross``: how many of the next diffs carry a bid above the best ask."""

    def __init__(self, symbol: Symbol, book: Book, outlet: Outlet, *, futures: bool) -> None:
        self._symbol, self._book, self._outlet, self._futures = symbol, book, outlet, futures
        self._step = -1
        self._told: dict[str, int] = {}
        self._best: Best | None = None
        self.skip = self.cross = 0

    def due(self) -> int:
        kinds = self._outlet.kinds(self._symbol.name.lower())
        if "bookTicker" in kinds:
            return self._book.time(self._step + 1)
        if any(kind.startswith("depth") for kind in kinds):
            return self._book.time(self._step - (self._step + 1) % 5 + 5)
        return NEVER

    def advance(self, now: int) -> None:
        """Send what all steps that have ended by ``now`` changed."""
        newest = self._book.step_at(now)
        kinds = self._outlet.kinds(self._symbol.name.lower())
        depths = [(kind, found) for kind in kinds if (found := _DEPTH.fullmatch(kind))]
        for gone in self._told.keys() - {kind for kind, _ in depths}:
            del self._told[gone]
        if depths or "bookTicker" in kinds:
            for step in range(max(self._step + 1, newest - CATCH_UP_STEPS), newest + 1):
                if "bookTicker" in kinds:
                    self._quote(step)
                for kind, found in depths:
                    every = max(int(found[2] or (250 if self._futures else 1000)), 100) // STEP_MS
                    if (step + 1) % every == 0:
                        self._depth(kind, int(found[1] or 0), step, every)
        self._step = newest

    def _quote(self, step: int) -> None:
        best = self._book.best(step)
        if best == self._best:
            return
        self._best = best
        symbol, now = self._symbol, self._book.time(step)
        prices = symbol.price(best.bid), symbol.size(best.bid_size), symbol.price(best.ask), symbol.size(best.ask_size)
        top = Top(self._book.last_id(step), *prices)
        self._outlet.publish(
            f"{symbol.name.lower()}@bookTicker",
            lambda unit: quote_frame(symbol.name, top, now, unit, futures=self._futures),
        )

    def _depth(self, kind: str, count: int, step: int, every: int) -> None:
        before = self._told.get(kind, max(step - every, -1))
        self._told[kind] = step
        ids = self._book.last_id(before), self._book.last_id(step)
        # Futures ids have holes between diffs: there only ``pu`` chains.
        at = Step(self._book.time(step), ids[0] + (2 if self._futures else 1), ids[1], ids[0])
        symbol, futures = self._symbol, self._futures
        levels = self._book.levels(step)
        if count:
            make: Make = lambda unit: partial_frame(symbol, levels, count, at, unit, futures=futures)  # noqa: E731
        else:
            if self.skip:
                self.skip -= 1
                return
            changes = self._crossed(self._book.changes(before, step), step)
            make = lambda unit: depth_frame(symbol, changes, at, unit, futures=futures)  # noqa: E731
        self._outlet.publish(f"{symbol.name.lower()}@{kind}", make)

    def _crossed(self, changes: Levels, step: int) -> Levels:
        if not self.cross:
            return changes
        self.cross -= 1
        best = self._book.best(step)
        return Levels({best.ask + 7: best.bid_size} | changes.bids, changes.asks)


class _Line:
    """One kline stream: the bar it is at, when to push next, and how many trades were pushed last."""

    def __init__(self, interval: str, grid: Grid, start: int) -> None:
        self.interval, self.grid, self.start = interval, grid, start
        self.end = grid.next(start)
        self.pace = 1000 if interval == "1s" else 2000
        self.push, self.pushed = 0, -1


class BarStreams:
    """``@kline_<i>``, ``@miniTicker``, ``@ticker`` and ``@avgPrice``; each begins once its past is computed."""

    def __init__(self, symbol: Symbol, outlet: Outlet, spawn: Spawn) -> None:
        self._symbol, self._outlet, self._spawn = symbol, outlet, spawn
        self._lines: dict[str, _Line | None] = {}
        self._tickers: dict[str, int] = {}

    def due(self) -> int:
        lines = (min(line.push, line.end) for line in self._lines.values() if line is not None)
        return min([NEVER, *lines, *self._tickers.values()])

    def advance(self, now: int) -> None:
        kinds = self._outlet.kinds(self._symbol.name.lower())
        for gone in self._lines.keys() - kinds:
            del self._lines[gone]
        for gone in self._tickers.keys() - kinds:
            del self._tickers[gone]
        for kind in kinds:
            if kind.startswith("kline_"):
                self._bars(kind, now)
            elif kind in ("miniTicker", "ticker", "avgPrice"):
                self._ticker(kind, now)

    def _bars(self, kind: str, now: int) -> None:
        if kind not in self._lines:
            interval, _, zone = kind.removeprefix("kline_").partition("@")
            grid = Grid.of(interval, zone or "0")
            self._lines[kind] = None
            if grid is not None:
                self._spawn(self._begin(kind, _Line(interval, grid, grid.open(now)), now))
        line = self._lines[kind]
        if line is None:
            return
        behind = 0
        while now >= line.end:
            if behind < CATCH_UP_BARS:
                self._push(kind, line, now, closed=True)
            line.start, line.pushed, behind = line.end, -1, behind + 1
            line.end = line.grid.next(line.start)
        if now >= line.push:
            line.push = now + line.pace
            self._push(kind, line, now, closed=False)

    async def _begin(self, kind: str, line: _Line, now: int) -> None:
        await self._symbol.bars.warm(line.start, now, now)
        if kind in self._lines and self._lines[kind] is None:
            self._lines[kind] = line

    def _push(self, kind: str, line: _Line, now: int, *, closed: bool) -> None:
        bar = self._symbol.bars.bar(line.start, line.end, now)
        if closed or bar.trades != line.pushed:
            line.pushed = bar.trades
            self._outlet.publish(f"{self._symbol.name.lower()}@{kind}", self._kline(line.interval, bar, now, closed))

    def _kline(self, interval: str, bar: Bar, now: int, closed: bool) -> Make:
        return lambda unit: kline_frame(self._symbol, interval, bar, now, unit, closed=closed)

    def _ticker(self, kind: str, now: int) -> None:
        if kind not in self._tickers:
            self._tickers[kind] = NEVER
            self._spawn(self._open(kind, now))
        if now < self._tickers[kind]:
            return
        self._tickers[kind] = now + 1000
        symbol = self._symbol
        if kind == "avgPrice":
            bar = symbol.bars.bar(now - 300_000, now, now)
            make: Make = lambda unit: average_frame(symbol, bar, now, unit)  # noqa: E731
        else:
            day = symbol.day(now)
            whole = ticker_frame if kind == "ticker" else mini_frame
            make = lambda unit: whole(symbol, day, now, unit)  # noqa: E731
        self._outlet.publish(f"{symbol.name.lower()}@{kind}", make)

    async def _open(self, kind: str, now: int) -> None:
        await self._symbol.bars.warm(now - DAY, now, now)
        await asyncio.sleep(0)
        if kind in self._tickers:
            self._tickers[kind] = 0
