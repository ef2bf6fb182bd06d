"""nautilus_trader: a trading node with the Binance data client, and an actor that keeps what it is told.

Its data client asks for a book's snapshot without waiting until the stream has begun, and looks at no update id but
the last of a frame. Where the stream begins after the snapshot, or a frame overtakes it, its book is wrong by its own
doing: then the library's own way to begin anew is called. States count while the venue's rule for the ids holds.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pandas as pd
import reading
from nautilus_trader.adapters.binance import BINANCE, BinanceDataClientConfig, BinanceLiveDataClientFactory
from nautilus_trader.adapters.binance.common.types import BinanceTicker
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import BarType, DataType
from nautilus_trader.model.enums import AggressorSide, BookAction, BookType
from nautilus_trader.model.identifiers import ClientId, InstrumentId, TraderId

server = reading.Server()
INSTRUMENT = InstrumentId.from_str(f"{server.symbol}.BINANCE")
SECONDS = BarType.from_str(f"{INSTRUMENT}-1-SECOND-LAST-EXTERNAL")
MINUTES = BarType.from_str(f"{INSTRUMENT}-1-MINUTE-LAST-EXTERNAL")
MS = 1_000_000


def bar_told(bar: Any) -> dict[str, Any]:
    """A ``BinanceBar``: it is stamped with the time its bar ends at."""
    step = 1000 if bar.bar_type.spec == SECONDS.spec else 60_000
    return {
        "open_time": bar.ts_event // MS // step * step, "open": str(bar.open), "high": str(bar.high),
        "low": str(bar.low), "close": str(bar.close), "volume": str(bar.volume),
        "quote_volume": str(bar.quote_volume), "trades": bar.count,
        "taker_buy_volume": str(bar.taker_buy_base_volume), "taker_buy_quote_volume": str(bar.taker_buy_quote_volume),
    }  # fmt: skip


def trade_told(tick: Any) -> dict[str, Any]:
    """A trade; the library makes nanoseconds of ms through a float, which may end just below."""
    return {
        "id": int(tick.trade_id.value), "price": str(tick.price), "size": str(tick.size),
        "time": (tick.ts_event + MS // 2) // MS, "maker": tick.aggressor_side == AggressorSide.SELLER,
    }  # fmt: skip


class Factory(BinanceLiveDataClientFactory):
    """The library's own; keeps the client it made, and the first update id of each frame of its book's stream."""

    made: Any = None
    firsts: dict[int, int] = {}

    @staticmethod
    def create(**named: Any) -> Any:
        made = Factory.made = BinanceLiveDataClientFactory.create(**named)
        handle = made._ws_handlers["@depth@"]

        def seen(raw: bytes) -> None:
            frame = json.loads(raw)["data"]
            Factory.firsts[frame["u"]] = frame["U"]
            handle(raw)

        made._ws_handlers["@depth@"] = seen
        return made


class Reader(Actor):
    """Asks for history, subscribes to everything, keeps the node's own book's states."""

    def on_start(self) -> None:
        self.bars: list[dict] = []
        self.trades: list[dict] = []
        self.past: dict[str, list[dict]] = {"trades": [], "bars": []}
        self.states: list[dict] = []
        self.began = self.lost = False  # a snapshot was taken; frames do not follow on it or on each other
        self.quotes: list[dict] = []
        self.tickers: list[Any] = []
        self.snapshots: list[Any] = []
        now = self.clock.utc_now()
        self.request_bars(MINUTES, start=now - pd.Timedelta(minutes=20), end=now)
        self.request_trade_ticks(INSTRUMENT, start=now - pd.Timedelta(minutes=1), end=now, limit=100)
        self.subscribe_trade_ticks(INSTRUMENT)
        self.subscribe_quote_ticks(INSTRUMENT)
        self.subscribe_bars(SECONDS)
        self.subscribe_order_book_deltas(INSTRUMENT, book_type=BookType.L2_MBP, depth=1000)
        ticker = DataType(BinanceTicker, metadata={"instrument_id": INSTRUMENT})
        self.subscribe_data(ticker, client_id=ClientId(BINANCE))

    def on_trade_tick(self, tick: Any) -> None:
        self.trades.append(trade_told(tick))

    def on_quote_tick(self, tick: Any) -> None:
        sides = {"bid": tick.bid_price, "bid_size": tick.bid_size, "ask": tick.ask_price, "ask_size": tick.ask_size}
        self.quotes.append({name: str(value) for name, value in sides.items()})

    def on_bar(self, bar: Any) -> None:
        self.bars.append(bar_told(bar))

    def on_order_book_deltas(self, deltas: Any) -> None:
        if self.states and deltas.sequence == self.states[-1]["id"]:
            return  # a frame that ends where the snapshot does, and came after it: the library applies it again
        if deltas.deltas[0].action == BookAction.CLEAR:
            self.states, self.began, self.lost = [], True, False
        elif self.began and not Factory.firsts[deltas.sequence] <= self.states[-1]["id"] + 1 <= deltas.sequence:
            self.lost = True
        if not self.began or self.lost:
            return
        book = self.cache.order_book(INSTRUMENT)
        told = {"id": deltas.sequence}
        for name, side in (("bids", book.bids()), ("asks", book.asks())):
            told[name] = [[str(level.price), str(level.size())] for level in side[: reading.LEVELS]]
        self.states.append(told)

    def on_data(self, data: Any) -> None:
        self.tickers.append(data)

    def on_historical_data(self, data: Any) -> None:
        if type(data).__name__ == "TradeTick":
            self.past["trades"].append(trade_told(data))
        else:
            self.past["bars"].append(bar_told(data))

    def counts(self) -> dict[str, int]:
        told = {"bars": self.bars, "trades": self.trades, "states": self.states, "quotes": self.quotes}
        told |= {"tickers": self.tickers, "past bars": self.past["bars"], "past trades": self.past["trades"]}
        return {name: len(rows) for name, rows in told.items()}

    async def until_enough(self, node: asyncio.Future[Any]) -> None:
        """Wait for enough of everything, beginning the book anew as often as the client has lost it."""
        while not node.done() and not self.enough():
            await reading.until(lambda: node.done() or self.lost or self.enough(), self.counts)
            if self.lost:
                await Factory.made._reconnect()
                await reading.until(lambda: node.done() or not self.lost, self.counts)

    def enough(self) -> bool:
        least = {"bars": reading.CLOSED, "trades": reading.TRADES, "states": reading.STATES, "quotes": 3,
                 "tickers": 1, "past bars": 1, "past trades": 1}  # fmt: skip
        counts = self.counts()
        return all(counts[name] >= count for name, count in least.items())


def ticker_told(ticker: Any) -> dict[str, Any]:
    return {
        "first_id": ticker.first_id, "last_id": ticker.last_id, "trades": ticker.count, "open": ticker.open_price,
        "high": ticker.high_price, "low": ticker.low_price, "close": ticker.last_price, "volume": ticker.volume,
        "quote_volume": ticker.quote_volume,
    }  # fmt: skip


async def main() -> None:
    client = BinanceDataClientConfig(
        base_url_http=server.rest,
        base_url_ws=server.ws,
        instrument_provider=InstrumentProviderConfig(load_ids=frozenset({INSTRUMENT})),
    )
    config = TradingNodeConfig(
        trader_id=TraderId("READER-001"),
        logging=LoggingConfig(log_level="ERROR"),
        data_clients={BINANCE: client},
        timeout_post_stop=0.1,
    )
    node = TradingNode(config=config, loop=asyncio.get_running_loop())
    reader = Reader()
    node.trader.add_actor(reader)
    node.add_data_client_factory(BINANCE, Factory)
    node.build()
    running = asyncio.create_task(node.run_async())
    await reading.until(lambda: node.trader.is_running or running.done(), lambda: node.trader)
    await reader.until_enough(running)
    reader.unsubscribe_trade_ticks(INSTRUMENT)
    instrument = reader.cache.instrument(INSTRUMENT)
    reading.tell(
        {
            "time": int(dt.datetime.now(dt.UTC).timestamp() * 1000),
            "markets": {
                server.symbol: {
                    "base": str(instrument.base_currency), "quote": str(instrument.quote_currency),
                    "price_step": str(instrument.price_increment), "size_step": str(instrument.size_increment),
                }
            },
            "klines": {"ranged": reader.past["bars"]},
            "bars": reader.bars,
            "trades": {"recent": reader.past["trades"], "live": reader.trades},
            "books": {"kept": reader.states},
            "quotes": {"unnumbered": reader.quotes},
            "tickers": {"live": [ticker_told(ticker) for ticker in reader.tickers]},
        }
    )  # fmt: skip
    await node.stop_async()


asyncio.run(main())
