"""The venue's REST answers over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import http.client
from typing import Any

import msgspec
import pytest

from tapewick.errors import VenueRefused
from tapewick.sim.bars import INTERVALS, Bar
from tapewick.sim.venue import SimVenue
from tests.sim.sockets import ORIGIN, manual, rest

pytestmark = pytest.mark.timeout(60)

HOUR = 3_600_000


async def test_a_candid_venue_says_that_its_symbols_are_simulated_and_another_does_not() -> None:
    for candid in (True, False):
        async with SimVenue(["BTCUSDT"], candid=candid) as venue:
            (listed,) = (await rest(venue, "exchangeInfo"))["symbols"]
            assert listed.get("simulated", False) is candid


async def raw(venue: SimVenue, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body as they came over the wire."""

    def ask() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", venue.port, timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        try:
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def row(venue: SimVenue, bar: Bar) -> list[Any]:
    """A bar of the truth as the venue must print it: BTCUSDT has scales 2 and 5."""

    def text(value: int, scale: int) -> str:
        digits = str(value).rjust(scale + 1, "0")
        return f"{digits[:-scale]}.{digits[-scale:]}".ljust(len(digits) - scale + 9, "0")

    prices = [text(value, 2) for value in (bar.open, bar.high, bar.low, bar.close)]
    sums = [text(bar.taker, 5), text(bar.taker_quote, 7), "0"]
    return [bar.start, *prices, text(bar.volume, 5), bar.end - 1, text(bar.quote, 7), bar.trades, *sums]


async def test_klines_are_the_truth_in_rows_of_twelve() -> None:
    _, venue = manual()
    async with venue:
        for interval in INTERVALS:
            rows = await rest(venue, "klines", symbol="BTCUSDT", interval=interval, limit=1000)
            truth = venue.bars("BTCUSDT", interval, start=0, end=venue.now())
            assert rows == [row(venue, bar) for bar in truth[-1000:]]
        assert rows == await rest(venue, "uiKlines", symbol="BTCUSDT", interval="1M", limit=1000)
        probe = await rest(venue, "klines", symbol="BTCUSDT", interval="1m", startTime=0, limit=1)
        assert [each[0] for each in probe] == [ORIGIN]
        assert await rest(venue, "klines", symbol="BTCUSDT", interval="1m", startTime=venue.now()) == []
        until = await rest(venue, "klines", symbol="BTCUSDT", interval="1m", endTime=ORIGIN + 5 * 60_000, limit=2)
        assert [each[0] for each in until] == [ORIGIN + 4 * 60_000, ORIGIN + 5 * 60_000]
        zoned = await rest(venue, "klines", symbol="BTCUSDT", interval="1d", timeZone="8")
        assert zoned[0][0] % 86_400_000 == 16 * HOUR


async def test_klines_agree_with_historical_trades() -> None:
    _, venue = manual()
    async with venue:
        [bar] = await rest(venue, "klines", symbol="BTCUSDT", interval="1m", startTime=ORIGIN + 60_000, limit=1)
        trades = await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=1, limit=1000)
        trades += await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=1001, limit=1000)
        inside = [trade for trade in trades if bar[0] <= trade["time"] <= bar[6]]
        assert trades[-1]["time"] > bar[6] and len(inside) == bar[8]
        assert (inside[0]["price"], inside[-1]["price"]) == (bar[1], bar[4])


async def test_empty_bars_repeat_the_close_and_none_lie_before_the_first_trade() -> None:
    async with SimVenue(["BTCUSDT"], rate=0.002, catch_up=600) as venue:
        rows = await rest(venue, "klines", symbol="BTCUSDT", interval="1m", startTime=0, limit=1000)
        assert rows[0][8] > 0
        empty = [(before, each) for before, each in zip(rows, rows[1:], strict=False) if each[8] == 0]
        assert empty
        for before, each in empty:
            assert each[1:5] == [before[4]] * 4
            assert each[5] == each[7] == each[9] == each[10] == "0.00000000"


async def test_depth_holds_the_book_of_its_update_id() -> None:
    clock, venue = manual()
    async with venue:
        for limit in (5, 100, 5000):
            clock.advance(0.37)
            body = await rest(venue, "depth", symbol="BTCUSDT", limit=limit)
            id, truth = venue.book("BTCUSDT", body["lastUpdateId"])
            assert id == body["lastUpdateId"] == venue.book("BTCUSDT")[0]
            for side, levels in (("bids", truth.bids), ("asks", truth.asks)):
                told = [(int(p.replace(".", "")[:-6]), int(q.replace(".", "")[:-3])) for p, q in body[side]]
                assert told == list(levels.items())[:limit]
                assert len(told) == min(limit, len(levels))


async def test_tickers_of_one_some_and_all_symbols() -> None:
    clock, _ = manual()
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=2.0, origin=ORIGIN, clock=clock) as venue:
        [last] = await rest(venue, "trades", symbol="BTCUSDT", limit=1)
        one = await rest(venue, "ticker/price", symbol="BTCUSDT")
        assert one == {"symbol": "BTCUSDT", "price": last["price"]}
        some = await rest(venue, "ticker/price", symbols='["BTCUSDT"]')
        everything = await rest(venue, "ticker/price")
        assert some == [one] and [each["symbol"] for each in everything] == ["BTCUSDT", "ETHUSDT"]
        book = await rest(venue, "depth", symbol="ETHUSDT", limit=1)
        best = await rest(venue, "ticker/bookTicker", symbol="ETHUSDT")
        assert [best["bidPrice"], best["bidQty"]] == book["bids"][0]
        assert [best["askPrice"], best["askQty"]] == book["asks"][0]
        [hour] = await rest(venue, "klines", symbol="BTCUSDT", interval="1h", limit=1)
        day = await rest(venue, "ticker/24hr", symbol="BTCUSDT")
        assert [day[key] for key in ("openPrice", "highPrice", "lowPrice", "lastPrice", "volume")] == hour[1:6]
        assert (day["quoteVolume"], day["count"], day["firstId"]) == (hour[7], hour[8], 1)
        mini = await rest(venue, "ticker/24hr", symbol="BTCUSDT", type="MINI")
        assert "priceChange" not in mini and mini["volume"] == day["volume"]
        window = await rest(venue, "ticker", symbol="BTCUSDT", windowSize="2h")
        today = await rest(venue, "ticker/tradingDay", symbol="BTCUSDT")
        assert window["volume"] == today["volume"] == day["volume"]
        average = await rest(venue, "avgPrice", symbol="BTCUSDT")
        assert average["mins"] == 5 and float(hour[3]) <= float(average["price"]) <= float(hour[2])


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("klines", {"symbol": "BTCUSDT"}, "-1102"),
        ("klines", {"symbol": "BTCUSDT", "interval": "45m"}, "-1120"),
        ("klines", {"symbol": "BTCUSDT", "interval": "3h"}, "-1120"),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "timeZone": "19"}, "-1130"),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": "-1"}, "-1100"),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "0"}, "-1130"),
        ("depth", {"symbol": "BTC-USDT"}, "-1121"),
        ("depth", {}, "-1102"),
        ("ticker", {}, "-1102"),
        ("ticker", {"symbol": "BTCUSDT", "windowSize": "60m"}, "-1130"),
        ("ticker/24hr", {"symbols": '["BTCUSDT","NOPE"]'}, "-1121"),
        ("ticker/price", {"symbols": "BTCUSDT"}, "-1100"),
    ],
)
async def test_bad_parameters_get_the_venues_error_codes(path: str, params: dict[str, str], code: str) -> None:
    async with SimVenue(["BTCUSDT"]) as venue:
        with pytest.raises(VenueRefused, match=code) as refused:
            await rest(venue, path, **params)
        assert refused.value.status == 400


async def test_an_unknown_path_is_not_found_and_only_get_is_allowed() -> None:
    async with SimVenue(["BTCUSDT"]) as venue:
        assert (await raw(venue, "/api/v3/order"))[0] == 404
        assert (await raw(venue, "/api/v3/ticker/other"))[0] == 404
        assert (await raw(venue, "/"))[0] == 404


@pytest.mark.parametrize("root", ["api/v3", "fapi/v1", "dapi/v1"])
async def test_weights_add_up_in_headers(root: str) -> None:
    _, venue = manual()
    async with venue:
        used = 0
        for path, weight in (
            ("ping", 1),
            ("depth?symbol=BTCUSDT", 5),
            ("depth?symbol=BTCUSDT&limit=1000", 50),
            ("depth?symbol=BTCUSDT&limit=5000", 250),
            ("klines?symbol=BTCUSDT&interval=1m", 2),
            ("historicalTrades?symbol=BTCUSDT", 25),
            ("aggTrades?symbol=BTCUSDT", 4),
            ("ticker/24hr", 2),
            ("ticker/price", 4),
        ):
            status, headers, _ = await raw(venue, f"/{root}/{path}")
            used += weight
            assert (status, headers["x-mbx-used-weight"], headers["x-mbx-used-weight-1m"]) == (
                200,
                f"{used}",
                f"{used}",
            )


async def test_beyond_the_weight_limit_comes_429_and_then_a_ban() -> None:
    clock, _ = manual()
    async with SimVenue(["BTCUSDT"], origin=ORIGIN, clock=clock, weight_limit=50) as venue:
        clock.advance(20.0)
        assert (await raw(venue, "/api/v3/depth?symbol=BTCUSDT&limit=1000"))[0] == 200
        status, headers, body = await raw(venue, "/api/v3/ping")
        assert (status, headers["retry-after"]) == (429, "40") and b"-1003" in body
        while (status := (await raw(venue, "/api/v3/ping"))[0]) == 429:
            pass
        assert status == 418
        clock.advance(60.0)
        assert (await raw(venue, "/api/v3/ping"))[0] == 418
        clock.advance(61.0)
        assert (await raw(venue, "/api/v3/ping"))[0] == 200


async def test_microseconds_are_served_and_understood() -> None:
    _, venue = manual()
    async with venue:
        path = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=3"
        plain = msgspec.json.decode((await raw(venue, f"{path}&startTime={ORIGIN}"))[2])
        unit = {"X_MBX_TIME_UNIT": "MICROSECOND"}
        fine = msgspec.json.decode((await raw(venue, f"{path}&startTime={ORIGIN * 1000}", **unit))[2])
        assert [each[0] * 1000 for each in plain] == [each[0] for each in fine]
        assert [each[6] * 1000 + 999 for each in plain] == [each[6] for each in fine]
        for name in ("time", "exchangeInfo"):
            body = msgspec.json.decode((await raw(venue, f"/api/v3/{name}", **unit))[2])
            assert body["serverTime"] == venue.now() * 1000


async def test_bodies_are_compressed_when_that_is_accepted() -> None:
    _, venue = manual()
    async with venue:
        path = "/api/v3/depth?symbol=BTCUSDT&limit=100"
        _, headers, packed = await raw(venue, path, Accept_Encoding="gzip, deflate")
        _, plain_headers, plain = await raw(venue, path)
        assert headers["content-encoding"] == "gzip" and "content-encoding" not in plain_headers
        assert gzip.decompress(packed) == plain and len(packed) < len(plain)


async def test_one_connection_carries_many_requests() -> None:
    _, venue = manual()

    def ask() -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", venue.port, timeout=20)
        found = []
        for _ in range(3):
            connection.request("GET", "/api/v3/ping")
            answer = connection.getresponse()
            answer.read()
            found.append(answer.status)
        connection.request("POST", "/api/v3/ping", body=b"x")
        found.append(connection.getresponse().status)
        connection.close()
        return found

    async with venue:
        assert await asyncio.to_thread(ask) == [200, 200, 200, 405]


async def test_exchange_info_names_what_clients_read() -> None:
    async with SimVenue(["BTCUSDT"]) as venue:
        body = await rest(venue, "exchangeInfo", symbol="BTCUSDT")
        assert body["timezone"] == "UTC" and body["exchangeFilters"] == [] and body["rateLimits"]
        [symbol] = body["symbols"]
        assert [each["filterType"] for each in symbol["filters"]] == ["PRICE_FILTER", "LOT_SIZE", "NOTIONAL"]
        assert symbol["permissionSets"] == [["SPOT"]] and symbol["quoteAssetPrecision"] == 8
