"""cryptofeed: one ``wss://`` socket with everything in its address, books kept from a snapshot and diffs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import reading
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import CANDLES, L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Binance

server = reading.Server()
logging.getLogger("feedhandler").addHandler(logging.StreamHandler())


class Pointed(Binance):
    """The library's own exchange at another address."""

    websocket_endpoints = [WebsocketEndpoint(server.ws)]
    rest_endpoints = [
        RestEndpoint(server.rest, routes=Routes("/api/v3/exchangeInfo", l2book="/api/v3/depth?symbol={}&limit={}"))
    ]


class Heard:
    """What the callbacks were told."""

    def __init__(self) -> None:
        self.aggregates: list[dict] = []
        self.quotes: list[dict] = []
        self.klines: list[dict] = []
        self.states: list[dict] = []

    async def trade(self, trade: Any, _: float) -> None:
        self.aggregates.append(reading.aggregate(trade.raw) | {"price": trade.price, "size": trade.amount})

    async def ticker(self, ticker: Any, _: float) -> None:
        self.quotes.append(reading.stream_quote(ticker.raw) | {"bid": ticker.bid, "ask": ticker.ask})

    async def candle(self, candle: Any, _: float) -> None:
        told = {name: getattr(candle, name) for name in ("open", "high", "low", "close", "volume", "trades", "closed")}
        self.klines.append(reading.stream_kline(candle.raw["k"]) | told)

    async def book(self, book: Any, _: float) -> None:
        sides = {}
        for name in ("bids", "asks"):
            side = getattr(book.book, name)
            sides[name] = [list(side.index(place)) for place in range(reading.LEVELS)]
        self.states.append({"id": book.sequence_number, **sides})

    def enough(self) -> bool:
        return (
            len(self.aggregates) >= 30
            and len(self.quotes) >= 3
            and len(self.klines) >= 2
            and len(self.states) >= reading.STATES
        )

    def counts(self) -> dict:
        return {name: len(told) for name, told in vars(self).items()}


async def main() -> None:
    heard = Heard()
    pair = f"{server.base}-{server.quote}"
    handler = FeedHandler({"log": {"filename": "cryptofeed.log", "level": "WARNING"}, "uvloop": False})
    handler.add_feed(
        Pointed(
            symbols=[pair],
            channels=[TRADES, TICKER, CANDLES, L2_BOOK],
            candle_interval="1m",
            candle_closed_only=False,
            callbacks={TRADES: heard.trade, TICKER: heard.ticker, CANDLES: heard.candle, L2_BOOK: heard.book},
        )
    )
    handler.run(start_loop=False, install_signal_handlers=False)
    await reading.until(heard.enough, heard.counts)
    info = Pointed.info()
    steps = {symbol: {"price_step": info["tick_size"][symbol]} for symbol in info["symbols"]}
    reading.tell(
        {
            "markets": {symbol.replace("-", ""): told for symbol, told in steps.items()},
            "aggregates": {"live": heard.aggregates},
            "quotes": {"live": heard.quotes},
            "live_klines": {"1m": heard.klines},
            "books": {"kept": heard.states},
        }
    )
    await handler.stop_async(asyncio.get_running_loop())


asyncio.run(main())
