"""The live source against the simulated venue, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tapewick.clock import ManualClock
from tapewick.errors import ConfigError
from tapewick.model import Event, Health, Instrument, TradeBatch
from tapewick.sim.market import SimTrade
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_batches import ranges
from tapewick.sources.binance import PRODUCTS, BinanceSource

pytestmark = pytest.mark.timeout(30)


class Reader:
    """Collects what a source yields and waits until something holds of it."""

    def __init__(self, source: BinanceSource) -> None:
        self.source = source
        self.events: list[Event] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self.source.events()) as events:
            async for event in events:
                self.events.append(event)
                self._more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._more.clear()
            more = asyncio.create_task(self._more.wait())
            await asyncio.wait({more, self._task}, return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
            if self._task.done():
                self._task.result()
                raise AssertionError("events() ended")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def instruments(self) -> list[Instrument]:
        return [event for event in self.events if isinstance(event, Instrument)]

    def health(self, state: str) -> list[Health]:
        return [event for event in self.events if isinstance(event, Health) and event.state == state]

    def batches(self, id: str) -> list[TradeBatch]:
        return [event for event in self.events if isinstance(event, TradeBatch) and event.instrument == id]

    def ids(self, id: str) -> list[int]:
        return [int(trade) for batch in self.batches(id) for trade in batch.trade_id]


@asynccontextmanager
async def reading(source: BinanceSource) -> AsyncIterator[Reader]:
    reader = Reader(source)
    yield reader
    await reader.stop()


def source_of(venue: SimVenue, *symbols: str, idle: float = 60.0, stream: str = "trade") -> BinanceSource:
    assert stream in ("trade", "aggTrade")
    return BinanceSource(
        symbols or ("BTCUSDT",),
        venue="sim",
        rest_url=venue.rest_url,
        ws_url=venue.ws_url,
        stream="trade" if stream == "trade" else "aggTrade",
        idle=idle,
        retry_cap=0.05,
    )


def rows(batches: list[TradeBatch]) -> list[tuple[int, Decimal, Decimal, int, int]]:
    return [
        (int(id), Decimal(int(p)).scaleb(-b.price_scale), Decimal(int(q)).scaleb(-b.size_scale), int(ts), int(side))
        for b in batches
        for id, p, q, ts, side in zip(b.trade_id, b.price, b.size, b.ts_event, b.side, strict=True)
    ]


def row(trade: SimTrade) -> tuple[int, Decimal, Decimal, int, int]:
    side = -1 if trade.buyer_is_maker else 1
    return trade.id, Decimal(trade.price), Decimal(trade.size), trade.time * 1_000_000, side


async def test_every_trade_arrives_once_and_exact() -> None:
    async with SimVenue(rate=100.0) as venue:
        source = source_of(venue, "BTCUSDT", "solusdt")
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 150 and len(reader.ids("sim:SOLUSDT")) > 150)
            for symbol in ("BTCUSDT", "SOLUSDT"):
                batches = reader.batches(f"sim:{symbol}")
                got = rows(batches)
                truth = [row(trade) for trade in venue.truth(symbol) if got[0][0] <= trade.id <= got[-1][0]]
                assert got == truth
                assert all(batch.clock > 0 and batch.source == "sim" for batch in batches)
                assert all((batch.ts_recv > 0).all() for batch in batches)
            btc, sol = reader.instruments()
            assert (btc.id, btc.price_scale, btc.size_scale) == ("sim:BTCUSDT", 2, 5)
            assert (sol.base, sol.quote, sol.price_scale, sol.size_scale) == ("SOL", "USDT", 2, 3)
            assert (btc.status, btc.granularity, btc.id_kind, btc.simulated) == ("trading", "raw", "contiguous", True)
            first = next(n for n, e in enumerate(reader.events) if isinstance(e, TradeBatch))
            assert sum(isinstance(event, Instrument) for event in reader.events[:first]) == 2
            assert not source.jumps and not source.rejects.total()
            assert len(reader.health("connected")) == 1


async def test_aggregates_cover_their_ids() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue, stream="aggTrade")) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 100)
            assert reader.instruments()[0].granularity == "agg"
            batches = reader.batches("sim:BTCUSDT")
            first = np.concatenate([batch.first_id for batch in batches])
            last = np.concatenate([batch.trade_id for batch in batches])
            count = np.concatenate([batch.count for batch in batches])
            assert (first[1:] == last[:-1] + 1).all() and (count == last - first + 1).all()
            assert count.max() > 1
            volume = sum(trade[2] for trade in rows(batches))
            truth = [trade for trade in venue.truth("BTCUSDT") if first[0] <= trade.id <= last[-1]]
            assert volume == sum(Decimal(trade.size) for trade in truth)


async def test_the_clock_ticks_each_second_also_while_disconnected() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=0.01) as venue:
        async with reading(source_of(venue, "BTCUSDT", "ETHUSDT")) as reader:
            await reader.until(lambda: len(reader.batches("sim:ETHUSDT")) >= 1)
            venue.refuse(503)
            venue.drop_connections()
            await reader.until(lambda: bool(reader.health("refused")))
            before = len(reader.events)
            await reader.until(lambda: len(reader.events) > before + 3)
            ticks = [event for event in reader.events[before:] if isinstance(event, TradeBatch)]
            assert {tick.instrument for tick in ticks} == {"sim:BTCUSDT", "sim:ETHUSDT"}
            assert all(len(tick) == 0 and abs(tick.clock - time.time_ns()) < 10 * 10**9 for tick in ticks)
            clocks = [tick.clock for tick in reader.batches("sim:BTCUSDT")]
            assert clocks == sorted(clocks)


async def test_the_venues_clock_corrects_ours() -> None:
    ahead = ManualClock(1_800_000_000 * 10**9)
    ours = ManualClock(1_800_000_000 * 10**9 - 7_500_000_000)
    async with SimVenue(["BTCUSDT"], clock=ahead) as venue:
        source = BinanceSource(["BTCUSDT"], venue="sim", rest_url=venue.rest_url, ws_url=venue.ws_url, clock=ours)
        async with reading(source) as reader:
            await reader.until(lambda: bool(reader.health("connected")))
            assert source.clock_offset == 7_500_000_000
            ours.advance(1.0)
            await reader.until(lambda: bool(reader.batches("sim:BTCUSDT")))
            assert reader.batches("sim:BTCUSDT")[0].clock == 1_800_000_001 * 10**9


async def drop_with_fin(venue: SimVenue) -> None:
    venue.drop_connections()


async def drop_without_fin(venue: SimVenue) -> None:
    venue.drop_connections(fin=False)


async def stall(venue: SimVenue) -> None:
    venue.stall(1.6)


@pytest.mark.parametrize("fault", [drop_with_fin, drop_without_fin, stall])
async def test_the_stream_goes_on_after_a_broken_connection(fault: Callable[[SimVenue], Awaitable[None]]) -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        async with reading(source_of(venue, idle=0.8)) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 20)
            await fault(venue)
            await reader.until(lambda: bool(reader.health("disconnected")))
            lost_at = len(reader.ids("sim:BTCUSDT"))
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > lost_at + 50)
            ids = reader.ids("sim:BTCUSDT")
            assert ids == sorted(set(ids)), "no trade twice, none out of order"
            truth = {trade.id: row(trade) for trade in venue.truth("BTCUSDT")}
            assert all(truth[got[0]] == got for got in rows(reader.batches("sim:BTCUSDT")))
            assert ids[lost_at:][-1] - ids[lost_at:][0] == len(ids[lost_at:]) - 1
            assert len(reader.health("connected")) >= 2


async def test_a_hole_in_the_ids_is_visible_and_counted() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 5)
            venue.skip_ids(7)
            await reader.until(lambda: bool(source.jumps))
            ids = reader.ids("sim:BTCUSDT")
            assert [b - a for a, b in zip(ids, ids[1:], strict=False) if b != a + 1] == [8]
            assert source.jumps == Counter({"sim:BTCUSDT": 1})


GARBAGE = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b'{"stream":"btcusdt@trade","data":{"e":"trade"}}',
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"NaN","q":"1","T":1,"m":true}}',
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":2,"p":"1e400","q":"1","T":1,"m":true}}',
    b"[" * 5000,
]


async def test_garbage_is_counted_and_the_stream_goes_on() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 5)
            for frame in GARBAGE:
                venue.send_raw(frame)
            venue.send_raw(b'{"stream":"btcusdt@mystery","data":{"e":"mystery"}}')
            stranger = b'{"e":"trade","E":1,"s":"OTHER","t":1,"p":"1","q":"1","T":1700000000000,"m":true,"M":true}'
            venue.send_raw(b'{"stream":"other@trade","data":' + stranger + b"}")
            await reader.until(lambda: source.rejects.total() >= len(GARBAGE) and source.others.total() >= 2)
            assert source.rejects.total() == len(GARBAGE)
            assert source.others["unwanted trade"] == 1
            before = len(reader.ids("sim:BTCUSDT"))
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > before + 20)
            ids = reader.ids("sim:BTCUSDT")
            assert ids == list(range(ids[0], ids[0] + len(ids))), "the connection was kept"
            assert len(reader.health("connected")) == 1


async def test_a_frame_of_ten_megabytes_is_counted_and_the_stream_reconnects() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 5)
            venue.send_raw(b"x" * 10_000_000)
            await reader.until(lambda: len(reader.health("connected")) == 2)
            assert source.rejects["oversize"] == 1
            before = len(reader.ids("sim:BTCUSDT"))
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > before + 20)


@pytest.mark.parametrize(("status", "says"), [(451, "region"), (403, "firewall"), (429, "too many"), (500, "fault")])
@pytest.mark.parametrize("surface", ["rest", "ws"])
async def test_a_refusal_names_its_cause_and_the_source_keeps_trying(status: int, says: str, surface: str) -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        venue.refuse(status, on=surface, body=b"<html>no</html>", retry_after=1 if status == 429 else None)
        async with reading(source_of(venue)) as reader:
            await reader.until(lambda: bool(reader.health("refused")))
            detail = reader.health("refused")[0].detail
            assert str(status) in detail and says in detail and "html" not in detail
            if status in (451, 403):
                assert "BINANCE_BASE_URL" in detail and "tapewick demo" in detail
            venue.refuse(None)
            if (surface, status) == ("rest", 403):  # what a firewall turned down is not sent again for minutes
                assert venue.requests.count("/api/v3/exchangeInfo") == 1
                return
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 5)
            assert len(reader.health("refused")) == 1, "the same cause is told once"


async def test_an_unreachable_venue_points_to_the_demo() -> None:
    source = BinanceSource(["BTCUSDT"], rest_url="http://127.0.0.1:1", ws_url="ws://127.0.0.1:1", retry_cap=0.01)
    async with reading(source) as reader:
        await reader.until(lambda: bool(reader.health("disconnected")))
        detail = reader.health("disconnected")[0].detail
        assert "cannot be reached" in detail and "BINANCE_BASE_URL" in detail and "tapewick demo" in detail


async def test_an_announced_shutdown_is_bridged_without_a_hole() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 20)
            venue.shut_down()
            await reader.until(lambda: venue.connections == 2)
            await reader.until(lambda: venue.connections == 1)
            before = len(reader.ids("sim:BTCUSDT"))
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > before + 20)
            ids = sorted(set(reader.ids("sim:BTCUSDT")))
            assert ids == list(range(ids[0], ids[-1] + 1))
            assert source.others["serverShutdown"] == 1
            assert not reader.health("disconnected")


@pytest.mark.parametrize("venue_id", ["binance-usdm", "binance-coinm"])
@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_futures_use_their_own_paths(venue_id: str, stream: str) -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=200.0) as venue:
        source = BinanceSource(
            ["ETHUSDT"],
            venue=venue_id,
            rest_url=venue.rest_url,
            ws_url=venue.ws_url,
            stream="trade" if stream == "trade" else "aggTrade",
        )
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids(f"{venue_id}:ETHUSDT")) > 5)
            assert [instrument.id for instrument in reader.instruments()] == [f"{venue_id}:ETHUSDT"]
        assert f"{PRODUCTS[venue_id].root}/exchangeInfo" in venue.requests
        assert f"{PRODUCTS[venue_id].tiers.get(stream, '')}/stream" in venue.requests


async def test_many_symbols_share_connections_and_non_ascii_names_work() -> None:
    async with SimVenue(["BTCUSDT", "币安USDT"], rate=200.0) as venue:
        async with reading(source_of(venue, "币安USDT", "BTCUSDT")) as reader:
            await reader.until(lambda: len(reader.ids("sim:币安USDT")) > 5 and len(reader.ids("sim:BTCUSDT")) > 5)
            assert venue.connections == 1


async def test_streams_beyond_one_url_are_subscribed_by_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.net.websocket.STREAMS_PER_MESSAGE", 1)
    monkeypatch.setattr("tapewick.sources.binance.STREAMS_PER_CONNECTION", 2)
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    async with SimVenue(symbols, rate=200.0) as venue:
        source = source_of(venue, *symbols)
        async with reading(source) as reader:
            await reader.until(lambda: all(len(reader.ids(f"sim:{symbol}")) > 5 for symbol in symbols))
            assert venue.connections == 2
            assert source.others["control"] == 1


@pytest.mark.realdata
async def test_a_recorded_day_arrives_whole(testdata: Path) -> None:
    path = testdata / "binance-ws-2024-08" / "spot_btcusdt_20240809.gz"
    async with SimVenue(["BTCUSDT"], captures=[path]) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await venue.played.wait()
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) == len(venue.truth("BTCUSDT")))
            assert rows(reader.batches("sim:BTCUSDT")) == [row(trade) for trade in venue.truth("BTCUSDT")]
            assert len(reader.ids("sim:BTCUSDT")) == 10_147
            assert not source.jumps and not source.rejects.total()


async def test_an_unknown_symbol_is_named() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"]) as venue:
        source = source_of(venue, "BTCUSDT", "NOSUCH", "ETHUSDT")
        with pytest.raises(ConfigError, match="does not list NOSUCH;"):
            async with aclosing(source.events()) as events:
                async for _ in events:
                    pass


@pytest.mark.parametrize("url", ["venue.example", "ftp://venue.example", "http://", "http://[::1", "http://x:99999"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="BINANCE_BASE_URL"):
        BinanceSource(["BTCUSDT"], rest_url=url)


def test_addresses_fall_back_to_the_venues_own_only_beside_one_of_them() -> None:
    spot = PRODUCTS["binance"]
    assert BinanceSource(["BTCUSDT"]).addresses == (spot.rest, spot.ws)
    swapped = BinanceSource(["BTCUSDT"], rest_url=spot.rest[1] + "/")
    assert swapped.addresses[0] == (spot.rest[1], spot.rest[0])
    own = BinanceSource(["BTCUSDT"], rest_url="http://mirror.invalid/", ws_url="ws://mirror.invalid")
    assert own.addresses == (("http://mirror.invalid",), ("ws://mirror.invalid",))
    futures = BinanceSource(["BTCUSDT"], venue="binance-usdm", rest_url=spot.rest[0], ws_url=spot.ws[0])
    assert futures.addresses == (PRODUCTS["binance-usdm"].rest, PRODUCTS["binance-usdm"].ws)


def test_void_ids_are_vouched_for() -> None:
    first, last, voids = (np.array(column, np.int64) for column in ([5, 6, 9], [5, 7, 9], [8, 12]))
    assert ranges(first, last, voids) == ((5, 9), (12, 12))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="no symbol"):
        BinanceSource([])
    with pytest.raises(ConfigError, match="cannot be a symbol"):
        BinanceSource(["BTC/USDT?x=1"])
    with pytest.raises(ConfigError, match="no venue of this source"):
        BinanceSource(["BTCUSDT"], venue="other")
    with pytest.raises(ConfigError, match="cannot be a symbol"):
        BinanceSource(["A" * 33])
