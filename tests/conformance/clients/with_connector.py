"""binance-connector: REST, and one bare ``/ws`` socket that subscribes with the same id every time."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import reading
from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

server = reading.Server()
NAMES = {"trade": "trade", "aggTrade": "aggTrade", "kline": "kline", "depthUpdate": "depth",
         "24hrMiniTicker": "miniTicker", "24hrTicker": "ticker"}  # fmt: skip


def rest() -> dict[str, Any]:
    client = Spot(base_url=server.rest)
    latest = client.klines(server.symbol, "1m", limit=reading.BARS)
    middle = latest[len(latest) // 2][0]
    recent = client.trades(server.symbol, limit=100)
    by_id = client.historical_trades(server.symbol, fromId=recent[0]["id"], limit=20)
    one = client.exchange_info(symbol=server.symbol)["symbols"]
    several = client.exchange_info(symbols=[server.symbol])["symbols"]
    klines = {
        "latest": latest,
        "ranged": client.klines(server.symbol, "1m", startTime=middle, endTime=middle + 240_000),
        "earliest": client.klines(server.symbol, "1m", startTime=0, limit=1),
        "ui": client.ui_klines(server.symbol, "1m", limit=5),
        "zone": client.klines(server.symbol, "1m", limit=5, timeZone="+05:30"),
    }
    return {
        "time": client.time()["serverTime"],
        "markets": {s["symbol"]: reading.market(s) for s in one + several},
        "unified": {
            "pinged": client.ping() == {},
            "average": client.avg_price(server.symbol)["price"],
            "price": client.ticker_price(server.symbol)["price"],
        },
        "klines": {how: [reading.rest_kline(row) for row in rows] for how, rows in klines.items()},
        "trades": {"recent": [reading.rest_trade(t) for t in recent], "by_id": [reading.rest_trade(t) for t in by_id]},
        "aggregates": {"recent": [reading.aggregate(t) for t in client.agg_trades(server.symbol, limit=100)]},
        "books": {"deep": [reading.book(client.depth(server.symbol, limit=1000))]},
        "quotes": {"rest": [reading.rest_quote(client.book_ticker(symbols=[server.symbol])[0])]},
        "tickers": {
            "rest": [reading.rest_ticker(client.ticker_24hr(server.symbol))],
            "several": [reading.rest_ticker(row) for row in client.ticker_24hr(symbols=[server.symbol])],
        },
    }


def inboxed(inbox: reading.Inbox) -> Any:
    """A message callback that sorts frames by kind."""

    def heard(_: Any, text: str) -> None:
        frame = json.loads(text)
        frame = frame.get("data", frame)
        if "e" in frame:
            inbox.frame(NAMES[frame["e"]], frame)
        elif "lastUpdateId" in frame:
            inbox.frame("partial", frame)
        elif "u" in frame:
            inbox.frame("bookTicker", frame)
        else:
            inbox.answer(frame)

    return heard


def failed(_: Any, error: Exception) -> None:
    logging.error("socket: %r", error)


def sockets(read: dict[str, Any]) -> None:
    """Everything on one socket; the venue takes five messages a second, pongs included: each waits for its answer."""
    inbox = reading.Inbox()
    client = SpotWebsocketStreamClient(stream_url=server.ws, on_message=inboxed(inbox), on_error=failed)

    def asked(request: Any, *args: Any, **kwargs: Any) -> None:
        known = len(inbox.answers)
        threading.Event().wait(0.4)
        request(*args, id=1, **kwargs)
        inbox.until(lambda: len(inbox.answers) > known)

    asked(client.subscribe, [f"{server.stream}@kline_1s", f"{server.stream}@depth5@100ms"])
    for request in (client.trade, client.agg_trade, client.book_ticker, client.mini_ticker, client.ticker):
        asked(request, symbol=server.symbol)
    asked(client.diff_book_depth, symbol=server.symbol, speed=100)
    least = {"trade": reading.TRADES, "aggTrade": 20, "bookTicker": 3, "miniTicker": 2, "ticker": 2, "depth": 5,
             "partial": 5}  # fmt: skip
    inbox.until(
        lambda: (
            all(inbox.count(name) >= count for name, count in least.items())
            and sum(f["k"]["x"] for f in inbox.frames.get("kline", ())) >= reading.CLOSED
        )
    )
    asked(client.list_subscribe)
    asked(client.agg_trade, symbol=server.symbol, action="UNSUBSCRIBE")
    before, others = inbox.count("aggTrade"), inbox.count("trade")
    inbox.until(lambda: inbox.count("trade") > others + 20)
    frames = inbox.frames
    read["control"] = {"answers": inbox.answers, "after_unsubscribe": inbox.count("aggTrade") - before}
    read["trades"]["live"] = [reading.stream_trade(f) for f in frames["trade"]]
    read["aggregates"]["live"] = [reading.aggregate(f) for f in frames["aggTrade"]]
    read["live_klines"] = {"1s": [reading.stream_kline(f["k"]) for f in frames["kline"]]}
    read["quotes"]["live"] = [reading.stream_quote(f) for f in frames["bookTicker"]]
    read["mini"] = [reading.stream_mini(f) for f in frames["miniTicker"]]
    read["tickers"]["live"] = [reading.stream_ticker(f) for f in frames["ticker"]]
    read["books"]["partial"] = [reading.book(f) for f in frames["partial"]]
    read["depth_ids"] = [[f["U"], f["u"]] for f in frames["depth"]]
    client.stop()


def micro(read: dict[str, Any]) -> None:
    """Times in microseconds: ``X-MBX-TIME-UNIT`` over REST, ``?timeUnit=`` on a bare ``/ws``."""
    client = Spot(base_url=server.rest, time_unit="microsecond")
    inbox = reading.Inbox()
    socket = SpotWebsocketStreamClient(
        stream_url=server.ws, on_message=inboxed(inbox), on_error=failed, time_unit="MICROSECOND"
    )
    socket.trade(symbol=server.symbol)
    inbox.until(lambda: inbox.count("trade") >= 5)
    rows = client.trades(server.symbol, limit=5)
    told = [*map(reading.stream_trade, inbox.frames["trade"]), *map(reading.rest_trade, rows)]
    read["micro"] = {"trades": told, "bar": client.klines(server.symbol, "1m", limit=2)[0][0]}
    socket.stop()


def combined(read: dict[str, Any]) -> None:
    """A ``/stream`` socket wraps its frames with their stream's name."""
    inbox = reading.Inbox()
    names: list[str] = []

    def heard(_: Any, text: str) -> None:
        frame = json.loads(text)
        if "stream" in frame:
            names.append(frame["stream"])
            inbox.frame("any", frame)

    socket = SpotWebsocketStreamClient(stream_url=server.ws, on_message=heard, on_error=failed, is_combined=True)
    socket.trade(symbol=server.symbol)
    inbox.until(lambda: inbox.count("any") >= 3)
    read["control"]["wrapped"] = sorted(set(names))
    socket.stop()


read = rest()
sockets(read)
micro(read)
combined(read)
reading.tell(read)
