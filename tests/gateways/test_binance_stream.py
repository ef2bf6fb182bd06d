"""Binance's socket protocol as its clients know it, over real sockets on real data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tapewick.gateways._binance_session import Rules
from tapewick.gateways.binance import Options
from tapewick.model import TradeBatch
from tapewick.outbox import Limits
from tapewick.timeframe import SECOND
from tests.gateways.rig import BTC, STEP, T0, Peer, Rig, batch, instrument, running

MS = T0 // 1_000_000
SOON = Rules(ping_every=0.05, pong_within=1.5, messages_per_s=1000)  # a pause of the machine is shorter
FREE = Options(rules=Rules(messages_per_s=1000))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "data", binance=FREE) as made:
        yield made


def results(peer: Peer, id: Any) -> list[dict[str, Any]]:
    return [frame for frame in peer.frames if "id" in frame and frame["id"] == id and "e" not in frame]


async def call(peer: Peer, method: str, *params: Any, id: Any = 1) -> dict[str, Any]:
    """Send a control message and wait for one more answer with its id."""
    before = len(results(peer, id))
    peer.send({"method": method, **({"params": list(params)} if params else {}), "id": id})
    await peer.until(lambda p: len(results(p, id)) > before)
    return results(peer, id)[-1]


def events(peer: Peer, kind: str) -> list[dict[str, Any]]:
    return [frame for frame in peer.frames if frame.get("e") == kind]


def shifted(trades: TradeBatch, by: int) -> TradeBatch:
    trades.ts_event = trades.ts_event + by
    return trades


# -- paths and framing -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/btcusdt@trade", "/binance/ws/btcusdt@trade", "/ws/0/btcusdt@trade"])
async def test_raw_frames_at_every_mount(rig: Rig, path: str) -> None:
    await rig.tell(1, 1)
    async with rig.ws(path) as peer:
        assert (await call(peer, "LIST_SUBSCRIPTIONS"))["result"] == ["btcusdt@trade"]
        await rig.tell(2, 2)
        await peer.until(lambda p: len(events(p, "trade")) == 2)
    one = events(peer, "trade")[0]
    assert one == {
        "e": "trade", "E": rig.clock.now() // 1_000_000, "s": "BTCUSDT", "t": 2, "p": "100.74", "q": "0.003",
        "T": (T0 + 2 * STEP) // 1_000_000, "m": True, "M": True,
    }  # fmt: skip
    assert list(one) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]


@pytest.mark.parametrize(
    "streams", ["btcusdt@trade/btcusdt@aggTrade", quote("btcusdt@trade/btcusdt@aggTrade", safe="")]
)
async def test_combined_frames_name_their_stream(rig: Rig, streams: str) -> None:
    async with rig.ws(f"/stream?streams={streams}") as peer:
        assert len((await call(peer, "LIST_SUBSCRIPTIONS"))["result"]) == 2
        await rig.tell(1, 1)
        await peer.until(lambda p: len([f for f in p.frames if "stream" in f]) == 2)
    data = {frame["stream"]: frame["data"] for frame in peer.frames if "stream" in frame}
    assert data["btcusdt@trade"]["t"] == 1
    assert list(data["btcusdt@aggTrade"]) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert [data["btcusdt@aggTrade"][key] for key in "afl"] == [1, 1, 1]


async def test_addresses_without_streams_are_legal(rig: Rig) -> None:
    for path in ("/ws", "/ws/", "/ws/0", "/ws/17", "/stream", "/stream?streams=", "/ws/abc/def", "/binance/ws"):
        async with rig.ws(path) as peer:
            assert await call(peer, "LIST_SUBSCRIPTIONS", id=None) == {"result": [], "id": None}, path


async def test_microseconds(rig: Rig) -> None:
    async with rig.ws("/ws/btcusdt@trade?timeUnit=MICROSECOND") as fine, rig.ws("/ws/btcusdt@trade") as plain:
        for peer in (fine, plain):
            await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(1, 1)
        for peer, unit in ((fine, 1000), (plain, 1_000_000)):
            await peer.until(lambda p: events(p, "trade"))
            assert events(peer, "trade")[0]["T"] == (T0 + STEP) // unit


async def test_other_paths_are_not_upgraded(rig: Rig) -> None:
    async with rig.http as client:
        for path in ("/wsx", "/streams", "/binance/v1/ws"):
            headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
            answer = await client.get(path, headers={**headers, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
            assert answer.status_code == 404


async def test_pages_of_other_origins_stay_outside(rig: Rig) -> None:
    host = rig.gateway.url.partition("://")[2]
    headers = {
        "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    async with rig.http as client:
        refused = await client.get("/ws", headers={**headers, "origin": "http://evil.example"})
        assert refused.status_code == 403
    async with rig.ws("/ws", extra_headers={"Origin": f"http://{host}"}) as peer:
        assert (await call(peer, "LIST_SUBSCRIPTIONS"))["result"] == []


# -- control messages ------------------------------------------------------------------------------


IDS = (1, 0, -(2**63), 2**63 - 1, "a", "123e4567-e89b-12d3-a456-426614174000", None)


async def test_every_kind_of_id_is_echoed_and_may_repeat(rig: Rig) -> None:
    for id in IDS:
        await ids_are_echoed(rig, id)


async def ids_are_echoed(rig: Rig, id: Any) -> None:
    async with rig.ws("/ws") as peer:
        assert await call(peer, "SUBSCRIBE", "btcusdt@trade", id=id) == {"result": None, "id": id}
        assert await call(peer, "SUBSCRIBE", "btcusdt@trade", id=id) == {"result": None, "id": id}
        assert await call(peer, "LIST_SUBSCRIPTIONS", id=id) == {"result": ["btcusdt@trade"], "id": id}
        assert await call(peer, "UNSUBSCRIBE", "btcusdt@trade", "never@subscribed", id=id) == {"result": None, "id": id}
        assert await call(peer, "LIST_SUBSCRIPTIONS", id=id) == {"result": [], "id": id}


WRONG: tuple[tuple[bytes, int, Any], ...] = (
    (b"{", 3, None),
    (b"\xff\xfe", 3, None),
    (b"[" * 3000, 3, None),
    (b"[]", 2, None),
    (b'{"id":5}', 2, 5),
    (b'{"method":"subscribe","params":["btcusdt@trade"],"id":5}', 2, 5),
    (b'{"method":"SUBSCRIBE","params":"btcusdt@trade","id":5}', 2, 5),
    (b'{"method":"SUBSCRIBE","params":[],"id":5}', 2, 5),
    (b'{"method":"SUBSCRIBE","params":[7],"id":5}', 2, 5),
    (b'{"method":"SUBSCRIBE","params":["%b"],"id":5}' % (b"x" * 200), 2, 5),
    (b'{"method":"LIST_SUBSCRIPTIONS","id":"%b"}' % (b"x" * 37), 2, None),
    (b'{"method":"LIST_SUBSCRIPTIONS","id":9223372036854775808}', 2, None),
    (b'{"method":"LIST_SUBSCRIPTIONS","id":1.5}', 2, None),
    (b'{"method":"LIST_SUBSCRIPTIONS","id":true}', 2, None),
    (b'{"method":"GET_PROPERTY","params":["colour"],"id":5}', 0, 5),
    (b'{"method":"SET_PROPERTY","params":["combined","yes"],"id":5}', 1, 5),
    (b'{"method":"SET_PROPERTY","params":["combined"],"id":5}', 1, 5),
)


async def test_what_is_wrong_gets_the_venues_code(rig: Rig) -> None:
    async with rig.ws("/ws") as peer:
        for message, code, id in WRONG:
            peer.frames.clear()
            peer.send(message)
            [answer] = await peer.until(lambda p: p.frames)
            assert (answer["code"], answer["id"]) == (code, id) and answer["msg"], message
        assert await call(peer, "LIST_SUBSCRIPTIONS", id=8) == {"result": [], "id": 8}, "the socket goes on"


async def test_the_framing_can_be_changed(rig: Rig) -> None:
    async with rig.ws("/ws/btcusdt@trade") as peer:
        assert (await call(peer, "GET_PROPERTY", "combined"))["result"] is False
        await call(peer, "SET_PROPERTY", "combined", True)
        assert (await call(peer, "GET_PROPERTY", "combined"))["result"] is True
        await rig.tell(1, 1)
        await peer.until(lambda p: [f for f in p.frames if f.get("stream") == "btcusdt@trade"])
        await call(peer, "SET_PROPERTY", "combined", False)
        await rig.tell(2, 1)
        await peer.until(lambda p: events(p, "trade"))


async def test_what_means_nothing_is_accepted_and_silent(rig: Rig) -> None:
    names = ["nosuch@trade", "btcusdt@nosuch", "BTCUSDT@trade", "btcusdt@kline_45m", "!ticker@arr"]
    async with rig.ws("/ws") as peer:
        assert (await call(peer, "SUBSCRIBE", *names))["result"] is None
        assert (await call(peer, "LIST_SUBSCRIPTIONS"))["result"] == names
        await rig.tell(1, 5)
        await call(peer, "LIST_SUBSCRIPTIONS")
        assert all("result" in frame for frame in peer.frames)


async def test_a_symbol_that_comes_later_begins_to_flow(rig: Rig) -> None:
    async with rig.ws("/ws/ethusdt@trade") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.bus.publish("trades", instrument("sim:ETHUSDT"))
        first = 1
        while not events(peer, "trade"):
            await rig.tell(first, 1, "sim:ETHUSDT")
            first += 1
            await asyncio.sleep(0.05)
    assert events(peer, "trade")[0]["s"] == "ETHUSDT"


# -- limits ----------------------------------------------------------------------------------------


async def test_over_five_messages_per_second_end_the_socket(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.ws("/ws") as peer:
        for id in range(50):
            peer.send({"method": "LIST_SUBSCRIPTIONS", "id": id})
        await peer.until(lambda p: p.closed)
        assert peer.closed == (1008, "Too many requests")
        assert len(peer.frames) <= 5


async def test_over_1024_streams_end_the_socket(rig: Rig) -> None:
    async with rig.ws("/ws") as peer:
        names = [f"s{k}@trade" for k in range(1024)]
        assert (await call(peer, "SUBSCRIBE", *names))["result"] is None
        assert (await call(peer, "SUBSCRIBE", *names))["result"] is None, "these are followed already"
        peer.send({"method": "SUBSCRIBE", "params": ["one@more"], "id": 2})
        await peer.until(lambda p: p.closed)
        assert peer.closed[0] == 1008 if peer.closed else False


async def test_an_address_with_too_many_streams_is_closed_too(rig: Rig) -> None:
    async with rig.ws("/stream?streams=" + "/".join(f"{k:x}@trade" for k in range(1025))) as peer:
        await peer.until(lambda p: p.closed)
        assert peer.closed == (1008, "over 1024 streams")


async def test_pings_with_a_payload_want_it_back(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(rules=SOON)) as rig:
        async with rig.ws("/ws") as good, rig.ws("/ws") as deaf:
            deaf.answer_pings = False
            await deaf.until(lambda p: p.closed)
            assert deaf.closed == (1008, "Pong timeout")
            pings = good.pings
            await good.until(lambda p: p.pings > pings + 3)
            assert good.closed is None


async def test_unsolicited_pongs_are_allowed_and_do_not_count(tmp_path: Path) -> None:
    async with running(tmp_path, binance=Options(rules=SOON)) as rig, rig.ws("/ws") as peer:
        peer.answer_pings = False
        while peer.closed is None:
            assert peer.transport is not None
            peer.transport.send_pong(b"hello")
            await asyncio.sleep(0.02)
        assert peer.closed == (1008, "Pong timeout")


async def test_client_pings_are_answered(rig: Rig) -> None:
    async with rig.ws("/ws/btcusdt@trade") as peer:
        assert peer.transport is not None
        await peer.transport.measure_roundtrip_time(1)


async def test_a_client_that_does_not_read_is_cut_and_others_go_on(tmp_path: Path) -> None:
    limits = Limits(queue_bytes=20_000)
    async with running(tmp_path, limits=limits, binance=FREE) as rig:
        async with rig.ws("/ws/btcusdt@trade") as slow, rig.ws("/ws/btcusdt@trade") as fast:
            for peer in (slow, fast):
                await call(peer, "LIST_SUBSCRIPTIONS")
            assert slow.transport is not None
            slow.transport.underlying_transport.pause_reading()
            first = 1
            while len(rig.gateway.connections) == 2:
                await rig.tell(first, 2000)
                first += 2000
            await fast.until(lambda p: len(events(p, "trade")) == first - 1)
            assert [one["t"] for one in events(fast, "trade")] == list(range(1, first))


async def test_a_goodbye_is_the_last_frame_on_raw_sockets(tmp_path: Path) -> None:
    async with running(tmp_path, binance=FREE) as rig:
        async with rig.ws("/ws/btcusdt@trade") as raw, rig.ws("/stream?streams=btcusdt@trade") as combined:
            for peer in (raw, combined):
                await call(peer, "LIST_SUBSCRIPTIONS")
            await rig.gateway.__aexit__(None, None, None)
            for peer in (raw, combined):
                await peer.until(lambda p: p.closed)
                assert peer.closed is not None and peer.closed[0] == 1001
            assert raw.frames[-1] == {"e": "serverShutdown", "E": rig.clock.now() // 1_000_000}
            assert "serverShutdown" not in json.dumps(combined.frames)
            await rig.gateway.__aenter__()


@pytest.mark.parametrize(("farewell", "told"), [("all", 1), ("off", 0)])
async def test_the_goodbye_has_a_switch(tmp_path: Path, farewell: Any, told: int) -> None:
    async with running(tmp_path, binance=Options(rules=Rules(farewell=farewell))) as rig:
        async with rig.ws("/stream") as peer:
            await call(peer, "LIST_SUBSCRIPTIONS")
            await rig.gateway.__aexit__(None, None, None)
            await peer.until(lambda p: p.closed)
            assert len([f for f in peer.frames if f.get("stream") == "!serverShutdown"]) == told
            await rig.gateway.__aenter__()


# -- trades ----------------------------------------------------------------------------------------


async def test_trade_ids_never_go_back(rig: Rig) -> None:
    await rig.tell(1, 100)
    async with rig.ws("/ws/btcusdt@trade") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(201, 10)
        await rig.tell(101, 100, late=True)
        await rig.tell(211, 1)
        await peer.until(lambda p: [one for one in events(p, "trade") if one["t"] == 211])
        assert [one["t"] for one in events(peer, "trade")] == list(range(201, 212))
    async with rig.ws("/ws/btcusdt@trade") as later:
        await call(later, "LIST_SUBSCRIPTIONS")
        await rig.tell(301, 1)
        await rig.tell(250, 10, late=True)
        await rig.tell(302, 1)
        await later.until(lambda p: [one for one in events(p, "trade") if one["t"] == 302])
        assert [one["t"] for one in events(later, "trade")] == [301, 302]


async def test_a_repair_that_runs_at_the_start_is_not_streamed(rig: Rig) -> None:
    await rig.tell(1, 10)
    await rig.tell(101, 10)
    async with rig.ws("/ws/btcusdt@trade") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(11, 90, late=True)
        await rig.tell(111, 1)
        await peer.until(lambda p: events(p, "trade"))
        assert [one["t"] for one in events(peer, "trade")] == [111]


# -- bars ------------------------------------------------------------------------------------------


async def test_bars_close_exactly_once_and_in_order(rig: Rig) -> None:
    await rig.tell(1, 10)
    async with rig.ws("/ws/btcusdt@kline_1m") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        for first in range(11, 2000, 300):
            await rig.tell(first, 300)
        await rig.tell(2111, 1)
        await rig.tell(2200, 600)

        def closed(p: Peer) -> list[int]:
            return [(f["k"]["t"] - MS) // 60_000 for f in events(p, "kline") if f["k"]["x"]]

        await peer.until(lambda p: len(closed(p)) >= 4)
        await rig.tell(2112, 10, late=True)  # revises bar 3
        await rig.tell(2800, 600)
        await peer.until(lambda p: len(closed(p)) >= 5)
        assert closed(peer) == list(range(len(closed(peer))))
    times = [f["k"]["t"] for f in events(peer, "kline")]
    assert times == sorted(times)
    last = {f["k"]["t"]: f["k"] for f in events(peer, "kline") if f["k"]["x"]}[MS]
    row = (await rig.get(f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={MS}&limit=1"))[0]
    assert [last[key] for key in "tohlcvTqnVQB"] == row


async def test_the_open_bar_is_paced(rig: Rig) -> None:
    await rig.tell(1, 1)
    async with rig.ws("/ws/btcusdt@kline_1m") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        loop = asyncio.get_running_loop()
        start = loop.time()
        for id in range(2, 60):
            await rig.tell(id, 1)
        await peer.until(lambda p: any(f["k"]["L"] == 59 for f in events(p, "kline")))
        assert len(events(peer, "kline")) <= 2 + (loop.time() - start) / 2
    one = events(peer, "kline")[0]
    assert list(one) == ["e", "E", "s", "k"]
    assert list(one["k"]) == "t T s i f L o c h l v n x q V Q B".split()
    assert one["k"]["x"] is False and one["k"]["T"] == one["k"]["t"] + 59_999


async def test_quiet_buckets_close_flat(rig: Rig) -> None:
    await rig.tell(1, 10)
    async with rig.ws("/ws/btcusdt@kline_1m") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.bus.publish("trades", TradeBatch.empty(BTC, clock=T0 + 245 * SECOND))
        await rig.bus.settled("trades")
        await peer.until(lambda p: len(events(p, "kline")) >= 4)
        bars = [f["k"] for f in events(peer, "kline") if f["k"]["x"]]
        assert [(bar["t"] - MS) // 60_000 for bar in bars] == [0, 1, 2, 3]
        flat = bars[2]
        assert (flat["f"], flat["L"], flat["n"], flat["v"], flat["x"]) == (-1, -1, 0, "0.000", True)
        assert {flat[key] for key in "ohlc"} == {bars[0]["c"]}


async def test_seconds(rig: Rig) -> None:
    await rig.tell(1, 5)
    async with rig.ws("/ws/btcusdt@kline_1s") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(6, 95)
        await peer.until(lambda p: len(events(p, "kline")) >= 8)
    bars = [f["k"] for f in events(peer, "kline")]
    assert [bar["t"] for bar in bars] == [MS + k * 1000 for k in range(len(bars))]
    assert all(bar["x"] for bar in bars) and [bar["n"] for bar in bars[1:]] == [10] * (len(bars) - 1)


async def test_bars_of_another_zone(rig: Rig) -> None:
    """MS is midnight UTC, so 08:00 at +08:00: the day there began eight hours before."""
    await rig.tell(1, 5)
    async with rig.ws("/ws/btcusdt@kline_1d@+08:00") as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(6, 5)
        await peer.until(lambda p: events(p, "kline"))
        bar = events(peer, "kline")[0]["k"]
        assert (bar["t"], bar["T"], bar["i"]) == (MS - 8 * 3_600_000, MS + 16 * 3_600_000 - 1, "1d")
        await rig.bus.publish("trades", shifted(batch(11, 1), 20 * 3600 * SECOND))
        await rig.bus.settled("trades")
        await peer.until(lambda p: [f for f in events(p, "kline") if f["k"]["x"]])
        assert [f["k"]["t"] for f in events(peer, "kline") if f["k"]["x"]] == [bar["t"]]


# -- tickers ---------------------------------------------------------------------------------------

SHAPES = {
    "miniTicker": ("24hrMiniTicker", "e E s c o h l v q"),
    "ticker": ("24hrTicker", "e E s p P w x c Q b B a A o h l v q O C F L n"),
    "ticker_1h": ("1hTicker", "e E s p P o h l c w v q O C F L n"),
    "avgPrice": ("avgPrice", "e E s i w T"),
}


async def test_tickers_have_the_venues_shape_and_the_days_values(rig: Rig) -> None:
    await rig.tell(1, 700)
    async with rig.ws("/stream?streams=" + "/".join(f"btcusdt@{name}" for name in SHAPES)) as peer:
        await call(peer, "LIST_SUBSCRIPTIONS")
        await rig.tell(701, 700)

        def newest(p: Peer) -> dict[str, Any]:
            return {f["stream"].partition("@")[2]: f["data"] for f in p.frames if "stream" in f}

        await peer.until(lambda p: len(newest(p)) == len(SHAPES) and newest(p)["ticker"]["L"] == 1400)
        found = newest(peer)
    for name, (kind, keys) in SHAPES.items():
        assert found[name]["e"] == kind and list(found[name]) == keys.split()
    day = await rig.get("/api/v3/ticker/24hr?symbol=BTCUSDT")
    told = found["ticker"]
    assert [told[key] for key in "pPwxcQohlvqOCFLn"] == [
        day[key]
        for key in (
            "priceChange priceChangePercent weightedAvgPrice prevClosePrice lastPrice lastQty openPrice highPrice "
            "lowPrice volume quoteVolume openTime closeTime firstId lastId count"
        ).split()
    ]
    assert told["O"] % 60_000 == 0


async def test_all_mini_tickers_in_one_array(tmp_path: Path) -> None:
    async with running(tmp_path, ids=(BTC, "sim:ETHUSDT"), binance=FREE) as rig:
        await rig.tell(1, 5)
        await rig.tell(1, 5, "sim:ETHUSDT")
        async with rig.ws("/stream?streams=!miniTicker@arr/!ticker_1h@arr") as peer:

            def symbols(p: Peer, name: str) -> list[list[str]]:
                return [[one["s"] for one in f["data"]] for f in p.frames if f.get("stream") == name]

            await peer.until(lambda p: symbols(p, "!miniTicker@arr") and symbols(p, "!ticker_1h@arr"))
            assert symbols(peer, "!miniTicker@arr")[0] == ["BTCUSDT", "ETHUSDT"]
            await rig.tell(6, 5, "sim:ETHUSDT")
            await peer.until(lambda p: len(symbols(p, "!miniTicker@arr")) > 1)
            assert symbols(peer, "!miniTicker@arr")[1] == ["ETHUSDT"], "only what has changed"


async def test_greedy_clients_leave_others_alone(rig: Rig) -> None:
    """Sockets that ask for everything, and REST that asks for as much as it can, beside one that reads trades."""
    names = [f"btcusdt@kline_{tf}" for tf in ("1s", "1m", "5m", "1h", "1d", "1w", "1M")]
    async with rig.ws("/ws/btcusdt@trade") as calm, rig.ws("/ws") as greedy, httpx2.AsyncClient() as client:
        await call(calm, "LIST_SUBSCRIPTIONS")
        for id in range(20):
            greedy.send({"method": "SUBSCRIBE", "params": [*names, *(f"{id}x{k}@trade" for k in range(50))], "id": id})
        for path in ("klines?symbol=BTCUSDT&interval=1s&startTime=0&limit=1000000000", "ticker/24hr"):
            assert (await client.get(f"{rig.gateway.url}/api/v3/{path}")).status_code == 200
        await rig.tell(1, 1000)
        await calm.until(lambda p: len(events(p, "trade")) == 1000)
