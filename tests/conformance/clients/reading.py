"""What the scripts beside this file share: arguments, waiting, and one JSON object as the only output.

Each script is run by the interpreter of one client's environment, with that client as it was
published. What it read is told under the same names by all of them:

``markets``      symbol -> base, quote, price_step, size_step
``time``         the server's clock, ms
``unified``      what only this library makes of an answer
``klines``       how asked -> rows; ``earliest`` is the probe from time 0 with limit 1
``live_klines``  interval -> rows in the order they came
``trades``       how asked -> rows; ``live`` in the order they came
``aggregates``   the same for aggregates
``books``        how read -> states: update id and best levels; ``kept`` is the client's own synced book
``quotes``       how read -> best bid and ask, with the book's update id where the client shows it
``tickers``      how read -> statistics of 24 hours
``control``      what the stream server answered; ``after_unsubscribe`` counts frames of an ended stream
``micro``        times as read in microseconds
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

BARS = 60
"""Rows asked for where a client asks for the latest."""
TRADES = 40
CLOSED = 3
"""Live trades and closed 1s bars to wait for."""
STATES = 40
"""States of the client's own book to keep."""
LEVELS = 5
PATIENCE = 120.0
"""Seconds after which a condition that has not come true is an error that says what is there."""


class Server:
    """Where the client is pointed: ``rest``, ``ws`` (no trailing slash), ``symbol`` and its two assets."""

    def __init__(self) -> None:
        self.rest, self.ws, self.symbol, self.base, self.quote = sys.argv[1:6]

    @property
    def stream(self) -> str:
        return self.symbol.lower()


def tell(read: dict[str, Any]) -> None:
    """Write the one object and end at once: threads and sockets of a client are not waited for."""
    sys.stdout.write(json.dumps(read, default=str) + "\n")
    sys.stdout.flush()


async def until(done: Callable[[], object], what: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for ``done()``; an error shows ``what()``."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what()}")
        await asyncio.sleep(0.02)


class Inbox:
    """Frames of a client that calls back from its own thread, by stream name."""

    def __init__(self) -> None:
        self.frames: dict[str, list[Any]] = {}
        self.answers: list[Any] = []
        self._news = threading.Condition()

    def frame(self, stream: str, data: Any) -> None:
        with self._news:
            self.frames.setdefault(stream, []).append(data)
            self._news.notify_all()

    def answer(self, data: Any) -> None:
        with self._news:
            self.answers.append(data)
            self._news.notify_all()

    def count(self, stream: str) -> int:
        return len(self.frames.get(stream, ()))

    def until(self, done: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait for ``done()``; an error shows how many frames came of each stream."""
        with self._news:
            if not self._news.wait_for(done, seconds):
                counts = {name: len(frames) for name, frames in self.frames.items()}
                raise TimeoutError(f"not within {seconds} s: {counts}, answers {self.answers}")


def rest_kline(row: list[Any]) -> dict[str, Any]:
    """A row of 12 as the venue's REST answers it, or the first 6 of them."""
    names = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    return dict(zip((*names, "taker_buy_volume", "taker_buy_quote_volume"), row, strict=False))


def stream_kline(k: dict[str, Any]) -> dict[str, Any]:
    """The ``k`` of a kline event."""
    return {
        "open_time": int(k["t"]), "close_time": int(k["T"]), "open": k["o"], "high": k["h"], "low": k["l"],
        "close": k["c"], "volume": k["v"], "trades": int(k["n"]), "closed": bool(k["x"]), "quote_volume": k["q"],
        "taker_buy_volume": k["V"], "taker_buy_quote_volume": k["Q"], "first_id": int(k["f"]), "last_id": int(k["L"]),
    }  # fmt: skip


def rest_trade(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``/trades`` or ``/historicalTrades``."""
    return {
        "id": int(row["id"]), "price": row["price"], "size": row["qty"], "time": int(row["time"]),
        "maker": row["isBuyerMaker"],
    }  # fmt: skip


def stream_trade(row: dict[str, Any]) -> dict[str, Any]:
    """A trade event."""
    return {"id": int(row["t"]), "price": row["p"], "size": row["q"], "time": int(row["T"]), "maker": row["m"]}


def aggregate(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``/aggTrades`` or an aggTrade event."""
    return {
        "id": int(row["a"]), "price": row["p"], "size": row["q"], "first_id": int(row["f"]), "last_id": int(row["l"]),
        "time": int(row["T"]), "maker": row["m"],
    }  # fmt: skip


def book(body: dict[str, Any]) -> dict[str, Any]:
    """A depth snapshot or partial depth frame, cut to the best levels."""
    return {"id": int(body["lastUpdateId"]), "bids": body["bids"][:LEVELS], "asks": body["asks"][:LEVELS]}


def stream_quote(row: dict[str, Any]) -> dict[str, Any]:
    """A bookTicker event."""
    return {"id": int(row["u"]), "bid": row["b"], "bid_size": row["B"], "ask": row["a"], "ask_size": row["A"]}


def rest_quote(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``ticker/bookTicker``."""
    names = {"bid": "bidPrice", "bid_size": "bidQty", "ask": "askPrice", "ask_size": "askQty"}
    return {name: row[key] for name, key in names.items()}


def rest_ticker(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``ticker/24hr``."""
    return {
        "first_id": int(row["firstId"]), "last_id": int(row["lastId"]), "trades": int(row["count"]),
        "open": row["openPrice"], "high": row["highPrice"], "low": row["lowPrice"], "close": row["lastPrice"],
        "volume": row["volume"], "quote_volume": row["quoteVolume"], "change": row["priceChange"],
        "vwap": row["weightedAvgPrice"],
    }  # fmt: skip


def stream_ticker(row: dict[str, Any]) -> dict[str, Any]:
    """A 24hrTicker event."""
    return {
        "first_id": int(row["F"]), "last_id": int(row["L"]), "trades": int(row["n"]), "open": row["o"],
        "high": row["h"], "low": row["l"], "close": row["c"], "volume": row["v"], "quote_volume": row["q"],
        "change": row["p"], "vwap": row["w"],
    }  # fmt: skip


def stream_mini(row: dict[str, Any]) -> dict[str, Any]:
    """A 24hrMiniTicker event, which names no ids."""
    return {
        "time": int(row["E"]), "open": row["o"], "high": row["h"], "low": row["l"], "close": row["c"],
        "volume": row["v"], "quote_volume": row["q"],
    }  # fmt: skip


def market(entry: dict[str, Any]) -> dict[str, Any]:
    """A symbol of ``exchangeInfo``: the price filter is the first one."""
    sizes = next(f for f in entry["filters"] if f["filterType"] == "LOT_SIZE")
    return {
        "base": entry["baseAsset"], "quote": entry["quoteAsset"], "price_step": entry["filters"][0]["tickSize"],
        "size_step": sizes["stepSize"],
    }  # fmt: skip
