"""Trades of any exchange that ccxt can watch: an optional bridge (``pip install tapewick[ccxt]``).

ccxt hands over one dict per trade, so this is for breadth, not for speed. Its venues number
trades each in their own way: ids tell trades apart but prove nothing, so instruments are
``unique`` and their candles' ``complete`` stays unknown.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from hashlib import blake2b
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from tapewick.clock import Clock, RealClock
from tapewick.decimals import split
from tapewick.errors import BadDecimal, ConfigError
from tapewick.model import Event, Health, Instrument, Side, TradeBatch
from tapewick.net.backoff import Backoff

__all__ = ["CcxtSource"]

MOST_WAITING = 1000  # batches; more are dropped and counted
TICK = 1.0
NUMBERED = 2**62
MS = 1_000_000

Row: TypeAlias = tuple[int, int, int, int, int]  # id, time (ns), price, size, side


class CcxtSource:
    """Live trades of ``symbols`` (ccxt's spelling, ``BTC/USD``) at the exchange ccxt calls ``venue``.

    ``options`` go to the exchange's constructor. Counters: ``rejects`` (trades that cannot be read),
    ``dropped`` (batches nobody took in time). Raises ``ConfigError`` where ccxt is absent or does not know the venue.
    """

    pull = False

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        venue: str,
        options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        retry_cap: float = 60.0,
    ) -> None:
        if not symbols:
            raise ConfigError(f"no symbol to collect: name at least one, as in {venue}:BTC/USD")
        try:
            self._ccxt: Any = import_module("ccxt.pro")
        except ImportError as error:
            raise ConfigError(
                f"{venue!r} is not built in (binance, binance-usdm and binance-coinm are); if ccxt knows it: "
                "pip install 'tapewick[ccxt]', then try again"
            ) from error
        if venue not in self._ccxt.exchanges:
            raise ConfigError(f"{venue!r} is no venue that ccxt can watch; see its list of exchanges")
        self.name = venue
        self.rejects: Counter[str] = Counter()
        self.dropped = 0
        self._symbols = tuple(dict.fromkeys(symbols))
        self._options = {"newUpdates": True, **(options or {})}
        self._clock = clock or RealClock()
        self._retry_cap = retry_cap
        self._queue: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)
        self._exchange: Any = None
        self._instruments: dict[str, Instrument] = {}

    def exchange(self) -> Any:
        """A new ccxt exchange whose numbers stay text; override its addresses before ``events`` if need be."""
        self._exchange = getattr(self._ccxt, self.name)(self._options)
        self._exchange.number = str  # floats would round what the venue sent
        return self._exchange

    async def events(self) -> AsyncGenerator[Event, None]:
        """Instruments, trades as they come, clock ticks and health; never ends.

        Raises ``ConfigError`` for a symbol the exchange does not list or trades it cannot stream.
        """
        exchange = self._exchange or self.exchange()
        try:
            await self._listed(exchange)
            for instrument in self._instruments.values():
                yield instrument
            work = asyncio.create_task(self._run(exchange))
            try:
                while True:
                    taken = asyncio.create_task(self._queue.get())
                    await asyncio.wait({taken, work}, return_when=asyncio.FIRST_COMPLETED)
                    if work.done() and not taken.done():
                        taken.cancel()
                        _raise_first(work)
                    yield taken.result()
            finally:
                work.cancel()
                await asyncio.wait({work})
        finally:
            await exchange.close()

    async def _run(self, exchange: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for symbol in self._symbols:
                group.create_task(self._watch(exchange, symbol))
            group.create_task(self._tick())

    async def _listed(self, exchange: Any) -> None:
        backoff = Backoff(cap=self._retry_cap)
        while True:
            try:
                markets = await exchange.load_markets()
            except self._ccxt.NetworkError as error:
                self._tell("disconnected", str(error))
                await self._clock.sleep(backoff.delay())
            else:
                break
        missing = [symbol for symbol in self._symbols if symbol not in markets]
        if missing:
            raise ConfigError(f"{self.name} does not list {' '.join(missing)}; write symbols as ccxt does (BTC/USD)")
        if not exchange.has.get("watchTrades"):
            raise ConfigError(f"ccxt cannot stream trades of {self.name}; choose another venue")
        for symbol in self._symbols:
            self._instruments[symbol] = self._instrument(symbol, markets[symbol])

    def _instrument(self, symbol: str, market: Mapping[str, Any]) -> Instrument:
        precision = market.get("precision") or {}
        return Instrument(
            id=f"{self.name}:{symbol}",
            venue=self.name,
            symbol=symbol,
            base=market.get("base") or "",
            quote=market.get("quote") or "",
            price_scale=_scale(precision.get("price")),
            size_scale=_scale(precision.get("amount")),
            status="trading" if market.get("active") is not False else "closed",
            id_kind="unique",
        )

    async def _watch(self, exchange: Any, symbol: str) -> None:
        backoff = Backoff(cap=self._retry_cap)
        while True:
            try:
                trades = await exchange.watch_trades(symbol)
            except self._ccxt.NetworkError as error:
                self._tell("disconnected", f"{symbol}: {error}")
                await self._clock.sleep(backoff.delay())
                continue
            except self._ccxt.NotSupported as error:
                raise ConfigError(f"ccxt cannot stream trades of {self.name}: {error}") from error
            if backoff.failures:
                backoff.reset()
                self._tell("connected", f"{symbol}: data flow")
            batch = self._batch(self._instruments[symbol], trades)
            if len(batch):
                self._offer(batch)

    def _batch(self, instrument: Instrument, trades: Sequence[Mapping[str, Any]]) -> TradeBatch:
        read = [(trade, split(str(trade["price"])), split(str(trade["amount"]))) for trade in self._readable(trades)]
        price_scale = max([instrument.price_scale, *(price[1] for _, price, _ in read)])
        size_scale = max([instrument.size_scale, *(size[1] for _, _, size in read)])
        recv, repeats = self._clock.now(), Counter[str]()
        rows: list[Row] = []
        for trade, price, size in read:
            row = (
                self._id(trade, repeats),
                int(trade["timestamp"]) * MS,
                price[0] * 10 ** (price_scale - price[1]),
                size[0] * 10 ** (size_scale - size[1]),
                {"buy": Side.BUY, "sell": Side.SELL}.get(str(trade.get("side")), Side.UNKNOWN),
            )
            if max(row[2], row[3]) < 2**63:
                rows.append(row)
            else:
                self.rejects["overflow"] += 1
        columns = np.array(rows, np.int64).reshape(-1, 5)
        return TradeBatch(
            instrument=instrument.id,
            trade_id=columns[:, 0].copy(),
            first_id=columns[:, 0].copy(),
            count=np.ones(len(rows), np.int32),
            ts_event=columns[:, 1].copy(),
            ts_recv=np.full(len(rows), recv, np.int64),
            price=columns[:, 2].copy(),
            size=columns[:, 3].copy(),
            side=columns[:, 4].astype(np.int8),
            price_scale=price_scale,
            size_scale=size_scale,
            clock=recv,
            source=self.name,
        )

    def _readable(self, trades: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those with a time, a positive price and a size; the others are counted."""
        good = []
        for trade in trades:
            try:
                price, size = split(str(trade["price"])), split(str(trade["amount"]))
                if price[0] > 0 and size[0] > 0 and int(trade["timestamp"]) > 0:
                    good.append(trade)
                    continue
            except (KeyError, TypeError, ValueError, BadDecimal):
                self.rejects["malformed"] += 1
                continue
            self.rejects["bad_number"] += 1
        return good

    def _id(self, trade: Mapping[str, Any], repeats: Counter[str]) -> int:
        """The venue's number where it is one, else 62 bits drawn from its text, or from what the trade is."""
        text = str(trade.get("id") or "")
        if text.isascii() and text.isdigit() and int(text) < NUMBERED:
            return int(text)
        if not text:
            text = f"{trade['timestamp']}|{trade['price']}|{trade['amount']}|{trade.get('side')}"
            repeats[text] += 1
            text = f"{text}|{repeats[text]}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % NUMBERED

    async def _tick(self) -> None:
        """The local clock once a second: it closes candles of quiet instruments."""
        while True:
            await self._clock.sleep(TICK)
            now = self._clock.now()
            for instrument in self._instruments.values():
                self._offer(TradeBatch.empty(instrument.id, clock=now, source=self.name))

    def _tell(self, state: Any, detail: str) -> None:
        self._offer(Health(source=self.name, state=state, ts=self._clock.now(), detail=detail))

    def _offer(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1


def _raise_first(work: asyncio.Task[None]) -> None:
    """Raise what ended ``work``: the first of a group of errors."""
    error = work.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error


def _scale(precision: Any) -> int:
    """Digits after the point of ccxt's precision: a tick size, or already a count of digits."""
    if precision is None:
        return 8
    text = str(precision)
    if text.isdigit() and int(text) > 1:
        return min(int(text), 18)
    try:
        mantissa, scale = split(text)
    except BadDecimal:
        return 8
    return min(scale, 18) if mantissa else 8
