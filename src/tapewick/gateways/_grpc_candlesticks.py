"""The legacy stream ``aggregator.AggregatorService/StreamCandlesticks``, wire-exact.

1m candles of all Binance instruments to every client, once when they close; a candle whose prices or
volume change later is sent again whole, with the same symbol and minute. Clients upsert.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc
import structlog

from tapewick import metrics
from tapewick.channel import Batch, Channel
from tapewick.errors import StoreError
from tapewick.gateways._binance_symbols import chosen
from tapewick.gateways._grpc_stream import End, Sink
from tapewick.market import Market
from tapewick.model import NO_TIME, CandleBatch, State
from tapewick.timeframe import SECOND, parse
from tapewick.v1 import aggregator_pb2 as pb

__all__ = ["Candlesticks"]

log = structlog.get_logger()

LOOK = 1.0  # seconds between looks for new instruments
REMEMBERED = 1440  # candles per instrument whose values are known to have been sent
MINUTE = parse("1m")


class Values(NamedTuple):
    """What the legacy message tells of a candle, as exact numbers."""

    open: int
    high: int
    low: int
    close: int
    volume: int


class Symbol:
    """The listener of one instrument; what closed or changed goes to ``candlesticks``."""

    def __init__(self, owner: Candlesticks, name: str, id: str) -> None:
        self.id, self._owner, self._name = id, owner, name
        self.channel = Channel("candle", id, MINUTE)
        self._sent: dict[int, Values] = {}
        self.newest = NO_TIME  # open time of the newest candle that had closed before anybody could listen

    def durable(self, batch: Batch) -> None:
        if not isinstance(batch, CandleBatch):
            return
        rows = batch.rows[batch.rows["state"] != State.OPEN]
        for row in rows[rows["open_time"].argsort(kind="stable")]:
            volume = (int(row["volume_hi"]) << 64) + int(row["volume_lo"])
            prices = (int(row[name]) for name in ("open", "high", "low", "close"))
            values = Values._make((*prices, volume))
            if self._news(int(row["open_time"]), values, int(row["state"]) == State.FINAL and not row["rev"]):
                self._owner.send(_message(self._name, int(row["open_time"]), values, batch))

    def _news(self, open_time: int, values: Values, unchanged: bool) -> bool:
        """Whether this candle was not sent so. ``unchanged``: it is as it was when it closed."""
        before, self._sent[open_time] = self._sent.get(open_time), values
        while len(self._sent) > REMEMBERED:
            del self._sent[min(self._sent)]
        if before is None and unchanged and open_time <= self.newest:
            return False  # it closed before this server listened; now it only became final
        return before != values

    def provisional(self, batch: CandleBatch) -> None:
        """Open candles are on the native service."""

    def restarted(self) -> None:
        self._sent.clear()


class Candlesticks:
    """Follows every instrument and writes to all clients; ``venue`` as for Binance clients."""

    def __init__(self, market: Market, *, venue: str, queue_bytes: int) -> None:
        self._market, self._venue, self._bound = market, venue, queue_bytes
        self._symbols: dict[str, Symbol] = {}
        self._clients: set[Sink] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def ids(self) -> dict[str, str]:
        """The instrument of each symbol."""
        return {name: symbol.id for name, symbol in self._symbols.items()}

    async def start(self) -> None:
        """Follow the instruments there are, and those that come."""
        await self._look()
        self._task = asyncio.create_task(self._keep_looking(), name="candlesticks")

    async def stop(self) -> None:
        """Follow nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for symbol in self._symbols.values():
            self._market.detach(symbol.channel, symbol)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._look()
            except StoreError as error:
                log.error("cannot look for new instruments", cause=str(error))
            except Exception:
                log.exception("cannot look for new instruments")

    async def _look(self) -> None:
        ids = chosen(await self._market.instruments(), venue=self._venue)
        for name, id in ids.items():
            known = self._symbols.get(name)
            if known is not None and known.id == id:
                continue
            if known is not None:
                self._market.detach(known.channel, known)
            symbol = self._symbols[name] = Symbol(self, name, id)
            head = await self._market.attach(symbol.channel, symbol)
            symbol.newest = head.watermark - MINUTE.length

    def send(self, message: bytes) -> None:
        """To every client; who has no room for it is cut off."""
        for sink in self._clients:
            if sink.size + len(message) > self._bound:
                metrics.slow_closes.inc()
                sink.end(End(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow_consumer: read faster"))
            else:
                sink.put(message)

    def enter(self, sink: Sink) -> None:
        """A client has come."""
        self._clients.add(sink)
        metrics.clients.inc()

    def leave(self, sink: Sink) -> None:
        """It has gone."""
        self._clients.discard(sink)
        metrics.clients.dec()


def _message(symbol: str, open_time: int, values: Values, batch: CandleBatch) -> bytes:
    # Dividing whole numbers gives the nearest double; multiplying by a power would not.
    price, size = 10**batch.price_scale, 10**batch.size_scale
    made = pb.StreamResponse(
        symbol=symbol,
        open=values.open / price,
        high=values.high / price,
        low=values.low / price,
        close=values.close / price,
        volume=values.volume / size,
    )
    made.timestamp.seconds = open_time // SECOND
    return bytes(made.SerializeToString())
