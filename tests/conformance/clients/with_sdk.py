"""binance-sdk-spot: REST with compression, ``/stream`` with ids of 36 characters.

Its time-out of 1000 ms is set to what a machine that does much else may take.
"""

from __future__ import annotations

import asyncio
from typing import Any

import reading
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_common.constants import TimeUnit
from binance_sdk_spot.rest_api.models import KlinesIntervalEnum, UiKlinesIntervalEnum
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_streams.models import (
    DiffBookDepthUpdateSpeedEnum,
    KlineIntervalEnum,
    PartialBookDepthLevelsEnum,
    PartialBookDepthUpdateSpeedEnum,
)

server = reading.Server()
TIMEOUT = 20_000  # ms


def rows(response: Any) -> list[dict[str, Any]]:
    """The rows of an answer, as the library's models print them."""
    return [row.to_dict() for row in response.data()]


def rest(api: Any) -> dict[str, Any]:
    symbol, minute = server.symbol, KlinesIntervalEnum.INTERVAL_1m
    latest = api.klines(symbol, minute, limit=reading.BARS).data()
    middle = latest[len(latest) // 2][0]
    klines = {
        "latest": latest,
        "ranged": api.klines(symbol, minute, start_time=middle, end_time=middle + 240_000).data(),
        "earliest": api.klines(symbol, minute, start_time=0, limit=1).data(),
        "seconds": api.klines(symbol, KlinesIntervalEnum.INTERVAL_1s, end_time=middle + 9_999, limit=10).data(),
        "ui": api.ui_klines(symbol, UiKlinesIntervalEnum.INTERVAL_1m, limit=5).data(),
    }
    recent = rows(api.get_trades(symbol, limit=100))
    return {
        "time": api.time().data().server_time,
        "markets": {s["symbol"]: reading.market(s) for s in api.exchange_info(symbol).data().to_dict()["symbols"]},
        "unified": {
            "average": api.avg_price(symbol).data().price,
            "price": api.ticker_price(symbol).data().actual_instance.price,
            "limits": [limit.rate_limit_type for limit in api.exchange_info().data().rate_limits],
        },
        "klines": {how: [reading.rest_kline(row) for row in told] for how, told in klines.items()},
        "trades": {
            "recent": [reading.rest_trade(t) for t in recent],
            "by_id": [
                reading.rest_trade(t) for t in rows(api.historical_trades(symbol, limit=20, from_id=recent[0]["id"]))
            ],
        },
        "aggregates": {"recent": [reading.aggregate(t) for t in rows(api.agg_trades(symbol, limit=100))]},
        "books": {"deep": [reading.book(api.depth(symbol, limit=1000).data().to_dict())]},
        "quotes": {"rest": [reading.rest_quote(api.ticker_book_ticker(symbol).data().actual_instance.to_dict())]},
        "tickers": {"rest": [reading.rest_ticker(api.ticker24hr(symbol).data().actual_instance.to_dict())]},
    }


async def subscribed(connection: Any) -> dict[str, Any]:
    """A handle per stream; the library waits half a second before each subscription."""
    symbol = server.stream
    return {
        "trade": await connection.trade(symbol=symbol),
        "aggTrade": await connection.agg_trade(symbol=symbol),
        "kline": await connection.kline(symbol=symbol, interval=KlineIntervalEnum.INTERVAL_1s.value),
        "depth": await connection.diff_book_depth(
            symbol=symbol, update_speed=DiffBookDepthUpdateSpeedEnum.UPDATE_SPEED_100ms.value
        ),
        "partial": await connection.partial_book_depth(
            symbol=symbol,
            levels=PartialBookDepthLevelsEnum.LEVELS_5.value,
            update_speed=PartialBookDepthUpdateSpeedEnum.UPDATE_SPEED_100ms.value,
        ),
        "bookTicker": await connection.book_ticker(symbol=symbol),
        "miniTicker": await connection.mini_ticker(symbol=symbol),
        "ticker": await connection.ticker(symbol=symbol),
        "avgPrice": await connection.avg_price(symbol=symbol),
    }


async def sockets(streams: Any, read: dict[str, Any]) -> None:
    """Everything on one ``/stream`` socket."""
    got: dict[str, list[dict]] = {}
    connection = await streams.create_connection()
    handles = await subscribed(connection)
    for name, handle in handles.items():
        got[name] = []
        handle.on("message", lambda told, name=name: got[name].append(told.to_dict()))
    least = {"trade": reading.TRADES, "aggTrade": 20, "bookTicker": 3, "miniTicker": 2, "ticker": 2, "depth": 5,
             "partial": 5, "avgPrice": 1}  # fmt: skip
    await reading.until(
        lambda: (
            all(len(got[name]) >= count for name, count in least.items())
            and sum(f["k"]["x"] for f in got["kline"]) >= reading.CLOSED
        ),
        lambda: {name: len(frames) for name, frames in got.items()},
    )
    listed = await connection.list_subscribe()
    await handles["aggTrade"].unsubscribe()
    left = await connection.list_subscribe()
    before, others = len(got["aggTrade"]), len(got["trade"])
    await reading.until(lambda: len(got["trade"]) > others + 20, lambda: len(got["trade"]))
    read["control"] = {
        "subscribed": sorted(listed["result"]),
        "left": sorted(left["result"]),
        "after_unsubscribe": len(got["aggTrade"]) - before,
    }
    read["trades"]["live"] = [reading.stream_trade(f) for f in got["trade"]]
    read["aggregates"]["live"] = [reading.aggregate(f) for f in got["aggTrade"]]
    read["live_klines"] = {"1s": [reading.stream_kline(f["k"]) for f in got["kline"]]}
    read["quotes"]["live"] = [reading.stream_quote(f) for f in got["bookTicker"]]
    read["mini"] = [reading.stream_mini(f) for f in got["miniTicker"]]
    read["tickers"]["live"] = [reading.stream_ticker(f) for f in got["ticker"]]
    read["books"]["partial"] = [reading.book(f) for f in got["partial"]]
    read["depth_ids"] = [[f["U"], f["u"]] for f in got["depth"]]
    await connection.close_connection(close_session=True)


async def micro(read: dict[str, Any]) -> None:
    """Times in microseconds: ``X-MBX-TIME-UNIT`` over REST, ``/stream?timeUnit=`` over the socket."""
    client = Spot(
        config_rest_api=ConfigurationRestAPI(
            base_path=server.rest, timeout=TIMEOUT, time_unit=TimeUnit.MICROSECOND.value
        ),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=server.ws, time_unit=TimeUnit.MICROSECOND),
    )
    told: list[dict] = []
    connection = await client.websocket_streams.create_connection()
    handle = await connection.trade(symbol=server.stream)
    handle.on("message", lambda frame: told.append(reading.stream_trade(frame.to_dict())))
    await reading.until(lambda: len(told) >= 5, lambda: told)
    recent = await asyncio.to_thread(client.rest_api.get_trades, server.symbol, 5)
    told += [reading.rest_trade(t) for t in rows(recent)]
    bars = await asyncio.to_thread(
        client.rest_api.klines, server.symbol, KlinesIntervalEnum.INTERVAL_1m, None, None, None, 2
    )
    read["micro"] = {"trades": told, "bar": bars.data()[0][0]}
    await connection.close_connection(close_session=True)


async def main() -> None:
    client = Spot(
        config_rest_api=ConfigurationRestAPI(base_path=server.rest, timeout=TIMEOUT),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=server.ws),
    )
    read = await asyncio.to_thread(rest, client.rest_api)
    await asyncio.gather(sockets(client.websocket_streams, read), micro(read))
    reading.tell(read)


asyncio.run(main())
