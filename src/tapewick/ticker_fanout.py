"""Channel ``ticker``: last price, 24 h and session statistics, newest only."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from tapewick import wire
from tapewick.channel import Batch, Channel
from tapewick.errors import StoreError
from tapewick.market import Market
from tapewick.model import CandleBatch
from tapewick.proto_frames import in_ns
from tapewick.readers import Readers
from tapewick.timeframe import parse

__all__ = ["TickerFanout"]

log = structlog.get_logger()


class TickerFanout(Readers):
    """The ticker as it is, then its newest state at most every ``pace`` seconds: each is worked out from a day of
    candles, so it is not done for every trade."""

    def __init__(self, market: Market, channel: Channel, pace: float, *, proto: bool = False) -> None:
        super().__init__(channel)
        self._market, self._pace, self._proto = market, pace, proto
        self._minutes = Channel("candle", channel.instrument, parse("1m"))
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._working: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._market.attach(self._minutes, self)

    def close(self) -> None:
        self._market.detach(self._minutes, self)
        if self._timer is not None:
            self._timer.cancel()
        if self._working is not None:
            self._working.cancel()

    # -- what the market tells -----------------------------------------------------------------

    def durable(self, batch: Batch) -> None:
        self._changed()

    def provisional(self, batch: CandleBatch) -> None:
        self._changed()

    def restarted(self) -> None:
        self._changed()

    def _changed(self) -> None:
        if self._timer is None and self._groups:
            self._timer = self._loop.call_at(max(self._due, self._loop.time()), self._begin)

    def _begin(self) -> None:
        self._timer, self._due = None, self._loop.time() + self._pace
        if self._working is None or self._working.done():
            self._working = self._loop.create_task(self._work(), name=self.name)
        else:
            self._changed()

    async def _work(self) -> None:
        try:
            text = await self._text("update")
        except StoreError as error:
            log.error("a ticker could not be worked out", instrument=self.channel.instrument, cause=str(error))
        else:
            self._write_latest(text)

    async def _present(self) -> bytes:
        text = await self._text("snapshot")
        # Meanwhile the others may have been told something newer: let the next one reach all.
        self._loop.call_soon(self._changed)
        return text

    async def _text(self, kind: str) -> bytes:
        ticker = await self._market.ticker(self.channel.instrument)
        if self._proto:
            return wire.frame(kind, channel=self.name, ts=self._market.now(), ticker=in_ns(ticker))
        return self._head(kind, self._market.now()) + msgspec.json.encode(ticker) + b"]}"
