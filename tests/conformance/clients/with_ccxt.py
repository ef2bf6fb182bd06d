"""ccxt, the synchronous client: REST."""

from __future__ import annotations

import ccxt
import reading

server = reading.Server()
# It refuses to ask for historical trades without any key, though the venue needs none.
x = ccxt.binance(
    {"enableRateLimit": False, "apiKey": "any", "timeout": 60_000, "options": {"fetchMarkets": {"types": ["spot"]}}}
)
x.urls["api"]["public"] = f"{server.rest}/api/v3"
x.has["fetchCurrencies"] = False

now = x.fetch_time()
markets = x.load_markets()
pair = f"{server.base}/{server.quote}"
info = {"symbol": server.symbol}

latest = x.fetch_ohlcv(pair, "1m", limit=reading.BARS)
middle = latest[len(latest) // 2][0]
klines = {
    "latest": latest,
    "ranged": x.fetch_ohlcv(pair, "1m", since=middle - 240_000, limit=5),
    "ended": x.fetch_ohlcv(pair, "1m", limit=5, params={"endTime": middle}),
    "earliest": x.fetch_ohlcv(pair, "1m", since=0, limit=1),
    "hours": x.fetch_ohlcv(pair, "1h", limit=3),
    "whole": x.public_get_klines({**info, "interval": "1m", "limit": 10}),
    "ui": x.public_get_uiklines({**info, "interval": "5m", "limit": 3}),
}
aggregates = x.fetch_trades(pair, limit=200)
recent = x.fetch_trades(pair, limit=100, params={"fetchTradesMethod": "publicGetTrades"})
since = x.fetch_trades(pair, since=middle, limit=50)
book = x.fetch_order_book(pair, limit=reading.LEVELS)
deep = x.fetch_order_book(pair, limit=1000)
quotes = x.fetch_bids_asks([pair])[pair]


def row(trade: dict) -> dict:
    """A unified trade; ``maker`` as the venue tells it."""
    maker = trade["side"] == "sell"
    return {**trade, "id": int(trade["id"]), "size": trade["amount"], "time": trade["timestamp"], "maker": maker}


def state(one: dict) -> dict:
    return {"id": one["nonce"], "bids": one["bids"][: reading.LEVELS], "asks": one["asks"][: reading.LEVELS]}


reading.tell(
    {
        "time": now,
        "markets": {m["id"]: reading.market(m["info"]) for m in markets.values()},
        "unified": {
            "precision": {"price": markets[pair]["precision"]["price"], "size": markets[pair]["precision"]["amount"]},
            "active": markets[pair]["active"],
            "last": x.fetch_ticker(pair)["last"],
            "average": x.public_get_avgprice(info)["price"],
            "price": x.public_get_ticker_price(info)["price"],
        },
        "klines": {how: [reading.rest_kline(bar) for bar in rows] for how, rows in klines.items()},
        "aggregates": {how: [reading.aggregate(t["info"]) for t in told] for how, told in
                       (("recent", aggregates), ("since", since))},
        "trades": {"recent": [row(t) for t in recent],
                   "by_id": [reading.rest_trade(t) for t in x.public_get_historicaltrades(
                       {**info, "fromId": recent[0]["id"], "limit": 20})]},
        "books": {"shallow": [state(book)], "deep": [state(deep)]},
        "depth": {"bids": len(deep["bids"]), "asks": len(deep["asks"])},
        "quotes": {"rest": [{"bid": quotes["bid"], "bid_size": quotes["bidVolume"], "ask": quotes["ask"],
                             "ask_size": quotes["askVolume"]}]},
        "tickers": {"rest": [reading.rest_ticker(x.fetch_ticker(pair)["info"])],
                    "all": [reading.rest_ticker(t["info"]) for t in x.fetch_tickers([pair]).values()]},
    }
)  # fmt: skip
