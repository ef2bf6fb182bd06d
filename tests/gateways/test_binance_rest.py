"""Binance's REST protocol as its clients know it, over real HTTP on real data."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import numpy as np
import pytest

from tapewick.gateways.binance import Options
from tapewick.model import TradeBatch
from tapewick.timeframe import SECOND
from tests.gateways.rig import BTC, STEP, T0, Rig, batch, instrument, running

MS = T0 // 1_000_000
MINUTES = 4
TRADES = 600 * MINUTES + 100
KLINE = "klines?symbol=BTCUSDT&interval=1m"
ETH = "sim:ETHUSDT"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", ids=(BTC, ETH)) as made:
        yield made


@pytest.fixture
async def full(rig: Rig) -> Rig:
    """Trades 1 to ``TRADES``, one per 100 ms."""
    await rig.tell(1, TRADES)
    return rig


async def ask(rig: Rig, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    async with rig.http as client:
        return await client.get(f"/api/v3/{path}", headers=headers)


async def got(rig: Rig, path: str, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    answer = await ask(rig, path, headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def bar(minute: int, trades: TradeBatch) -> list[Any]:
    """The bar of a whole minute since T0, computed one trade at a time."""
    rows = [
        (int(p), int(q), int(s))
        for t, p, q, s in zip(trades.ts_event, trades.price, trades.size, trades.side, strict=True)
        if minute * 60 * SECOND <= t - T0 < (minute + 1) * 60 * SECOND
    ]
    prices = [p for p, _, _ in rows]

    def total(values: list[int], scale: int) -> str:
        return f"{Decimal(sum(values)).scaleb(-scale):.{scale}f}"

    bought = [(p, q) for p, q, s in rows if s > 0]
    o, h, low, c = (f"{Decimal(p).scaleb(-2):.2f}" for p in (prices[0], max(prices), min(prices), prices[-1]))
    base, quoted = total([q for _, q, _ in rows], 3), total([p * q for p, q, _ in rows], 5)
    taker = total([q for _, q in bought], 3), total([p * q for p, q in bought], 5)
    start = MS + minute * 60_000
    return [start, o, h, low, c, base, start + 59_999, quoted, len(rows), *taker, "0"]


# -- general ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/binance"])
async def test_ping_and_time_at_both_mounts(rig: Rig, prefix: str) -> None:
    async with rig.http as client:
        assert (await client.get(f"{prefix}/api/v3/ping")).json() == {}
        told = await client.get(f"{prefix}/api/v3/time")
    assert told.json() == {"serverTime": rig.clock.now() // 1_000_000}
    assert told.headers["content-type"] == "application/json;charset=UTF-8"


async def test_weights_are_counted_told_and_limited(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(weight_per_min=50)) as rig:
        assert [(await ask(rig, "ping")).headers["x-mbx-used-weight-1m"] for _ in range(2)] == ["1", "2"]
        assert (await ask(rig, "depth?symbol=BTCUSDT&limit=1000")).status_code == 429, "limit 1000 costs 50"
        assert (await ask(rig, "trades?symbol=BTCUSDT")).headers["x-mbx-used-weight"] == "28"
        refused = await ask(rig, "trades?symbol=BTCUSDT")
        assert refused.status_code == 429 and refused.json()["code"] == -1003
        wait = int(refused.headers["retry-after"])
        assert 0 < wait <= 60
        rig.clock.advance(wait)
        assert (await ask(rig, "ping")).headers["x-mbx-used-weight-1m"] == "1"


WEIGHTS = (
    ("time", 1),
    (KLINE, 2),
    ("uiKlines?symbol=BTCUSDT&interval=1m", 2),
    ("aggTrades?symbol=BTCUSDT", 4),
    ("trades?symbol=BTCUSDT", 25),
    ("historicalTrades?symbol=BTCUSDT&fromId=1", 25),
    ("exchangeInfo", 20),
    ("depth?symbol=BTCUSDT&limit=100", 5),
    ("depth?symbol=BTCUSDT&limit=101", 25),
    ("depth?symbol=BTCUSDT&limit=501", 50),
    ("depth?symbol=BTCUSDT&limit=1001", 250),
    ("avgPrice?symbol=BTCUSDT", 2),
    ("ticker/price?symbol=BTCUSDT", 2),
    ("ticker/price", 4),
    ("ticker/bookTicker", 4),
    ("ticker/24hr?symbol=BTCUSDT", 2),
    ("ticker/24hr", 80),
    ('ticker?symbols=["BTCUSDT","ETHUSDT"]', 8),
    ("ticker/tradingDay?symbol=BTCUSDT", 4),
    ("no/such/path", 1),
)


async def test_each_request_costs_what_it_costs_at_the_venue(rig: Rig) -> None:
    for path, weight in WEIGHTS:
        rig.clock.advance(60)
        assert (await ask(rig, path)).headers["x-mbx-used-weight-1m"] == str(weight), path


REFUSED = (
    ("klines?symbol=NOSUCH&interval=1m", 400, -1121),
    ('ticker/price?symbols=["BTCUSDT","NOSUCH"]', 400, -1121),
    ("klines?symbol=BTCUSDT&interval=45m", 400, -1120),
    ("klines?symbol=BTCUSDT&interval=3h", 400, -1120),
    ("klines?symbol=BTCUSDT&interval=1%20microsecond", 400, -1120),
    ("klines?symbol=btcusdt&interval=1m", 400, -1100),
    ("klines?symbol=%27%3BDROP%20TABLE%20trades--&interval=1m", 400, -1100),
    ("klines?symbol=BTC%0d%0aX-Evil%3A1&interval=1m", 400, -1100),
    ("klines?symbol=..%2F..%2Fetc&interval=1m", 400, -1100),
    ("klines?symbol=%3Cscript%3E&interval=1m", 400, -1100),
    (KLINE + "&limit=-1", 400, -1100),
    (KLINE + "&limit=10e9", 400, -1100),
    (KLINE + "&startTime=" + "9" * 21, 400, -1100),
    ("trades?symbol=BTCUSDT&limit=0", 400, -1130),
    (KLINE + "&timeZone=15", 400, -1130),
    (KLINE + "&timeZone=-12:30", 400, -1130),
    (KLINE + "&timeZone=0:75", 400, -1130),
    ("ticker?symbol=BTCUSDT&windowSize=60m", 400, -1130),
    ("ticker?symbol=BTCUSDT&windowSize=8d", 400, -1130),
    ("ticker/24hr?symbol=BTCUSDT&type=HUGE", 400, -1130),
    ("klines?interval=1m", 400, -1102),
    ("klines?symbol=BTCUSDT", 400, -1102),
    ("ticker", 400, -1102),
    ("klines?symbol=&interval=1m", 400, -1105),
    ("klines?symbol=BTCUSDT&symbol=ETHUSDT&interval=1m", 400, -1101),
    ('ticker/price?symbol=BTCUSDT&symbols=["BTCUSDT"]', 400, -1128),
    ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=1", 400, -1128),
    ("exchangeInfo?symbols=BTCUSDT", 400, -1100),
    ("exchangeInfo?symbols=[]", 400, -1100),
    ("exchangeInfo?permissions=NONSENSE", 400, -1130),
    ("exchangeInfo?permissions=[]", 400, -1130),
    ("exchangeInfo?permissions=[%22SPOT%22,%22NONSENSE%22]", 400, -1130),
    ("exchangeInfo?permissions=", 400, -1105),
    ("exchangeInfo?permissions=SPOT&symbol=BTCUSDT", 400, -1128),
    ("exchangeInfo?symbolStatus=NONSENSE", 400, -1130),
    ("exchangeInfo?symbolStatus=TRADING&symbol=BTCUSDT", 400, -1128),
    ("exchangeInfo?symbols=[1]", 400, -1100),
    ("exchangeInfo?symbols=" + "[" * 5000, 400, -1100),
    ("nothing", 404, -1000),
    ("klines/extra?symbol=BTCUSDT&interval=1m", 404, -1000),
)


async def test_errors_have_the_venues_codes(rig: Rig) -> None:
    for path, status, code in REFUSED:
        answer = await ask(rig, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert set(answer.json()) == {"code", "msg"} and answer.json()["msg"]
        assert "x-mbx-used-weight-1m" in answer.headers


async def test_only_get_is_known_and_the_stub_is_off(rig: Rig) -> None:
    async with rig.http as client:
        assert (await client.post("/api/v3/order")).status_code == 404
        assert (await client.get("/api/v1/ping")).status_code == 404
        assert (await client.get("/sapi/v1/asset/tradeFee?signature=x")).status_code == 404


async def test_the_account_stub_answers_any_signature(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(trade_fee=True)) as rig, rig.http as client:
        answer = await client.get("/sapi/v1/asset/tradeFee?timestamp=1&signature=wrong")
    assert answer.json() == [{"symbol": "BTCUSDT", "makerCommission": "0.001", "takerCommission": "0.001"}]


async def test_switched_off_nothing_of_it_is_there(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(enabled=False)) as rig, rig.http as client:
        assert (await client.get("/api/v3/ping")).headers["content-type"] == "application/problem+json"


async def test_bodies_are_compressed_as_accepted(full: Rig) -> None:
    plain = await ask(full, KLINE + "&limit=5", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for coding in ("gzip", "deflate"):
        packed = await ask(full, KLINE + "&limit=5", headers={"accept-encoding": f"br, {coding};q=0.5"})
        assert packed.headers["content-encoding"] == coding and packed.content == plain.content
    refused = await ask(full, KLINE, headers={"accept-encoding": "gzip;q=0, deflate;q=0"})
    assert "content-encoding" not in refused.headers


# -- exchangeInfo ----------------------------------------------------------------------------------


async def test_exchange_info(rig: Rig) -> None:
    told = await got(rig, "exchangeInfo")
    assert list(told) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    assert told["timezone"] == "UTC" and told["rateLimits"][0]["limit"] == 6000
    assert [one["symbol"] for one in told["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    one = told["symbols"][0]
    assert [f["filterType"] for f in one["filters"]] == ["PRICE_FILTER", "LOT_SIZE", "NOTIONAL"]
    assert one["filters"][0]["tickSize"] == "0.01" and one["filters"][1]["stepSize"] == "0.001"
    assert one["status"] == "TRADING" and one["permissionSets"] == [["SPOT"]]


@pytest.mark.parametrize("symbols", [["ETHUSDT"], ["ETHUSDT", "BTCUSDT"]])
async def test_exchange_info_of_some(rig: Rig, symbols: list[str]) -> None:
    asked = quote(json.dumps(symbols, separators=(",", ":")))
    told = await got(rig, f"exchangeInfo?symbols={asked}")
    assert [one["symbol"] for one in told["symbols"]] == symbols
    single = await got(rig, f"exchangeInfo?symbol={symbols[0]}")
    assert single["symbols"] == told["symbols"][:1]


@pytest.mark.parametrize("wanted", ["SPOT", "MARGIN", '["MARGIN","SPOT"]', "TRD_GRP_004"])
async def test_exchange_info_by_permission_and_status(rig: Rig, wanted: str) -> None:
    found = (await got(rig, f"exchangeInfo?permissions={quote(wanted)}"))["symbols"]
    assert [one["symbol"] for one in found] == (["BTCUSDT", "ETHUSDT"] if "SPOT" in wanted else [])
    for status, count in (("TRADING", 2), ("HALT", 0), ("CANCEL_ONLY", 0)):
        assert len((await got(rig, f"exchangeInfo?symbolStatus={status}"))["symbols"]) == count


# -- klines ----------------------------------------------------------------------------------------


async def test_klines_are_the_venues_twelve_elements(full: Rig) -> None:
    trades = batch(1, TRADES)
    rows = await got(full, KLINE)
    assert rows == [bar(minute, trades) for minute in range(MINUTES + 1)]
    assert rows == await got(full, "uiKlines?symbol=BTCUSDT&interval=1m")


RANGES: tuple[tuple[str, list[int]], ...] = (
    ("&limit=2", [3, 4]),
    (f"&startTime={MS}&limit=2", [0, 1]),
    (f"&startTime={MS + 1}&limit=2", [1, 2]),
    ("&startTime=0&limit=1", [0]),
    (f"&endTime={MS + 120_000}&limit=2", [1, 2]),
    (f"&endTime={MS + 119_999}&limit=2", [0, 1]),
    (f"&startTime={MS + 60_000}&endTime={MS + 180_000}", [1, 2, 3]),
    (f"&startTime={MS + 60_000}&endTime={MS + 180_000}&limit=2", [1, 2]),
    (f"&startTime={MS * 1000}&endTime={(MS + 60_000) * 1000}", [0, 1]),
    ("&limit=1000000000", [0, 1, 2, 3, 4]),
    (f"&endTime={MS - 1}", []),
    (f"&startTime={MS + 10**9}", []),
    (f"&startTime={MS + 60_000}&endTime={MS}", []),
    ("&startTime=" + "9" * 20, []),
)


async def test_ranges_of_klines(full: Rig) -> None:
    for more, minutes in RANGES:
        rows = await got(full, KLINE + more)
        assert [(row[0] - MS) // 60_000 for row in rows] == minutes, more


async def test_microseconds_by_header_and_by_parameter(full: Rig) -> None:
    rows = await got(full, KLINE + "&limit=1", headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
    start = (MS + MINUTES * 60_000) * 1000
    assert rows[0][0] == start and rows[0][6] == start + 60_000_000 - 1
    trade = (await got(full, "trades?symbol=BTCUSDT&limit=1", headers={"X-MBX-TIME-UNIT": "microsecond"}))[0]
    assert trade["time"] == (T0 + TRADES * STEP) // 1000


async def test_quiet_buckets_are_flat_bars_in_the_venues_shape(rig: Rig) -> None:
    await rig.tell(1, 10)
    await rig.bus.publish("trades", moved(batch(11, 1), 3600 * SECOND))
    await rig.bus.settled("trades")
    rows = await got(rig, KLINE + f"&startTime={MS}&limit=100")
    assert [row[0] for row in rows] == [MS + k * 60_000 for k in range(61)]
    close = rows[0][4]
    for row in rows[1:-1]:
        assert row[1:6] == [close, close, close, close, "0.000"] and row[7:] == ["0.00000", 0, "0.000", "0.00000", "0"]


def moved(trades: TradeBatch, by: int) -> TradeBatch:
    trades.ts_event = trades.ts_event + by
    return trades


async def test_a_probe_of_the_beginning_makes_no_buckets_before_it(rig: Rig) -> None:
    """1970 to 2024 in seconds would be 1.7e9 rows."""
    await rig.tell(1, 30)
    for interval in ("1s", "1m", "1d", "1M"):
        rows = await got(rig, f"klines?symbol=BTCUSDT&interval={interval}&startTime=0&limit=1")
        assert len(rows) == 1 and rows[0][8] > 0


async def test_a_probe_in_seconds_finds_a_first_trade_that_came_late_in_its_minute(rig: Rig) -> None:
    await rig.bus.publish("trades", moved(batch(1, 30), 17 * SECOND))
    await rig.bus.settled("trades")
    rows = await got(rig, "klines?symbol=BTCUSDT&interval=1s&startTime=0&limit=1")
    assert [row[0] for row in rows] == [MS + 17_000]


async def test_an_instrument_without_trades_has_no_klines(rig: Rig) -> None:
    for more in ("", "&startTime=0", "&endTime=1", "&timeZone=8"):
        assert await got(rig, f"klines?symbol=ETHUSDT&interval=1d{more}") == []


async def test_data_that_is_not_proven_says_so(rig: Rig) -> None:
    await rig.tell(1, 600 * 3)
    await rig.tell(600 * 3 + 51, 1200)
    answer = await ask(rig, KLINE + f"&startTime={MS + 120_000}&limit=2")
    assert answer.headers["x-tapewick-complete"] == "false"
    assert int(answer.headers["x-tapewick-data-age-ms"]) > 0
    whole = await ask(rig, KLINE + f"&startTime={MS + 60_000}&limit=1")
    assert whole.headers["x-tapewick-complete"] == "true"


# -- trades ----------------------------------------------------------------------------------------


def printed(id: int) -> dict[str, Any]:
    one = batch(id, 1)
    price, size = Decimal(int(one.price[0])).scaleb(-2), Decimal(int(one.size[0])).scaleb(-3)
    return {
        "id": id,
        "price": f"{price:.2f}",
        "qty": f"{size:.3f}",
        "quoteQty": f"{price * size:.5f}",
        "time": int(one.ts_event[0]) // 1_000_000,
        "isBuyerMaker": bool(one.side[0] < 0),
        "isBestMatch": True,
    }


async def test_trades_are_the_newest_by_id(full: Rig) -> None:
    rows = await got(full, "trades?symbol=BTCUSDT&limit=700")
    assert rows == [printed(id) for id in range(TRADES - 699, TRADES + 1)]
    assert list(rows[0]) == list(printed(1))


async def test_historical_trades_from_an_id(full: Rig) -> None:
    for first, limit in ((1, 3), (0, 3), (599, 3), (601, 1000), (TRADES - 1, 5), (TRADES, 5)):
        rows = await got(full, f"historicalTrades?symbol=BTCUSDT&fromId={first}&limit={limit}")
        begin = max(first, 1)
        assert [row["id"] for row in rows] == list(range(begin, min(begin + limit, TRADES + 1)))
    assert await got(full, f"historicalTrades?symbol=BTCUSDT&fromId={TRADES + 1}") == []


async def test_aggregates_of_single_trades(full: Rig) -> None:
    rows = await got(full, "aggTrades?symbol=BTCUSDT&fromId=1700&limit=2")
    one = printed(1700)
    assert rows[0] == {
        "a": 1700, "p": one["price"], "q": one["qty"], "f": 1700, "l": 1700, "T": one["time"],
        "m": one["isBuyerMaker"], "M": True,
    }  # fmt: skip
    assert list(rows[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]


BY_TIME: tuple[tuple[str, list[int]], ...] = (
    (f"&startTime={MS + 1000}&limit=3", [10, 11, 12]),
    (f"&startTime={MS + 1001}&limit=3", [11, 12, 13]),
    (f"&endTime={MS + 1000}&limit=3", [8, 9, 10]),
    (f"&startTime={MS + 59_900}&endTime={MS + 60_100}", [599, 600, 601]),
    (f"&startTime={MS + 10**9}", []),
    (f"&endTime={MS}", []),
    ("&startTime=0&limit=1", [1]),
    ("&limit=2", [TRADES - 1, TRADES]),
)


async def test_aggregates_by_time(full: Rig) -> None:
    for more, ids in BY_TIME:
        assert [row["a"] for row in await got(full, f"aggTrades?symbol=BTCUSDT{more}")] == ids, more


async def test_late_trades_come_in_their_place(rig: Rig) -> None:
    await rig.tell(1, 100)
    await rig.tell(151, 100)
    await rig.tell(101, 50, late=True)
    rows = await got(rig, "trades?symbol=BTCUSDT&limit=120")
    assert [row["id"] for row in rows] == list(range(131, 251))
    rows = await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=90&limit=80")
    assert [row["id"] for row in rows] == list(range(90, 170))


async def test_a_page_by_id_never_steps_over_a_hole(rig: Rig) -> None:
    await rig.tell(11, 90)
    await rig.tell(151, 50)
    page = await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=90&limit=500")
    assert [row["id"] for row in page] == list(range(90, 101)), "ends before the hole"
    inside = await ask(rig, "aggTrades?symbol=BTCUSDT&fromId=101")
    assert inside.status_code == 503 and inside.json()["code"] == -1008 and "101 to 150" in inside.json()["msg"]
    before = await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=5", 400)
    assert before["code"] == -1130 and "begins with id 11" in before["msg"]
    behind = await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=151&limit=2")
    assert [row["id"] for row in behind] == [151, 152]
    newest = await ask(rig, "trades?symbol=BTCUSDT&limit=100")
    assert newest.headers["x-tapewick-complete"] == "false"


def grouped(first: int, counts: list[int]) -> TradeBatch:
    """Aggregates of ``counts`` ids each."""
    own = batch(first, sum(counts))
    last = np.cumsum(counts) - 1
    rows = own.select(last)
    rows.count = np.array(counts, np.int32)
    rows.first_id = rows.trade_id - rows.count + 1
    return rows


async def test_aggregate_instruments_pass_the_venues_aggregates(tmp_path: Path) -> None:
    async with running(tmp_path, ids=()) as rig:
        await rig.bus.publish("trades", instrument(granularity="agg"))
        await rig.bus.publish("trades", grouped(1, [3, 1, 5, 2]))
        await rig.bus.settled("trades")
        rows = await got(rig, "aggTrades?symbol=BTCUSDT")
        assert [(row["f"], row["l"], row["a"]) for row in rows] == [(1, 3, 3), (4, 4, 4), (5, 9, 9), (10, 11, 11)]
        rows = await got(rig, "aggTrades?symbol=BTCUSDT&fromId=5&limit=1")
        assert [(row["f"], row["l"]) for row in rows] == [(5, 9)]
        for endpoint in ("trades", "historicalTrades"):
            assert (await got(rig, f"{endpoint}?symbol=BTCUSDT", 400))["code"] == -1130


async def test_raw_instruments_may_refuse_aggregates(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(aggregate_raw=False)) as rig:
        assert (await got(rig, "aggTrades?symbol=BTCUSDT", 400))["code"] == -1130


async def test_what_is_known_as_an_aggregate_only_is_no_single_trade(rig: Rig) -> None:
    """A hole of single trades may have been repaired from aggregates: their ids are not invented."""
    await rig.tell(1, 10)
    await rig.bus.publish("trades", grouped(11, [4]))
    await rig.tell(15, 10)
    page = await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=8")
    assert [row["id"] for row in page] == [8, 9, 10]
    assert (await got(rig, "historicalTrades?symbol=BTCUSDT&fromId=12", 400))["code"] == -1130
    rows = await got(rig, "aggTrades?symbol=BTCUSDT&fromId=10&limit=3")
    assert [(row["f"], row["l"]) for row in rows] == [(10, 10), (11, 14), (15, 15)]


# -- tickers ---------------------------------------------------------------------------------------

DAY_KEYS = (
    "symbol priceChange priceChangePercent weightedAvgPrice prevClosePrice lastPrice lastQty bidPrice bidQty askPrice "
    "askQty openPrice highPrice lowPrice volume quoteVolume openTime closeTime firstId lastId count"
).split()


async def test_the_day_is_a_fold_of_its_trades(full: Rig) -> None:
    told = await got(full, "ticker/24hr?symbol=BTCUSDT")
    assert list(told) == DAY_KEYS
    own = batch(1, TRADES)
    volume, quoted = int(own.size.sum()), int((own.price * own.size).sum())
    assert told["volume"] == f"{Decimal(volume).scaleb(-3):.3f}"
    assert told["quoteVolume"] == f"{Decimal(quoted).scaleb(-5):.5f}"
    assert told["weightedAvgPrice"] == f"{Decimal(quoted // volume).scaleb(-2):.2f}"
    assert (told["firstId"], told["lastId"], told["count"]) == (1, TRADES, TRADES)
    assert told["lastQty"] == printed(TRADES)["qty"] and told["lastPrice"] == printed(TRADES)["price"]
    assert told["openPrice"] == printed(1)["price"]
    assert Decimal(told["priceChange"]) == Decimal(told["lastPrice"]) - Decimal(told["openPrice"])
    assert told["closeTime"] == printed(TRADES)["time"]


@pytest.mark.parametrize("endpoint", ["ticker/24hr", "ticker/price", "ticker/bookTicker"])
async def test_one_some_or_all(full: Rig, endpoint: str) -> None:
    one = await got(full, f"{endpoint}?symbol=BTCUSDT")
    some = await got(full, f'{endpoint}?symbols=["BTCUSDT"]')
    every = await got(full, endpoint)
    assert one["symbol"] == "BTCUSDT" and some == [one]
    assert [row["symbol"] for row in every] == ["BTCUSDT", "ETHUSDT"] and every[0] == one


async def test_mini_windows_and_trading_days(full: Rig) -> None:
    mini = await got(full, "ticker/24hr?symbol=BTCUSDT&type=MINI")
    assert (
        list(mini)
        == (
            "symbol openPrice highPrice lowPrice lastPrice volume quoteVolume openTime closeTime firstId lastId count"
        ).split()
    )
    window = await got(full, "ticker?symbol=BTCUSDT&windowSize=1m")
    assert window["openTime"] % 60_000 == 0
    assert window["firstId"] == 600 * (MINUTES - 1) and window["lastId"] == TRADES
    day = await got(full, "ticker/tradingDay?symbol=BTCUSDT")
    assert (day["openTime"], day["closeTime"]) == (MS, MS + 86_399_999)
    east = await got(full, "ticker/tradingDay?symbol=BTCUSDT&timeZone=%2B5:30")
    assert east["openTime"] == MS - 5 * 3_600_000 - 1_800_000


async def test_average_price(full: Rig) -> None:
    told = await got(full, "avgPrice?symbol=BTCUSDT")
    assert list(told) == ["mins", "price", "closeTime"] and told["mins"] == 5
    own = batch(1, TRADES)
    mean = int((own.price * own.size).sum()) // int(own.size.sum())
    assert told["price"] == f"{Decimal(mean).scaleb(-2):.2f}" and told["closeTime"] == printed(TRADES)["time"]
