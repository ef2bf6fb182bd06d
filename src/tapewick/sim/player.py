"""Recordings served again, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from tapewick.clock import RecordedClock
from tapewick.sim.capture import CapturedFrame, captured_trade, read_capture
from tapewick.sim.outlet import Outlet
from tapewick.sim.recorded import Recorded
from tapewick.sim.streams import TradeStreams
from tapewick.sim.symbol import Symbol

__all__ = ["Player"]

CHUNK = 256


class Player:
    """Publishes recorded frames at ``speed`` times real time; None: as fast as the clients read."""

    def __init__(
        self,
        symbols: Mapping[str, Symbol],
        trades: Mapping[str, TradeStreams],
        outlet: Outlet,
        flush: Callable[[], None],
        *,
        speed: float | None,
    ) -> None:
        self._symbols, self._trades, self._outlet, self._flush = symbols, trades, outlet, flush
        self._clock = RecordedClock(speed)
        self._speed = speed
        self._by_stream = {name.lower(): symbol.tape for name, symbol in symbols.items()}
        self._around: Recorded | None = None

    async def play(self, path: Path) -> None:
        """Serve one file to its end."""
        for number, frame in enumerate(read_capture(path)):
            self._take(frame)
            if self._speed is not None:
                await self._clock.reach(frame.recv)
                self._flush()
            elif number % CHUNK == CHUNK - 1:
                await self._drained()
        await self._drained()

    def _take(self, frame: CapturedFrame) -> None:
        if not frame.stream:
            # A recorded REST answer names no symbol: it is that of the frames around it.
            if self._around is not None:
                self._around.book.restart(frame.data)
            return
        name, _, kind = frame.stream.partition("@")
        tape = self._by_stream.get(name)
        if isinstance(tape, Recorded):
            self._around = tape
            if kind.partition("@")[0] == "depth":
                tape.book.apply(frame.data)
        if (found := captured_trade(frame)) is not None and isinstance(tape, Recorded):
            symbol, trade = found
            tape.add(trade)
            streams = self._trades[symbol]
            streams.first = min(streams.first, trade.id) if streams.sent else trade.id
            streams.sent = max(streams.sent, trade.id)
        self._outlet.publish(frame.stream, lambda unit: frame.data)

    async def _drained(self) -> None:
        self._flush()
        await asyncio.sleep(0)
        for client in list(self._outlet.clients):
            await client.writable.wait()
