"""The venue's sockets: every stream against the truth, at update ids where there are any."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from picows import WSMsgType

from tapewick.clock import ManualClock
from tapewick.sim.book import Levels
from tapewick.sim.venue import SimVenue
from tests.sim.sockets import ORIGIN, Listener, connected, manual, rest

pytestmark = pytest.mark.timeout(60)

PRICE, SIZE = 2, 5  # BTCUSDT's scales


def levels(rows: list[list[str]]) -> dict[int, int]:
    return {
        int(Decimal(price).scaleb(PRICE).to_integral_exact()): int(Decimal(size).scaleb(SIZE).to_integral_exact())
        for price, size in rows
    }


class Reader:
    """A book as a client keeps it: a snapshot, then diffs that must chain."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.id = snapshot["lastUpdateId"]
        self.sides = levels(snapshot["bids"]), levels(snapshot["asks"])

    def apply(self, diff: dict[str, Any]) -> None:
        if diff["u"] <= self.id:
            return
        assert diff["U"] <= self.id + 1
        self.id = diff["u"]
        for side, rows in zip(self.sides, (diff["b"], diff["a"]), strict=True):
            for price, size in levels(rows).items():
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)

    def book(self) -> Levels:
        bids, asks = self.sides
        return Levels(
            {price: bids[price] for price in sorted(bids, reverse=True)}, {price: asks[price] for price in sorted(asks)}
        )


async def moved(clock: ManualClock, listener: Listener, seconds: float, step: float = 0.05) -> list[dict[str, Any]]:
    """Let time pass in steps and collect everything that was sent for them."""
    found: list[dict[str, Any]] = []
    for _ in range(round(seconds / step)):
        clock.advance(step)
        for _ in range(4):  # the venue's turn
            await asyncio.sleep(0)
    # Frames arrive in order: the answer to a control message comes behind all that was sent before it.
    listener.transport.send(WSMsgType.TEXT, b'{"method":"LIST_SUBSCRIPTIONS","id":"end"}')
    while (frame := await listener.next()).get("id") != "end":
        found.append(frame)
    return found


async def until(clock: ManualClock, listener: Listener, kinds: int) -> list[dict[str, Any]]:
    """Let time pass until frames of so many streams have come."""
    found: list[dict[str, Any]] = []
    while len({frame.get("stream") for frame in found}) < kinds:
        clock.advance(0.25)
        await asyncio.sleep(0.01)
        while not listener.frames.empty():
            found.append(await listener.next())
    return found


@pytest.mark.parametrize("stream", ["depth", "depth@100ms"])
async def test_a_book_kept_from_snapshot_and_diffs_is_the_truth_at_every_update_id(stream: str) -> None:
    clock, venue = manual()
    async with venue, connected(venue, f"/ws/btcusdt@{stream}") as listener:
        buffered = await moved(clock, listener, 3.0)
        reader = Reader(await rest(venue, "depth", symbol="BTCUSDT", limit=5000))
        for diff in buffered + await moved(clock, listener, 12.0):
            assert list(diff) == ["e", "E", "s", "U", "u", "b", "a"]
            reader.apply(diff)
            if reader.id == diff["u"]:
                assert venue.book("BTCUSDT", reader.id) == (reader.id, reader.book())
        diffs = [diff for diff in buffered if diff["u"] > 0]
        assert len(diffs) >= (2 if stream == "depth" else 25)
        assert all(after["U"] == before["u"] + 1 for before, after in zip(diffs, diffs[1:], strict=False))


async def test_best_prices_equal_the_book_of_their_update_id() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/stream?streams=btcusdt@bookTicker/btcusdt@depth@100ms") as listener:
        frames = await moved(clock, listener, 10.0)
        quotes = [frame["data"] for frame in frames if frame["stream"] == "btcusdt@bookTicker"]
        diffs = {frame["data"]["u"] for frame in frames if frame["stream"] == "btcusdt@depth@100ms"}
        assert len(quotes) > 20 and diffs & {each["u"] for each in quotes}
        for each in quotes:
            assert list(each) == ["u", "s", "b", "B", "a", "A"]
            id, book = venue.book("BTCUSDT", each["u"])
            assert id == each["u"]
            assert levels([[each["b"], each["B"]]]) == dict(list(book.bids.items())[:1])
            assert levels([[each["a"], each["A"]]]) == dict(list(book.asks.items())[:1])
        assert [each["u"] for each in quotes] == sorted({each["u"] for each in quotes})


async def test_partial_depth_is_the_top_of_the_book_and_has_no_name() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/ws/btcusdt@depth5@100ms") as listener:
        frames = await moved(clock, listener, 2.0)
        assert len(frames) >= 15
        for frame in frames:
            assert list(frame) == ["lastUpdateId", "bids", "asks"]
            _, book = venue.book("BTCUSDT", frame["lastUpdateId"])
            assert list(levels(frame["bids"]).items()) == list(book.bids.items())[:5]
            assert list(levels(frame["asks"]).items()) == list(book.asks.items())[:5]


async def test_a_bar_closes_exactly_once_with_the_truth() -> None:
    clock, venue = manual()
    async with venue, connected(venue, "/stream?streams=btcusdt@kline_1s/btcusdt@kline_1m") as listener:
        await moved(clock, listener, 0.2, 0.1)
        frames = await moved(clock, listener, 130.0, 0.25)
        for interval, length, pace in (("1s", 1_000, 1_000), ("1m", 60_000, 2_000)):
            told = [frame["data"] for frame in frames if frame["stream"] == f"btcusdt@kline_{interval}"]
            closed = [each["k"] for each in told if each["k"]["x"]]
            starts = [k["t"] for k in closed]
            assert starts == list(range(starts[0], starts[-1] + 1, length)) and len(starts) >= 2
            truth = venue.bars("BTCUSDT", interval, start=starts[0], end=starts[-1] + 1)
            for k, bar in zip(closed, truth, strict=True):
                assert (k["n"], k["f"], k["L"]) == (bar.trades, bar.first_id, bar.last_id)
                assert int(Decimal(k["q"]).scaleb(PRICE + SIZE)) == bar.quote
                assert int(Decimal(k["c"]).scaleb(PRICE)) == bar.close
                assert (k["T"], k["i"], k["s"]) == (k["t"] + length - 1, interval, "BTCUSDT")
            assert all(each["E"] >= each["k"]["t"] + length for each in told if each["k"]["x"])
            opened = [each["E"] for each in told if not each["k"]["x"]]
            assert opened and all(b - a >= pace for a, b in zip(opened, opened[1:], strict=False))


@pytest.mark.parametrize("kind", ["kline_1d", "kline_1h@+08:00", "kline_1M"])
async def test_long_bars_have_their_past(kind: str) -> None:
    clock, venue = manual()
    async with venue, connected(venue, f"/ws/btcusdt@{kind}") as listener:
        frames = await until(clock, listener, 1)
        k = frames[-1]["k"]
        assert k["f"] in (1, 1 + venue.bars("BTCUSDT", "1h", start=ORIGIN, end=ORIGIN + 1)[0].last_id)
        assert k["i"] == kind.removeprefix("kline_").partition("@")[0]


async def test_tickers_and_averages_are_pushed_each_second() -> None:
    clock, venue = manual()
    path = "/stream?streams=btcusdt@ticker/btcusdt@miniTicker/btcusdt@avgPrice/!miniTicker@arr"
    async with venue, connected(venue, path) as listener:
        frames = await until(clock, listener, 4)
        ticker, mini, average, all_minis = (
            next(f["data"] for f in frames if f["stream"].endswith(kind))
            for kind in ("@ticker", "usdt@miniTicker", "@avgPrice", "@arr")
        )
        day = await rest(venue, "ticker/24hr", symbol="BTCUSDT")
        assert ticker["o"] == mini["o"] == day["openPrice"] and ticker["F"] == 1
        assert Decimal(ticker["v"]) <= Decimal(day["volume"])
        assert list(mini) == ["e", "E", "s", "c", "o", "h", "l", "v", "q"]
        assert list(average) == ["e", "E", "s", "i", "w", "T"]
        assert [each["s"] for each in all_minis] == ["BTCUSDT"]


async def test_times_come_in_microseconds_when_the_url_asks() -> None:
    clock, venue = manual()
    path = "/stream?timeUnit=MICROSECOND&streams=" + quote(
        "btcusdt@trade/btcusdt@depth@100ms/btcusdt@kline_1m", safe=""
    )
    async with venue, connected(venue, path) as listener:
        frames = await moved(clock, listener, 3.0)
        assert {frame["stream"] for frame in frames} == {"btcusdt@trade", "btcusdt@depth@100ms", "btcusdt@kline_1m"}
        assert all(frame["data"]["E"] > 10**15 for frame in frames)
        k = next(frame["data"]["k"] for frame in frames if frame["stream"] == "btcusdt@kline_1m")
        assert k["T"] == k["t"] + 59_999_999
        trades = [frame["data"] for frame in frames if frame["stream"] == "btcusdt@trade"]
        assert [trade["T"] for trade in trades] == [trade.time * 1000 for trade in venue.truth("BTCUSDT")]


async def test_futures_chain_by_pu_and_name_their_times() -> None:
    clock = ManualClock((ORIGIN + 60_000) * 1_000_000)
    venue = SimVenue(["BTCUSDT"], rate=10.0, origin=ORIGIN, clock=clock, product="futures")
    path = "/public/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade/btcusdt@depth5"
    async with venue, connected(venue, path) as listener:
        frames = await moved(clock, listener, 3.0)
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for frame in frames:
            by_kind.setdefault(frame["stream"], []).append(frame["data"])
        diffs = by_kind["btcusdt@depth@100ms"]
        assert all(after["pu"] == before["u"] for before, after in zip(diffs, diffs[1:], strict=False))
        assert any(after["U"] != before["u"] + 1 for before, after in zip(diffs, diffs[1:], strict=False))
        assert list(diffs[0]) == ["e", "E", "T", "s", "U", "u", "pu", "b", "a"]
        assert by_kind["btcusdt@bookTicker"][0]["e"] == "bookTicker"
        assert by_kind["btcusdt@trade"][0]["X"] == "MARKET"
        assert by_kind["btcusdt@depth5"][0]["e"] == "depthUpdate"
        body = await rest(venue, "depth", symbol="BTCUSDT")
        assert list(body) == ["lastUpdateId", "E", "T", "bids", "asks"]


async def test_control_messages_with_every_kind_of_id_and_both_framings() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue, connected(venue, "/ws/0") as listener:
        uuid = "0b5c3d3c-6f6a-4d0e-9a5e-3f1f0d4a5b6c"
        assert await listener.ask("SUBSCRIBE", ["btcusdt@trade"], uuid) == {"result": None, "id": uuid}
        assert (await listener.next())["e"] == "trade"
        assert await listener.ask("SET_PROPERTY", ["combined", True], -(2**63)) == {"result": None, "id": -(2**63)}
        while "stream" not in (frame := await listener.next()):
            pass
        assert frame["stream"] == "btcusdt@trade"
        assert (await listener.ask("SET_PROPERTY", ["combined", "yes"]))["code"] == 1
        assert (await listener.ask("GET_PROPERTY", ["colour"]))["code"] == 0
    async with SimVenue() as venue, connected(venue, "/stream") as listener:
        assert (await listener.ask("SUBSCRIBE", ["btcusdt@trade"], "x" * 37))["code"] == 2
        assert (await listener.ask("SUBSCRIBE", [5]))["code"] == 2
        assert (await listener.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_more_than_1024_streams_end_the_connection() -> None:
    async with SimVenue() as venue, connected(venue, "/ws") as listener:
        streams = [f"btcusdt@kline_{number}" for number in range(1025)]
        assert (await listener.ask("SUBSCRIBE", streams[:1024]))["result"] is None
        assert (await listener.ask("SUBSCRIBE", streams[1024:]))["code"] == 2
        assert await listener.frames.get() == b"close 1008"
        await listener.gone.wait()


async def test_a_connection_ends_at_its_lifetime() -> None:
    clock, _ = manual()
    async with SimVenue(["BTCUSDT"], origin=ORIGIN, clock=clock, lifetime=3600.0) as venue:
        async with connected(venue, "/ws/btcusdt@depth") as old:
            clock.advance(1800.0)
            async with connected(venue, "/ws") as young:
                while not old.gone.is_set():
                    clock.advance(600.0)
                    await asyncio.sleep(0.01)
                while (frame := await old.frames.get()).startswith(b"{"):
                    pass
                assert frame == b"close 1001"
                assert (await young.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_the_same_seed_sends_the_same_frames() -> None:
    async def sent(seed: int) -> list[dict[str, Any]]:
        clock = ManualClock((ORIGIN + 60_000) * 1_000_000)
        path = "/stream?streams=ethusdt@trade/ethusdt@depth@100ms/ethusdt@bookTicker"
        async with SimVenue(["ETHUSDT"], seed=seed, origin=ORIGIN, clock=clock) as venue:
            async with connected(venue, path) as listener:
                return await moved(clock, listener, 3.0)

    first = await sent(4)
    assert len(first) > 40
    assert await sent(4) == first
    assert await sent(5) != first
