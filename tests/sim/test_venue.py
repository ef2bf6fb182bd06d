"""The simulated venue over real sockets: Binance's REST and WebSocket trade protocol, and faults."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from picows import WSInvalidStatusError, WSMsgType, ws_connect

from tapewick.clock import ManualClock
from tapewick.errors import BadPayload, ConfigError, VenueRefused
from tapewick.sim.market import SimTrade
from tapewick.sim.venue import Fault, SimVenue
from tests.sim.sockets import ORIGIN, Listener, connected, manual, rest

pytestmark = pytest.mark.timeout(30)


def event(trade: SimTrade) -> dict[str, Any]:
    return {"t": trade.id, "T": trade.time, "m": trade.buyer_is_maker, "p": trade.price, "q": trade.size}


def same(frame: dict[str, Any], trade: SimTrade) -> bool:
    expected = event(trade)
    exact = Decimal(frame["p"]) == Decimal(trade.price) and Decimal(frame["q"]) == Decimal(trade.size)
    return exact and all(frame[key] == expected[key] for key in "tTm")


async def test_a_raw_stream_carries_every_trade_once() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        clock.advance(5.0)
        first = await listener.next()
        truth = venue.truth("BTCUSDT")
        assert len(truth) > 10
        got = [first, *[await listener.next() for _ in truth[1:]]]
        assert all(same(frame, trade) for frame, trade in zip(got, truth, strict=True))
        assert list(first) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
        assert first["E"] == ORIGIN + 3_605_000
        assert len(first["p"].partition(".")[2]) == 8
        assert listener.frames.empty()


async def test_a_combined_stream_wraps_frames_and_takes_percent_encoding() -> None:
    clock, venue = manual()
    path = "/stream?streams=" + quote("btcusdt@aggTrade/btcusdt@trade", safe="")
    async with venue, connected(venue, path) as listener:
        clock.advance(5.0)
        await asyncio.sleep(0.05)
        truth = venue.truth("BTCUSDT")
        aggregates = {trade.agg_id for trade in truth}
        frames = [await listener.next() for _ in range(len(truth) + len(aggregates))]
        trades = [frame["data"] for frame in frames if frame["stream"] == "btcusdt@trade"]
        folded = [frame["data"] for frame in frames if frame["stream"] == "btcusdt@aggTrade"]
        assert [frame["t"] for frame in trades] == [trade.id for trade in truth]
        assert {frame["a"] for frame in folded} == aggregates
        for frame in folded:
            covered = [trade for trade in truth if frame["f"] <= trade.id <= frame["l"]]
            assert Decimal(frame["q"]) == sum(Decimal(trade.size) for trade in covered)


async def test_subscriptions_are_changed_by_control_messages() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws") as listener:
        assert await listener.ask("SUBSCRIBE", ["btcusdt@trade"], 7) == {"result": None, "id": 7}
        assert await listener.ask("LIST_SUBSCRIPTIONS", [], "x") == {"result": ["btcusdt@trade"], "id": "x"}
        clock.advance(2.0)
        assert (await listener.next())["e"] == "trade"
        assert await listener.ask("UNSUBSCRIBE", ["btcusdt@trade"], None) == {"result": None, "id": None}
        clock.advance(2.0)
        await asyncio.sleep(0.05)
        assert listener.frames.empty()
        assert (await listener.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_bad_control_messages_are_answered_and_too_many_end_the_connection() -> None:
    async with SimVenue() as venue, connected(venue, "/ws") as listener:
        listener.transport.send(WSMsgType.TEXT, b"{nonsense")
        assert (await listener.next())["code"] == 3
        listener.transport.send(WSMsgType.TEXT, b'{"method":5}')
        assert (await listener.next())["code"] == 2
        assert (await listener.ask("DANCE"))["code"] == 2
        assert (await listener.ask("GET_PROPERTY", ["combined"]))["result"] is False
        for _ in range(4):
            listener.transport.send(WSMsgType.TEXT, b'{"method":"LIST_SUBSCRIPTIONS","params":[],"id":1}')
        while (frame := await listener.frames.get()).startswith(b"{"):
            pass
        assert frame == b"close 1008"


async def test_the_venue_pings() -> None:
    async with SimVenue(ping_every=0.05) as venue, connected(venue, "/ws/btcusdt@trade") as listener:
        while not listener.pings:
            await listener.frames.get()
        assert listener.pings[0].isdigit()


async def test_exchange_info_for_all_one_several_and_unknown_symbols() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT", "币安USDT"]) as venue:
        everything = await rest(venue, "exchangeInfo")
        assert [s["symbol"] for s in everything["symbols"]] == ["BTCUSDT", "ETHUSDT", "币安USDT"]
        filters = everything["symbols"][0]["filters"]
        assert filters[0]["filterType"] == "PRICE_FILTER" and filters[0]["tickSize"] == "0.01000000"
        assert filters[1]["filterType"] == "LOT_SIZE" and filters[1]["stepSize"] == "0.00001000"
        one = await rest(venue, "exchangeInfo", symbol="ETHUSDT")
        two = await rest(venue, "exchangeInfo", symbols='["ETHUSDT","币安USDT"]')
        assert [s["symbol"] for s in one["symbols"] + two["symbols"]] == ["ETHUSDT", "ETHUSDT", "币安USDT"]
        with pytest.raises(VenueRefused, match="-1121") as refused:
            await rest(venue, "exchangeInfo", symbols='["ETHUSDT","NOPE"]')
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("trades", {}, "-1102"),
        ("trades", {"symbol": "NOPE"}, "-1121"),
        ("trades", {"symbol": "BTCUSDT", "limit": "x"}, "-1100"),
        ("historicalTrades", {"symbol": "BTCUSDT", "fromId": "-4"}, "-1100"),
        ("aggTrades", {"symbol": "BTCUSDT", "limit": 0}, "-1130"),
    ],
)
async def test_bad_requests_get_the_venues_error_codes(path: str, params: dict[str, str], code: str) -> None:
    async with SimVenue() as venue:
        with pytest.raises(VenueRefused, match=code):
            await rest(venue, path, **params)


async def test_paging_by_id_is_contiguous_and_equals_the_truth() -> None:
    clock, venue = manual()
    async with venue:
        clock.advance(60.0)
        await asyncio.sleep(0.02)
        last = venue.truth("BTCUSDT")[-1]
        found: list[dict[str, Any]] = []
        while not found or found[-1]["id"] < last.id:
            start = found[-1]["id"] + 1 if found else 1
            page = await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=start, limit=1000)
            assert page[0]["id"] == start
            found += page
        assert [row["id"] for row in found] == list(range(1, last.id + 1))
        assert Decimal(found[-1]["price"]) == Decimal(last.price)
        assert Decimal(found[-1]["quoteQty"]) == Decimal(last.price) * Decimal(last.size)
        newest = await rest(venue, "trades", symbol="BTCUSDT", limit=5)
        assert [row["id"] for row in newest] == list(range(last.id - 4, last.id + 1))
        assert await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=last.id + 1) == []


async def test_aggregates_by_id_and_by_time_cover_every_trade() -> None:
    _, venue = manual()
    async with venue:
        found: list[dict[str, Any]] = []
        params: dict[str, str | int] = {"startTime": ORIGIN + 60_000, "endTime": ORIGIN + 240_000}
        found = await rest(venue, "aggTrades", symbol="BTCUSDT", limit=1000, **params)
        while True:
            page = await rest(venue, "aggTrades", symbol="BTCUSDT", fromId=found[-1]["a"] + 1, limit=700)
            page = [row for row in page if row["T"] <= ORIGIN + 240_000]
            if not page:
                break
            found += page
        raw = await rest(venue, "historicalTrades", symbol="BTCUSDT", fromId=found[0]["f"], limit=1)
        assert ORIGIN + 60_000 <= raw[0]["time"] < ORIGIN + 62_000
        assert [row["a"] for row in found] == list(range(found[0]["a"], found[-1]["a"] + 1))
        for row, following in zip(found, found[1:], strict=False):
            assert following["f"] == row["l"] + 1
        newest = await rest(venue, "aggTrades", symbol="BTCUSDT", limit=2)
        until = await rest(venue, "aggTrades", symbol="BTCUSDT", endTime=ORIGIN + 240_000, limit=2)
        assert until == found[-2:]
        assert newest[-1]["T"] < ORIGIN + 3_600_000
        assert await rest(venue, "aggTrades", symbol="BTCUSDT", startTime=ORIGIN + 7_200_000) == []


async def test_a_restarted_venue_continues_its_tape() -> None:
    clock = ManualClock((ORIGIN + 1_000_000) * 1_000_000)
    async with SimVenue(["ETHUSDT"], origin=ORIGIN, clock=clock) as venue:
        clock.advance(10.0)
        await asyncio.sleep(0.02)
        first = venue.truth("ETHUSDT")
    clock.advance(20.0)
    async with SimVenue(["ETHUSDT"], origin=ORIGIN, clock=clock) as venue:
        again = await rest(venue, "historicalTrades", symbol="ETHUSDT", fromId=first[0].id, limit=len(first))
        assert [row["id"] for row in again] == [trade.id for trade in first]
        assert [Decimal(row["price"]) for row in again] == [Decimal(trade.price) for trade in first]
        clock.advance(1.0)
        await asyncio.sleep(0.02)
        assert venue.truth("ETHUSDT")[0].id > first[-1].id + 1


async def test_skipped_ids_happen_but_are_not_sent() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@trade") as listener:
        clock.advance(2.0)
        before = [await listener.next()]
        while before[-1]["t"] < venue.truth("BTCUSDT")[-1].id:
            before.append(await listener.next())
        venue.skip_ids(3)
        clock.advance(5.0)
        assert (await listener.next())["t"] == before[-1]["t"] + 4
        assert [trade.id for trade in venue.truth("BTCUSDT")][: len(before) + 3][-1] == before[-1]["t"] + 3


async def more(venue: SimVenue, count: int) -> None:
    """Wait until ``count`` more trades have happened."""
    goal = len(venue.truth("BTCUSDT")) + count
    while True:
        await asyncio.sleep(0.01)  # a stalled venue gives no sign to wait for
        if len(venue.truth("BTCUSDT")) >= goal:
            return


async def test_a_stall_holds_frames_back_and_then_delivers_them() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue, connected(venue, "/ws/btcusdt@trade") as listener:
        last = (await listener.next())["t"]
        venue.stall(60.0)
        await more(venue, 20)
        while not listener.frames.empty():
            last = (await listener.next())["t"]
        await more(venue, 20)
        assert listener.frames.empty()
        venue.stall(0.0)
        assert (await listener.next())["t"] == last + 1


async def test_dropped_connections_end_or_fall_silent() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        async with connected(venue, "/ws/btcusdt@trade") as listener:
            await listener.next()
            venue.drop_connections()
            await listener.gone.wait()
        async with connected(venue, "/ws/btcusdt@trade") as listener:
            await listener.next()
            venue.drop_connections(fin=False)
            await more(venue, 20)
            while not listener.frames.empty():
                listener.frames.get_nowait()
            await more(venue, 20)
            assert listener.frames.empty() and not listener.gone.is_set()
            assert venue.connections == 1


async def test_refusals_reach_rest_and_sockets_with_their_headers() -> None:
    async with SimVenue() as venue:
        venue.refuse(429, retry_after=7)
        with pytest.raises(VenueRefused) as refused:
            await rest(venue, "ping")
        assert (refused.value.status, refused.value.retry_after) == (429, 7.0)
        with pytest.raises(WSInvalidStatusError):
            await ws_connect(Listener, venue.ws_url + "/ws")
        venue.refuse(None)
        assert await rest(venue, "ping") == {}


async def test_faults_run_from_a_script() -> None:
    faults = [Fault(0.05, "refuse", {"status": 451}), Fault(0.0, "send_raw", {"payload": b"\xff\xfe"})]
    async with SimVenue(faults=faults) as venue:
        while True:
            try:
                await rest(venue, "ping")
            except VenueRefused as error:
                assert error.status == 451
                break


def _recording(path: Path) -> list[int]:
    """Recorder lines with two trades, a repeated one, another stream and a REST body; ids of the trades."""

    def trade(id: int, time: int) -> str:
        data = {"e": "trade", "E": time + 1, "s": "ABCUSDT", "t": id, "p": "1.5", "q": "2", "T": time, "m": True}
        return msgspec.json.encode({"stream": "abcusdt@trade", "data": data}).decode()

    lines = [
        f"1700000000000000000 {trade(41, 1700000000000)}",
        '1700000000100000000 {"lastUpdateId":9,"bids":[],"asks":[]}',
        '1700000000200000000 {"stream":"abcusdt@bookTicker","data":{"u":1,"s":"ABCUSDT","b":"1","a":"2"}}',
        f"1700000000300000000 {trade(42, 1700000000300)}",
        f"1700000000300000001 {trade(42, 1700000000300)}",
    ]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")
    return [41, 42, 42]


@pytest.mark.parametrize("speed", [None, 10.0])
async def test_a_recording_is_served_from_the_first_subscription(tmp_path: Path, speed: float | None) -> None:
    ids = _recording(tmp_path / "made.gz")
    async with SimVenue(["ABCUSDT"], captures=[tmp_path / "made.gz"], speed=speed) as venue:
        await asyncio.sleep(0.02)
        assert venue.truth("ABCUSDT") == []
        async with connected(venue, "/stream?streams=abcusdt@trade") as listener:
            await venue.played.wait()
            assert [(await listener.next())["data"]["t"] for _ in ids] == ids
            assert [trade.id for trade in venue.truth("ABCUSDT")] == [41, 42]
            page = await rest(venue, "historicalTrades", symbol="ABCUSDT", fromId=42)
            assert [row["id"] for row in page] == [42]


async def test_a_file_without_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("nothing\n")
    with pytest.raises(BadPayload, match="no recorded stream frame"):
        async with SimVenue(["ABCUSDT"], captures=[tmp_path / "empty"]) as venue:
            async with connected(venue, "/stream?streams=abcusdt@trade"):
                await asyncio.sleep(0.1)


def test_an_unknown_symbol_is_refused() -> None:
    with pytest.raises(ConfigError, match="BTCUSDT"):
        SimVenue(["NOPE"])


def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "tapewick.sim.venue", "--rate", "5", "--symbols", "SOLUSDT"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        rest_url, ws_url = process.stdout.readline().split()
        with urllib.request.urlopen(f"{rest_url}/api/v3/ping") as answer:
            assert answer.read() == b"{}"
        assert ws_url.startswith("ws://127.0.0.1:")
        process.terminate()
        assert process.wait(10) == 0
