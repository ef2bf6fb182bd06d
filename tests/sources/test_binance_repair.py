"""Repair by id against the simulated venue, over real sockets on loopback: pages, what they prove, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tapewick.clock import ManualClock
from tapewick.errors import Disconnected, SourceError, VenueRefused
from tapewick.model import NO_TIME, TradeBatch, Wanted
from tapewick.sim.market import Market, SimTrade
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_repair import PAGE, BinanceRepairer

pytestmark = pytest.mark.timeout(60)

BTC = "sim:BTCUSDT"
ORIGIN = 1_767_225_600_000
NOW = ORIGIN + 3_600_000


@asynccontextmanager
async def repairing(**more: Any) -> AsyncIterator[tuple[SimVenue, Market, BinanceRepairer]]:
    """A venue whose time stands still one hour after its first trade."""
    clock = ManualClock(NOW * 1_000_000)
    async with SimVenue(["BTCUSDT"], rate=5.0, origin=ORIGIN, clock=clock) as venue:
        options: dict[str, Any] = {"venue": "sim", "rest_url": venue.rest_url, "limit": 10**9, "attempts": 1} | more
        async with BinanceRepairer(**options) as repairer:
            yield venue, venue.markets()["BTCUSDT"], repairer


async def fetched(repairer: BinanceRepairer, *ranges: tuple[int, int], since: int = NO_TIME) -> list[TradeBatch]:
    wanted = Wanted(instrument=BTC, ranges=ranges, since=(since,) * len(ranges))
    return [page async for page in repairer.fetch(wanted)]


def rows(pages: list[TradeBatch]) -> list[tuple[int, int, int, int, int, int]]:
    """First id, last id, ns, price and size at 2 and 5 digits, side."""
    return [
        (first, last, time, price * 10 ** (2 - page.price_scale), size * 10 ** (5 - page.size_scale), side)
        for page in pages
        for first, last, time, price, size, side in zip(
            *(c.tolist() for c in (page.first_id, page.trade_id, page.ts_event, page.price, page.size, page.side)),
            strict=True,
        )
    ]  # fmt: skip


def row(trade: SimTrade) -> tuple[int, int, int, int, int, int]:
    price, size = (int(text.replace(".", "")) for text in (trade.price, trade.size))
    return trade.id, trade.id, trade.time * 1_000_000, price, size, -1 if trade.buyer_is_maker else 1


def aggregated(market: Market, low: int, high: int) -> list[tuple[int, int, int, int, int, int]]:
    """Whole aggregates that hold ids of [low, high]."""
    found: dict[int, list[SimTrade]] = {}
    for trade in market.trades(market.trades(low, low)[0].agg_first, market.trades(high, high)[0].agg_last):
        found.setdefault(trade.agg_id, []).append(trade)
    return [
        (fills[0].id, fills[-1].id, *row(fills[0])[2:4], sum(row(fill)[4] for fill in fills), row(fills[0])[5])
        for fills in found.values()
    ]  # fmt: skip


def covers(pages: list[TradeBatch]) -> list[tuple[int, int]]:
    return [each for page in pages for each in page.covers or ()]


async def test_raw_pages_are_exact_contiguous_and_late() -> None:
    async with repairing() as (_, market, repairer):
        pages = await fetched(repairer, (700, 2750), (3000, 3000))
    assert rows(pages) == [row(trade) for trade in [*market.trades(700, 2750), *market.trades(3000, 3000)]]
    assert covers(pages) == [(700, 1699), (1700, 2699), (2700, 2750), (3000, 3000)]
    assert all(page.late and page.clock == 0 and page.source == "repair:sim" for page in pages)
    assert all((page.ts_recv > 0).all() and page.instrument == BTC for page in pages)


@pytest.mark.parametrize("since", [True, False])
async def test_aggregates_are_whole_records_in_either_way_of_finding_them(since: bool) -> None:
    async with repairing(granularity="agg") as (venue, market, repairer):
        low, high = market.trades(800, 800)[0].agg_first, market.trades(4100, 4100)[0].agg_last
        time = market.time_of(low - 1) * 1_000_000 if since else NO_TIME
        pages = await fetched(repairer, (low, high), since=time)
        searches = venue.requests.count("/api/v3/aggTrades") - len(pages)
    assert rows(pages) == aggregated(market, low, high)
    assert covers(pages)[0][0] == low and covers(pages)[-1][1] == high
    assert all(a[1] + 1 == b[0] for a, b in zip(covers(pages), covers(pages)[1:], strict=False))
    assert all((page.count == page.trade_id - page.first_id + 1).all() for page in pages)
    assert 0 <= searches <= (3 if since else 20)


@pytest.mark.parametrize("low", [1, 2, 17, 1000, 17_000])
async def test_any_id_is_found_without_a_time(low: int) -> None:
    async with repairing(granularity="agg") as (_, market, repairer):
        pages = await fetched(repairer, (low, low))
    assert rows(pages) == aggregated(market, low, low)
    assert covers(pages) == [(low, low)]


@pytest.mark.parametrize("status", [401, 404])
async def test_where_spots_raw_trades_are_absent_aggregates_are_asked(status: int) -> None:
    async with repairing() as (venue, market, repairer):
        venue.refuse(status, on="rest", count=1)
        pages = await fetched(repairer, (500, 1900), since=market.time_of(499) * 1_000_000)
        assert "/api/v3/aggTrades" in venue.requests
    assert rows(pages) == aggregated(market, 500, 1900)  # those over an edge whole: the engine takes what is missing
    assert covers(pages)[0][0] == 500 and covers(pages)[-1][1] == 1900


async def test_a_firewalls_refusal_is_no_absence_unless_it_lasts() -> None:
    clock = ManualClock(NOW * 1_000_000)
    async with repairing(clock=clock) as (venue, market, repairer):
        ids, since = (500, 700), market.time_of(499) * 1_000_000
        for _ in range(2):  # what is given in between makes the second one a new refusal
            venue.refuse(403, on="rest", count=1)
            with pytest.raises(VenueRefused) as refusal:
                await fetched(repairer, ids, since=since)
            assert refusal.value.status == 403
            assert "/api/v3/aggTrades" not in venue.requests
            clock.advance(310)
            assert rows(await fetched(repairer, ids)) == [row(trade) for trade in market.trades(*ids)]
        venue.refuse(403, on="rest", count=1)
        with pytest.raises(VenueRefused):
            await fetched(repairer, ids, since=since)
        clock.advance(310)
        venue.refuse(403, on="rest", count=1)
        assert rows(await fetched(repairer, ids, since=since)) == aggregated(market, *ids)


async def test_void_ids_are_proven_not_to_exist() -> None:
    clock = ManualClock(NOW * 1_000_000)
    async with SimVenue(["BTCUSDT"], rate=5.0, origin=ORIGIN, clock=clock) as venue:
        first = venue.markets()["BTCUSDT"].last_id(NOW) + 1
        venue.void(3, symbol="BTCUSDT")
        clock.advance(60)
        voids = sorted(venue.voids("BTCUSDT"))
        assert voids
        async with BinanceRepairer(venue="sim", rest_url=venue.rest_url, limit=10**9) as repairer:
            pages = await fetched(repairer, (first, first + 100))
    ids = [each[0] for each in rows(pages)]
    assert ids == [id for id in range(first, first + 101) if id not in voids]
    assert covers(pages) == [(first, first + 100)]


async def test_ids_the_venue_does_not_have_yet_are_an_error_after_pages_that_stand() -> None:
    async with repairing() as (_, market, repairer):
        newest = market.last_id(NOW)
        seen = []
        with pytest.raises(SourceError, match=f"from id {newest + 1} on yet"):
            async for page in repairer.fetch(Wanted(instrument=BTC, ranges=((newest - 5, newest + 5),))):
                seen.append(page)  # noqa: PERF401  # what came before the error counts
        assert covers(seen) == [(newest - 5, newest)]


@pytest.mark.parametrize("kind", ["html", "json", "empty", "gzip", "cut"])
async def test_a_damaged_page_is_an_error_and_never_an_empty_page(kind: Any) -> None:
    async with repairing() as (venue, _, repairer):
        venue.damage(kind, count=1)
        with pytest.raises((VenueRefused, Disconnected)):
            await fetched(repairer, (1, 10))


async def test_a_page_that_fails_is_asked_for_again_and_none_is_skipped() -> None:
    async with repairing(attempts=4) as (venue, market, repairer):
        venue.refuse(503, on="rest", count=2)
        pages = await fetched(repairer, (1, 2 * PAGE))
        assert repairer.client.counters["error"] == 2
    assert rows(pages) == [row(trade) for trade in market.trades(1, 2 * PAGE)]


async def test_leaving_in_the_middle_leaves_no_request_behind() -> None:
    async with repairing() as (venue, _, repairer):
        pages = repairer.fetch(Wanted(instrument=BTC, ranges=((1, 10 * PAGE),)))
        await anext(pages)
        await pages.aclose()
        assert len(venue.requests) <= 2


async def test_times_are_turned_into_ids_and_symbols_into_instruments() -> None:
    async with repairing() as (_, market, repairer):
        at = market.time_of(1234)
        first = await repairer.first_id_at(BTC, at * 1_000_000)
        assert first is not None and market.time_of(first) == at
        assert await repairer.first_id_at(BTC, (NOW + 1) * 1_000_000) is None
        assert await repairer.newest_id(BTC) == market.last_id(NOW)
        found = await repairer.listing("BTCUSDT")
        assert found is not None and (found.id, found.price_scale, found.granularity) == (BTC, 2, "raw")
        assert await repairer.listing("NOPE") is None
