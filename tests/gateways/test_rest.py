"""Every REST route and refusal, over a real socket."""

from __future__ import annotations

import json
from decimal import Decimal
from urllib.parse import quote

import pytest

from tapewick import __version__
from tapewick.client import Client
from tapewick.engine import ENGINE
from tapewick.engine.candles import fold
from tapewick.timeframe import BY_NAME, SECOND
from tests.gateways.rig import BTC, ETH, T0, Rig, batch

MS0 = T0 // 1_000_000
MINUTE_MS = 60_000


async def test_instruments(rig: Rig) -> None:
    told = await rig.get("/v1/instruments")
    assert [one["id"] for one in told["instruments"]] == [ETH, BTC]
    assert told["instruments"][1] == {
        "id": BTC, "venue": "sim", "symbol": "BTCUSDT", "base": "", "quote": "", "price_scale": 2, "size_scale": 3,
        "status": "trading", "id_kind": "contiguous", "granularity": "raw", "simulated": True,
    }  # fmt: skip


async def test_the_status_says_what_serves(rig: Rig) -> None:
    told = await rig.get("/v1/status")
    now = rig.market.now() // 1_000_000
    assert told == {"version": __version__, "engine": ENGINE, "trouble": None, "server_ts": now}


async def test_trades_newest_and_since(rig: Rig) -> None:
    await rig.tell(1, 1200)
    newest = await rig.get(f"/v1/trades?instrument={BTC}&limit=3")
    assert [t["seq"] for t in newest["trades"]] == [1198, 1199, 1200]
    assert newest["next"] is None
    epoch, _, seq = newest["position"].partition(":")
    assert seq == "1200"
    row = newest["trades"][-1]
    made = batch(1200, 1)
    assert row == {
        "instrument": BTC, "seq": 1200, "trade_id": 1200, "ts_event": int(made.ts_event[0]) // 10**6,
        "ts_recv": int(made.ts_recv[0]) // 10**6, "price": str((Decimal(int(made.price[0])) / 100).normalize()),
        "size": str(Decimal(int(made.size[0])) / 1000), "side": "sell",
    }  # fmt: skip
    seqs: list[int] = []
    path = f"/v1/trades?instrument={BTC}&since={epoch}:100&limit=400"
    while path:
        page = await rig.get(path)
        seqs += [t["seq"] for t in page["trades"]]
        path = page["next"]
    assert seqs == list(range(101, 1201))
    assert page["position"] == f"{epoch}:1200"
    bare = await rig.get(f"/v1/trades?instrument={BTC}&since=1199")
    assert [t["seq"] for t in bare["trades"]] == [1200]


async def test_trades_by_time_in_both_spellings(rig: Rig) -> None:
    await rig.tell(1, 100)
    by_ms = await rig.get(f"/v1/trades?instrument={BTC}&start={MS0 + 2000}&end={MS0 + 3000}")
    iso = await rig.get(f"/v1/trades?instrument={BTC}&start=2024-08-09T00:00:02Z&end=2024-08-09T00:00:03%2B00:00")
    assert [t["trade_id"] for t in by_ms["trades"]] == list(range(20, 30)) == [t["trade_id"] for t in iso["trades"]]
    ns = await rig.get(f"/v1/trades?instrument={BTC}&limit=1&times=ns")
    assert ns["trades"][0]["ts_event"] == str(T0 + 100 * SECOND // 10)


async def test_candles_equal_a_fold_of_the_trades(rig: Rig) -> None:
    await rig.tell(1, 3000)
    for tf in ("1s", "1m", "3m", "1h", "1d"):
        told = (await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=1000"))["candles"]
        expected = fold(batch(1, 3000), BY_NAME[tf])
        assert [c["open_time"] for c in told] == (expected["open_time"] // 10**6).tolist()
        for name in ("open", "high", "low", "close"):
            assert [int(Decimal(c[name]) * 100) for c in told] == expected[name].tolist()
        assert [int(Decimal(c["volume"]) * 1000) for c in told] == expected["volume_lo"].tolist()
        assert [c["trades"] for c in told] == expected["trades"].tolist()
        assert {c["tf"] for c in told} == {tf}


async def test_candles_page_forward_and_backward(rig: Rig) -> None:
    await rig.tell(1, 6000)
    whole = [MS0 + i * MINUTE_MS for i in range(11)]
    for start, expected in ((f"&start={MS0}", whole), ("", whole)):
        opens: list[int] = []
        path = f"/v1/candles?instrument={BTC}&tf=1m&limit=4{start}"
        while path:
            page = await rig.get(path)
            part = [c["open_time"] for c in page["candles"]]
            opens = opens + part if start else part + opens
            path = page["next"]
        assert opens == expected
    seconds: list[int] = []
    path = f"/v1/candles?instrument={BTC}&tf=1s&limit=250&start={MS0}"
    while path:
        page = await rig.get(path)
        seconds += [c["open_time"] for c in page["candles"]]
        path = page["next"]
    assert seconds == [MS0 + i * 1000 for i in range(601)]


@pytest.mark.parametrize(("tf", "step"), [("1s", 1000), ("1m", MINUTE_MS)])
@pytest.mark.parametrize("fill", ["none", "prev"])
@pytest.mark.parametrize("rest", [0, 1, 999])
async def test_no_page_follows_where_the_range_ends(rig: Rig, tf: str, step: int, fill: str, rest: int) -> None:
    await rig.tell(1, 3600)
    whole = [MS0 + i * step for i in range(6 if rest else 5)]
    end = MS0 + 5 * step + rest
    for limit in range(1, 8):
        opens: list[int] = []
        path = f"/v1/candles?instrument={BTC}&tf={tf}&start={MS0}&end={end}&limit={limit}&fill={fill}"
        while path:
            page = await rig.get(path)
            opens += [c["open_time"] for c in page["candles"]]
            assert page["candles"], path
            path = page["next"]
        assert opens == whole, limit


async def test_a_client_reads_a_range_that_fills_its_pages(rig: Rig) -> None:
    await rig.tell(1, 20_100)  # a trade in every second: two whole pages
    async with Client(rig.gateway.url) as client:
        found = await client.candles(BTC, "1s", start=T0, end=T0 + 2000 * SECOND, limit=0)
    assert [row.open_time for row in found] == [T0 + i * SECOND for i in range(2000)]


async def test_candles_changed_since_a_position(rig: Rig) -> None:
    await rig.tell(1, 1000)
    before = (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m"))["position"]
    await rig.tell(1001, 500)
    changed = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&since={before}")
    assert [c["open_time"] for c in changed["candles"]] == [MS0 + MINUTE_MS, MS0 + 2 * MINUTE_MS]
    assert all(c["pos"] > int(before.split(":")[1]) for c in changed["candles"])
    after = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&since={changed['position']}")
    assert after["candles"] == []


async def test_completeness_of_an_answer(rig: Rig) -> None:
    await rig.tell(1, 100)
    only_open = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m")
    assert only_open["complete"] is None
    await rig.tell(101, 3000, clock=T0 + 500 * SECOND)
    inner = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&start={MS0 + MINUTE_MS}&end={MS0 + 4 * MINUTE_MS}")
    assert [c["complete"] for c in inner["candles"]] == [True] * 3
    assert inner["complete"] is True
    await rig.tell(3201, 300, clock=T0 + 600 * SECOND)  # 3101 to 3200 are missing
    holed = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&start={MS0 + MINUTE_MS}")
    assert holed["complete"] is False


async def test_fill_and_indicators(rig: Rig) -> None:
    await rig.tell(1, 299)
    late = batch(300, 290)
    late.ts_event += 180 * SECOND
    await rig.bus.publish("trades", late)
    await rig.bus.settled("trades")
    base = f"/v1/candles?instrument={BTC}&tf=1m&start={MS0}"
    assert [c["open_time"] for c in (await rig.get(base))["candles"]] == [MS0, MS0 + 3 * MINUTE_MS]
    prev = (await rig.get(base + "&fill=prev"))["candles"]
    assert [c.get("filled") for c in prev] == [None, True, True, None]
    assert prev[1]["open"] == prev[1]["close"] == prev[0]["close"] and prev[1]["volume"] == "0"
    null = (await rig.get(base + "&fill=null"))["candles"]
    assert null[1]["open"] is None and null[1]["first_id"] == -1
    told = await rig.get(base + "&indicators=sma2,ema1,vwap")
    closes = [Decimal(c["close"]) for c in told["candles"]]
    assert told["indicators"]["sma2"][0] is None
    assert Decimal(told["indicators"]["sma2"][1]) == sum(closes) / 2
    assert [Decimal(v) for v in told["indicators"]["ema1"]] == closes
    assert told["indicators"]["vwap"] == [c["vwap"] for c in told["candles"]]
    tail = await rig.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=1&indicators=sma2")
    assert tail["indicators"]["sma2"] == told["indicators"]["sma2"][-1:], "the candles before the page count"


async def test_ticker_and_coverage_take_ids_encoded_or_as_tail(rig: Rig) -> None:
    await rig.tell(1, 50, ETH)
    for id in (ETH, quote(ETH, safe="")):
        assert (await rig.get(f"/v1/ticker/{id}"))["trades_24h"] == 50
        assert (await rig.get(f"/v1/coverage/{id}"))["instrument"] == ETH
    ticker = await rig.get(f"/v1/ticker/{ETH}")
    assert ticker["last"] == "103.5" and ticker["ts"] == MS0 + 5000 and ticker["position"].endswith(":50")


async def test_coverage_lists_ranges_and_gaps(rig: Rig) -> None:
    await rig.tell(1, 100)
    await rig.tell(201, 100)
    told = await rig.get(f"/v1/coverage/{BTC}")
    assert told["ranges"] == [[1, 100], [201, 300]] and told["trades"] == 200 and told["complete"] is False
    (gap,) = told["gaps"]
    assert (gap["left_id"], gap["right_id"], gap["state"]) == (100, 201, "open")
    assert (gap["left_ts"], gap["right_ts"]) == (MS0 + 10_000, MS0 + 20_100)
    early = await rig.get(f"/v1/coverage/{BTC}?end={MS0 + 5000}")
    assert early["ranges"] == [[1, 100]] and early["gaps"] == [] and early["complete"] is True


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/trades", 400, "instrument"),
        ("/v1/candles?instrument=sim:BTCUSDT", 400, "tf"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=7m", 400, "tf"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=10001", 400, "limit"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=0", 400, "limit"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=1e9", 400, "limit"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=99999999999999999999999", 400, "limit"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&fill=zero", 400, "fill"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&start=yesterday", 400, "start"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&start=-5", 400, "start"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&start=9999-01-01", 400, "start"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&start=5&end=5", 400, "end"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&since=1&start=5", 400, "since"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&since=OTHER:1", 400, "since"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&since=abc", 400, "since"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&indicators=rsi14", 400, "indicators"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&indicators=sma0", 400, "indicators"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&times=us", 400, "times"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&symbol=x", 400, "symbol"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=9&limit=3", 400, "limit"),
        ("/v1/candles?instrument=sim:BTCUSDT&instrument=sim:ETHUSDT&tf=1m", 400, "instrument"),
        ("/v1/candles?instrument=sim:NOPE&tf=1m", 404, "instrument"),
        ("/v1/trades?instrument=sim:NOPE", 404, "instrument"),
        ("/v1/candles?instrument=NOPE&tf=1m", 400, "instrument"),
        ("/v1/trades?instrument=';DROP TABLE trades;--", 400, "instrument"),
        ("/v1/instruments?x=1", 400, "x"),
        ("/v1/ticker/sim:NOPE", 404, "instrument"),
        ("/v1/coverage/..%2f..%2fetc", 404, "instrument"),
        ("/v1/nothing", 404, None),
        ("/nothing/at/all", 404, None),
    ],
)
async def test_refusals_are_problems_that_name_their_field(rig: Rig, path: str, status: int, field: str | None) -> None:
    async with rig.http as client:
        answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.text)
    assert problem["status"] == status and problem["title"] and problem["detail"] and problem["type"]
    assert problem.get("field") == field


@pytest.mark.parametrize("route", ["candles?tf=1m&", "trades?", "export/candles?tf=1m&", "export/trades?"])
@pytest.mark.parametrize(("typed", "status"), [("BTCUSDT", 400), ("sim:BTCUSD", 404), ("SIM:BTCUSDT", 404)])
async def test_an_instrument_typed_wrong_is_told_the_known_ones(rig: Rig, route: str, typed: str, status: int) -> None:
    problem = await rig.get(f"/v1/{route}instrument={typed}", status)
    assert problem["field"] == "instrument" and typed in problem["detail"] and BTC in problem["detail"]
    assert ("venue:symbol" in problem["detail"]) == (status == 400)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&limit=1e9", "limit: expected a whole number of at most 10000"),
        ("/v1/candles?instrument=sim:BTCUSDT&tf=1m&fill=zero", "fill: expected one of none, prev, null"),
        ("/v1/book/sim:BTCUSDT?levels=x", "levels: expected a whole number"),
    ],
)
async def test_refusals_say_what_is_expected(rig: Rig, path: str, said: str) -> None:
    assert (await rig.get(path, 400))["detail"] == said


async def test_a_plain_request_to_the_socket_is_told_to_upgrade(rig: Rig) -> None:
    async with rig.http as client:
        answer = await client.get("/v1/ws")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "ws://" in answer.json()["detail"]
    async with rig.ws() as peer:
        await peer.until(lambda p: p.frames)
        peer.send({"op": "subscrib"})
        peer.send({"op": "subscribe", "channels": [{"ch": f"trade@{BTC}", "backfill": "some"}]})
        found = await peer.until(lambda p: [f for f in p.frames if f["type"] == "error"][1:] and p.frames)
    told = [frame["msg"] for frame in found if frame["type"] == "error"]
    assert "one of subscribe, unsubscribe, auth, ping, list" in told[0]
    assert "one of all, skip" in told[1]


async def test_other_methods_are_problems_too(rig: Rig) -> None:
    async with rig.http as client:
        answer = await client.post("/v1/trades")
    assert answer.status_code == 405 and answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_range_from_the_beginning_of_time_is_cheap(rig: Rig) -> None:
    await rig.tell(1, 100)
    for tf in ("1s", "1m", "1M"):
        told = await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&start=0&fill=prev&limit=10000")
        assert len(told["candles"]) <= 20


async def test_filled_pages_go_on_across_a_gap(rig: Rig) -> None:
    """An open gap is not filled: a page short of its limit must still name the next one."""
    await rig.tell(1, 299)
    jump = batch(400, 290)  # 300 to 399 are missing
    jump.ts_event += 30 * 60 * SECOND
    jump.clock = int(jump.ts_event[-1]) + 10 * SECOND
    await rig.bus.publish("trades", jump)
    await rig.bus.settled("trades")
    whole = [c["open_time"] for c in (await rig.get(f"/v1/candles?instrument={BTC}&tf=1m"))["candles"]]
    for tf, wanted in (("1m", whole), ("1s", None)):
        path, seen, pages = f"/v1/candles?instrument={BTC}&tf={tf}&start=0&fill=prev&limit=50", [], 0
        while path and pages < 100:
            told = await rig.get(path)
            seen += [c["open_time"] for c in told["candles"] if "filled" not in c]
            path, pages = told["next"], pages + 1
        everything = await rig.get(f"/v1/candles?instrument={BTC}&tf={tf}&limit=10000")
        assert seen == (wanted or [c["open_time"] for c in everything["candles"]])
