"""A market that is silent after a connection began: what was missed shows without waiting for its next trade."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from tapewick.clock import RealClock
from tapewick.model import TradeBatch
from tapewick.net.venue_client import VenueClient
from tapewick.sim.venue import SimVenue
from tapewick.sources import _binance_silences
from tapewick.sources._binance_silences import Silences
from tapewick.sources._rest_rows import TradeRow, trades
from tapewick.sources.binance import PRODUCTS, BinanceSource
from tests.fault.roles.rig import HaltingClock
from tests.net.test_venue_client import response
from tests.sources.test_binance import reading, row, rows, source_of

ID = "sim:BTCUSDT"

pytestmark = pytest.mark.timeout(120)


async def _missed(venue: SimVenue, clock: HaltingClock) -> int:
    """Let trades happen that no stream carries, then none any more; the newest id."""
    venue.skip_ids(10**6)
    before = venue.truth("BTCUSDT")[-1].id
    while venue.truth("BTCUSDT")[-1].id < before + 20:  # noqa: ASYNC110  # the venue tells nobody
        await asyncio.sleep(0.02)
    clock.halt()
    await asyncio.sleep(0.2)  # the venue's next turn, after which nothing happens
    return venue.truth("BTCUSDT")[-1].id


@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_the_newest_trade_is_asked_for_after_a_reconnect(stream: str) -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        async with reading(source_of(venue, stream=stream)) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 20)
            newest = await _missed(venue, clock)
            heard = len(reader.batches(ID))
            assert newest not in reader.ids(ID)
            venue.drop_connections()
            await reader.until(lambda: newest in reader.ids(ID))
            last = next(batch for batch in reader.batches(ID)[heard:] if newest in batch.trade_id)
            assert last.covers == ((int(last.first_id[0]), newest),)
            truth = {trade.id: trade for trade in venue.truth("BTCUSDT")}
            if stream == "trade":
                assert rows([last]) == [row(truth[newest])]
            else:
                parts = [row(truth[id]) for id in range(int(last.first_id[0]), newest + 1)]
                ((_, price, size, _, side),) = rows([last])
                assert (price, size, side) == (parts[0][1], sum(part[2] for part in parts), parts[0][4])


@pytest.mark.parametrize("venue_id", list(PRODUCTS))
@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_every_market_kind_is_asked_at_its_own_path(venue_id: str, stream: Literal["trade", "aggTrade"]) -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        async with reading(source_of(venue)) as reader:  # trades happen from the first reader on
            await reader.until(lambda: len(reader.ids(ID)) > 20)
        newest = await _missed(venue, clock)
        source = BinanceSource(
            ["BTCUSDT"], venue=venue_id, rest_url=venue.rest_url, ws_url=venue.ws_url, stream=stream, retry_cap=0.05
        )
        async with reading(source) as reader:
            await reader.until(lambda: newest in reader.ids(f"{venue_id}:BTCUSDT"))
        asked = {"trade": "trades", "aggTrade": "aggTrades"}[stream]
        assert f"{PRODUCTS[venue_id].root}/{asked}" in venue.requests


async def test_a_venue_that_refuses_is_asked_again() -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 20)
            newest = await _missed(venue, clock)
            venue.refuse(400, on="rest", count=2)
            venue.drop_connections()
            await reader.until(lambda: newest in reader.ids(ID))
            assert source.rejects["newest"] >= 2


class Host:
    """A venue that gives each symbol its own answer, and notes which it was asked for."""

    def __init__(self) -> None:
        self.answers: defaultdict[str, bytes] = defaultdict(lambda: response(b"[]"))
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self._more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        [symbol] = parse_qs(urlsplit(target).query)["symbol"]
        self.asked.append(symbol)
        self._more.set()
        await self.open.wait()
        writer.write(self.answers[symbol])
        writer.close()

    async def until(self, symbol: str, times: int) -> None:
        while self.asked.count(symbol) < times:
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def asking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Host, Silences]]:
    monkeypatch.setattr(_binance_silences, "SILENCE", 0.05)
    monkeypatch.setattr(_binance_silences, "LOOK", 0.01)
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    own = Silences(PRODUCTS["binance"], "binance", "trade", RealClock(), lambda batch: None, Counter(), retry_cap=0.02)
    async with server, VenueClient([url], limit=10**9, attempts=1) as rest:
        task = asyncio.create_task(own.run(rest))
        try:
            yield host, own
        finally:
            host.open.set()
            task.cancel()
            await asyncio.wait({task})


REFUSED = response(b'{"code":-1121,"msg":"Invalid symbol."}', "400 Bad Request")


@pytest.mark.parametrize("while_", ["it is asked", "it waits to be asked again"])
async def test_what_is_heard_or_dropped_meanwhile_is_asked_no_more(
    while_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(monkeypatch) as (host, own):
        host.answers["GONE"] = host.answers["OTHER"] = REFUSED
        if while_ == "it is asked":
            host.open.clear()
        own.expect(["GONE"])
        await host.until("GONE", 1 if while_ == "it is asked" else 3)
        own.heard("GONE")
        host.open.set()
        own.expect(["OTHER"])
        await host.until("OTHER", 1)  # a question that was under way has come to its end
        asked = host.asked.count("GONE")
        await host.until("OTHER", 8)
        assert host.asked.count("GONE") == asked


async def test_a_stream_that_begins_again_meanwhile_is_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch) as (host, own):
        host.open.clear()
        own.expect(["BTCUSDT"])
        await host.until("BTCUSDT", 1)
        own.expect(["BTCUSDT"])
        host.open.set()
        await host.until("BTCUSDT", 2)


async def test_a_symbol_that_must_wait_lets_the_others_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch) as (host, own):
        host.answers["BLOCKED"] = response(b"{}", "403 Forbidden", "Retry-After: 600")
        own.expect(["BLOCKED", "A", "B"])
        await host.until("A", 1)
        await host.until("B", 1)
        own.expect(["C"])
        await host.until("C", 1)
        assert host.asked.count("BLOCKED") == 1


async def _silent(clock: HaltingClock, venue: SimVenue, *, redundant: bool = False) -> BinanceSource:
    """A source of a market that was busy once and is halted."""
    async with reading(source_of(venue, "BTCUSDT", "ETHUSDT")) as reader:  # trades happen from the first reader on
        await reader.until(lambda: len(reader.ids(ID)) > 20 and len(reader.ids("sim:ETHUSDT")) > 20)
    clock.halt()
    await asyncio.sleep(0.2)
    return BinanceSource(
        ["BTCUSDT"], venue="sim", rest_url=venue.rest_url, ws_url=venue.ws_url, redundant=redundant, retry_cap=0.05
    )


def _questions(venue: SimVenue) -> int:
    return venue.requests.count("/api/v3/trades")


async def test_one_of_two_connections_is_no_reason_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binance_silences, "SILENCE", 0.3)
    clock = HaltingClock()
    async with SimVenue(rate=100.0, clock=clock) as venue:
        source = await _silent(clock, venue, redundant=True)
        async with reading(source) as reader:
            await reader.until(lambda: bool(reader.ids(ID)) and venue.requests.count("/stream") == 3)
            asked = _questions(venue)
            venue.drop_connections(most=1)
            await reader.until(lambda: any("1 of 2" in each.detail for each in reader.health("connected")))
            await reader.until(lambda: venue.requests.count("/stream") == 4)
            source.watch(["ETHUSDT"])
            await reader.until(lambda: bool(reader.ids("sim:ETHUSDT")))
            assert _questions(venue) == asked + 1


async def test_a_stream_that_is_subscribed_to_anew_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_binance_silences, "SILENCE", 0.1)
    clock = HaltingClock()
    async with SimVenue(rate=100.0, clock=clock) as venue:
        source = await _silent(clock, venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids(ID)) == 1)
            assert source._streams is not None
            source._streams.resubscribe([("BTCUSDT", "trade")])
            await reader.until(lambda: len(reader.ids(ID)) == 2)
        assert len(set(reader.ids(ID))) == 1


def test_an_id_without_a_trade_is_vouched_for_and_makes_no_trade() -> None:
    handed: list[TradeBatch] = []
    own = Silences(PRODUCTS["binance-usdm"], "sim", "trade", RealClock(), handed.append, Counter(), retry_cap=1.0)
    own.tell("BTCUSDT", trades([TradeRow(id=7, price="0.00", qty="0.0", time=1_767_225_600_000, isBuyerMaker=True)]))
    assert [(len(batch.trade_id), batch.covers) for batch in handed] == [(0, ((7, 7),))]


async def test_a_market_that_trades_is_not_asked() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        async with reading(source_of(venue)) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 800)  # longer than a silence lasts
            ids = reader.ids(ID)
            assert ids == sorted(set(ids)) and np.all(np.diff(ids) == 1)
        assert "/api/v3/trades" not in venue.requests
