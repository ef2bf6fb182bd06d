"""python-binance: REST of both clients, sockets, and the DepthCacheManager."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import binance
import reading
from binance.ws.depthcache import DepthCacheManager

server = reading.Server()


def rest() -> dict[str, Any]:
    """Everything over the synchronous client."""
    client = binance.Client(requests_params={"timeout": 60})
    latest = client.get_klines(symbol=server.symbol, interval="1m", limit=reading.BARS)
    first = latest[len(latest) // 2][0]
    # get_historical_klines asks for the earliest bar first: startTime=0, limit=1.
    ranged = client.get_historical_klines(server.symbol, "1m", first, first + 4 * 60_000)
    recent = client.get_recent_trades(symbol=server.symbol, limit=100)
    info = client.get_exchange_info()
    by_id = client.get_historical_trades(symbol=server.symbol, fromId=recent[0]["id"], limit=20)
    iterated = client.aggregate_trade_iter(server.symbol, start_str=recent[0]["time"])
    aggregates = [next(iterated) for _ in range(20)]
    return {
        "time": client.get_server_time()["serverTime"],
        "markets": {s["symbol"]: reading.market(s) for s in info["symbols"]},
        "unified": {
            "symbol": client.get_symbol_info(server.symbol)["symbol"],
            "average": client.get_avg_price(symbol=server.symbol)["price"],
            "price": client.get_symbol_ticker(symbol=server.symbol)["price"],
        },
        "klines": {
            "latest": [reading.rest_kline(row) for row in latest],
            "ranged": [reading.rest_kline(row) for row in ranged],
            "earliest": [{"open_time": client._get_earliest_valid_timestamp(server.symbol, "1m")}],
        },
        "trades": {"recent": [reading.rest_trade(t) for t in recent], "by_id": [reading.rest_trade(t) for t in by_id]},
        "aggregates": {
            "recent": [reading.aggregate(t) for t in client.get_aggregate_trades(symbol=server.symbol, limit=100)],
            "iterated": [reading.aggregate(t) for t in aggregates],
        },
        "books": {"deep": [reading.book(client.get_order_book(symbol=server.symbol, limit=500))]},
        "quotes": {"rest": [reading.rest_quote(client.get_orderbook_ticker(symbol=server.symbol))]},
        "tickers": {"rest": [reading.rest_ticker(client.get_ticker(symbol=server.symbol))]},
    }


async def several(sockets: binance.BinanceSocketManager, read: dict[str, Any]) -> None:
    """One combined socket with everything."""
    names = ("trade", "aggTrade", "kline_1s", "bookTicker", "miniTicker", "ticker", "depth5@100ms")
    got: dict[str, list[dict]] = {f"{server.stream}@{name}": [] for name in names}
    least = {"trade": reading.TRADES, "aggTrade": 20, "bookTicker": 3, "miniTicker": 2, "ticker": 2, "depth5@100ms": 5}
    trades, aggregates, klines, quotes, mini, tickers, partial = got.values()

    def enough() -> bool:
        return sum(f["k"]["x"] for f in klines) >= reading.CLOSED and all(
            len(got[f"{server.stream}@{name}"]) >= count for name, count in least.items()
        )

    async with sockets.multiplex_socket(list(got)) as socket:
        while not enough():
            frame = await asyncio.wait_for(socket.recv(), reading.PATIENCE)
            got[frame["stream"]].append(frame["data"])
    read["trades"]["live"] = [reading.stream_trade(f) for f in trades]
    read["aggregates"]["live"] = [reading.aggregate(f) for f in aggregates]
    read["live_klines"] = {"1s": [reading.stream_kline(f["k"]) for f in klines]}
    read["quotes"]["live"] = [reading.stream_quote(f) for f in quotes]
    read["mini"] = [reading.stream_mini(f) for f in mini]
    read["tickers"]["live"] = [reading.stream_ticker(f) for f in tickers]
    read["books"]["partial"] = [reading.book(f) for f in partial]


async def single(sockets: binance.BinanceSocketManager, read: dict[str, Any]) -> None:
    """A raw socket of one stream."""
    async with sockets.kline_socket(server.symbol, interval="1m") as socket:
        frame = await asyncio.wait_for(socket.recv(), reading.PATIENCE)
    read.setdefault("raw_klines", []).append(reading.stream_kline(frame["k"]))


async def kept_book(client: binance.AsyncClient, read: dict[str, Any]) -> None:
    """States of the DepthCacheManager's book.

    It lays a frame that does not follow over a snapshot that may be newer, so it is right only once the stream has
    passed the newest snapshot: until then its states do not count.
    """
    manager = DepthCacheManager(client, server.symbol, ws_interval=100, conv_type=Decimal)
    states: list[dict] = []
    asked, newest = client.get_order_book, 0

    async def noted(**named: Any) -> dict[str, Any]:
        nonlocal newest
        answer = await asked(**named)
        newest = max(newest, answer["lastUpdateId"])
        return answer

    client.get_order_book = noted
    async with asyncio.timeout(reading.PATIENCE), manager as kept:
        while len(states) < reading.STATES:
            cache = await kept.recv()
            if kept._last_update_id < newest:
                states.clear()
                continue
            levels = {"bids": cache.get_bids()[: reading.LEVELS], "asks": cache.get_asks()[: reading.LEVELS]}
            states.append({"id": kept._last_update_id, **levels})
    read["books"]["kept"] = states


async def micro(read: dict[str, Any]) -> None:
    """Times in microseconds, over REST and a socket."""
    client = await binance.AsyncClient.create(time_unit="MICROSECOND")
    async with binance.BinanceSocketManager(client).trade_socket(server.symbol) as socket:
        frame = await asyncio.wait_for(socket.recv(), reading.PATIENCE)
    rows = await client.get_recent_trades(symbol=server.symbol, limit=5)
    bars = await client.get_klines(symbol=server.symbol, interval="1m", limit=2)
    read["micro"] = {"trades": [reading.stream_trade(frame), *map(reading.rest_trade, rows)], "bar": bars[0][0]}
    await client.close_connection()


async def main() -> None:
    binance.Client.API_URL = binance.AsyncClient.API_URL = f"{server.rest}/api"
    binance.BinanceSocketManager.STREAM_URL = f"{server.ws}/"
    read = await asyncio.to_thread(rest)
    client = await binance.AsyncClient.create()
    sockets = binance.BinanceSocketManager(client)
    await asyncio.gather(several(sockets, read), single(sockets, read), kept_book(client, read), micro(read))
    await client.close_connection()
    reading.tell(read)


asyncio.run(main())
