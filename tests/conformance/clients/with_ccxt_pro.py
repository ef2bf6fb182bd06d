"""ccxt.pro: trades, bars, book, tickers and quotes over sockets, each on a path of its own (``/ws/0``, ``/ws/1`` …)."""

from __future__ import annotations

import asyncio
from typing import Any

import ccxt.pro
import reading


class Watch:
    """What the watch methods returned, in order."""

    def __init__(self, exchange: Any, pair: str) -> None:
        self.x, self.pair = exchange, pair
        self.trades: list[dict] = []
        self.bars: dict[str, dict[int, list]] = {"1s": {}, "1m": {}}
        self.states: list[dict] = []
        self.quotes: list[dict] = []
        self.tickers: list[dict] = []
        self.mini: list[dict] = []

    async def follow_trades(self) -> None:
        while True:
            self.trades += [reading.stream_trade(t["info"]) for t in await self.x.watch_trades(self.pair)]

    async def follow_bars(self, timeframe: str) -> None:
        while True:
            for bar in await self.x.watch_ohlcv(self.pair, timeframe):
                self.bars[timeframe][bar[0]] = bar

    async def follow_book(self) -> None:
        while True:
            book = await self.x.watch_order_book(self.pair)
            levels = {side: [list(level) for level in book[side][: reading.LEVELS]] for side in ("bids", "asks")}
            self.states.append({"id": book["nonce"], **levels})

    async def follow_quotes(self) -> None:
        while True:
            told = await self.x.watch_bids_asks([self.pair])
            self.quotes += [reading.stream_quote(one["info"]) for one in told.values()]

    async def follow_ticker(self) -> None:
        while True:
            self.sort(await self.x.watch_ticker(self.pair, {"name": "ticker"}))

    async def follow_mini(self) -> None:
        while True:
            for told in (await self.x.watch_tickers([self.pair])).values():
                self.sort(told)

    def sort(self, ticker: dict) -> None:
        """Both kinds of ticker wake whoever watches the symbol's."""
        if ticker["info"]["e"] == "24hrTicker":
            self.tickers.append(reading.stream_ticker(ticker["info"]))
        else:
            self.mini.append(reading.stream_mini(ticker["info"]))

    def counts(self) -> dict:
        return {
            "trades": len(self.trades), "1s": len(self.bars["1s"]), "1m": len(self.bars["1m"]),
            "states": len(self.states), "quotes": len(self.quotes), "tickers": len(self.tickers),
            "mini": len(self.mini),
        }  # fmt: skip

    def enough(self) -> bool:
        wanted = {"trades": reading.TRADES, "1s": reading.CLOSED + 1, "1m": 1, "states": reading.STATES,
                  "quotes": 3, "tickers": 2, "mini": 2}  # fmt: skip
        counts = self.counts()
        return all(counts[name] >= least for name, least in wanted.items())


async def main() -> None:
    server = reading.Server()
    x = ccxt.pro.binance(
        {"enableRateLimit": False, "timeout": 60_000, "options": {"fetchMarkets": {"types": ["spot"]}}}
    )
    x.urls["api"]["public"] = f"{server.rest}/api/v3"
    x.urls["api"]["ws"]["spot"] = f"{server.ws}/ws"
    x.has["fetchCurrencies"] = False
    markets = await x.load_markets()
    watch = Watch(x, f"{server.base}/{server.quote}")
    work = [watch.follow_trades(), watch.follow_bars("1s"), watch.follow_bars("1m"), watch.follow_book()]
    work += [watch.follow_quotes(), watch.follow_ticker(), watch.follow_mini()]
    tasks = [asyncio.create_task(one) for one in work]

    def over() -> bool:
        for task in tasks:
            if task.done():
                task.result()
        return watch.enough()

    await reading.until(over, watch.counts)
    tasks[0].cancel()
    await x.un_watch_trades(watch.pair)
    seconds = sorted(watch.bars["1s"].items())
    reading.tell(
        {
            "markets": {m["id"]: reading.market(m["info"]) for m in markets.values()},
            "trades": {"live": watch.trades},
            # The last one may still have been open.
            "bars": [reading.rest_kline(bar) for _, bar in seconds[:-1]],
            "books": {"kept": watch.states},
            "quotes": {"live": watch.quotes},
            "tickers": {"live": watch.tickers},
            "mini": watch.mini,
            "control": {"unwatched": True},
        }
    )
    for task in tasks:
        task.cancel()
    await x.close()


asyncio.run(main())
