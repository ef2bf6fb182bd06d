"""Order books of the live source against the simulated venue, over real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tapewick import watchdog
from tapewick.engine.book import L2
from tapewick.model import BookUpdate, Quote
from tapewick.net import link
from tapewick.sim.venue import SimVenue
from tapewick.sources.binance import BinanceSource
from tests.sources.test_binance import Reader, reading

pytestmark = pytest.mark.timeout(60)


def source_of(
    venue: SimVenue, *symbols: str, redundant: bool = False, microseconds: bool = False, idle: float = 60.0
) -> BinanceSource:
    return BinanceSource(
        symbols or ("BTCUSDT",),
        venue="sim",
        rest_url=venue.rest_url,
        ws_url=venue.ws_url,
        books=True,
        limit=10**9,
        redundant=redundant,
        microseconds=microseconds,
        retry_cap=0.05,
        idle=idle,
    )


class Follower:
    """Applies every update as a reader would and compares the book with the venue's at the same update id."""

    def __init__(self, reader: Reader, venue: SimVenue, symbol: str = "BTCUSDT") -> None:
        self.book, self.venue, self.symbol = L2(), venue, symbol
        self.states: list[tuple[str, str]] = []
        self.compared = self._read = 0
        self._reader = reader

    def updates(self) -> list[BookUpdate]:
        id = f"sim:{self.symbol}"
        return [event for event in self._reader.events if isinstance(event, BookUpdate) and event.instrument == id]

    def follow(self) -> L2:
        for update in self.updates()[self._read :]:
            self._read += 1
            assert self.book.apply(update), "one run's updates follow each other without a hole"
            if not self.states or self.states[-1][0] != update.state:
                self.states.append((update.state, update.detail))
            if update.state == "live":
                self._compare()
        return self.book

    def _compare(self) -> None:
        """The levels both know; a snapshot of 1000 levels may not reach as deep as the venue's book."""
        _, truth = self.venue.book(self.symbol, self.book.last_id)
        (instrument,) = [one for one in self._reader.instruments() if one.symbol == self.symbol]
        assert (self.book.price_scale, self.book.size_scale) == (instrument.price_scale, instrument.size_scale)
        bid_price, bid_size, ask_price, ask_size = (column.tolist() for column in self.book.levels(20))
        assert list(zip(bid_price, bid_size, strict=True)) == list(truth.bids.items())[:20]
        assert list(zip(ask_price, ask_size, strict=True)) == list(truth.asks.items())[:20]
        self.compared += 1

    async def until(self, holds: Callable[[Follower], bool]) -> None:
        def reached() -> bool:
            self.follow()
            return holds(self)

        await self._reader.until(reached)


async def test_a_book_is_synced_and_equals_the_venues_at_every_update() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=100.0) as venue:
        source = source_of(venue, "BTCUSDT", "ETHUSDT")
        async with reading(source) as reader:
            followers = [Follower(reader, venue, symbol) for symbol in ("BTCUSDT", "ETHUSDT")]
            for one in followers:
                await one.until(lambda f: f.compared >= 20)
                assert [state for state, _ in one.states] == ["syncing", "live"]
            assert source.books is not None
            assert source.books.counters["breaks"] == source.books.counters["crossed"] == 0


async def test_quotes_are_the_books_best_at_the_same_update() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue)) as reader:
            best: dict[int, tuple[int, int, int, int] | None] = {}
            follower = Follower(reader, venue)

            def matched() -> list[Quote]:
                seen = follower.follow()
                if seen.state == "live":
                    best[seen.last_id] = seen.best()
                return [e for e in reader.events if isinstance(e, Quote) and e.update_id in best]

            await reader.until(lambda: len(matched()) >= 5)
            for quote in matched():
                scales = quote.price_scale - follower.book.price_scale, quote.size_scale - follower.book.size_scale
                assert scales == (0, 0)
                assert best[quote.update_id] == (quote.bid, quote.bid_size, quote.ask, quote.ask_size)


async def test_a_lost_connection_makes_books_stale_until_they_are_synced_again() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue)) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.book.state == "live")
            venue.drop_connections()
            await follower.until(lambda f: f.book.state == "stale")
            assert follower.book.best() is None
            compared = follower.compared
            await follower.until(lambda f: f.compared > compared + 5)


async def test_a_connection_that_falls_silent_makes_its_books_stale_without_knowing_their_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "FIRST_PING", 0.05)
    monkeypatch.setattr(link, "SUSPICIOUS", 0.5)
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue, idle=3600)) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.book.state == "live")
            await reader.until(lambda: any(client.pinged for client in venue.outlet.clients))
            venue.drop_connections(fin=False)
            await follower.until(lambda f: f.book.state == "stale")
            compared = follower.compared
            await follower.until(lambda f: f.compared > compared + 5)


async def test_a_book_whose_changes_alone_stay_away_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LEARN_TIME", 10**9)
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.compared >= 40)
            [client] = venue.outlet.clients
            venue.unsubscribe(client, ["btcusdt@depth@100ms"])
            await follower.until(lambda f: f.book.state == "stale")
            assert "no data for" in follower.states[-1][1]
            compared = follower.compared
            await follower.until(lambda f: f.compared > compared + 5)


async def test_a_missing_change_resyncs_that_book_only() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue, "BTCUSDT", "ETHUSDT")) as reader:
            broken, other = Follower(reader, venue, "BTCUSDT"), Follower(reader, venue, "ETHUSDT")
            await broken.until(lambda f: f.compared >= 3)
            await other.until(lambda f: f.compared >= 3)
            venue.skip_depth(1, symbol="BTCUSDT")
            await broken.until(lambda f: f.book.state == "stale")
            assert "missing" in broken.states[-1][1]
            await broken.until(lambda f: f.book.state == "live")
            other.follow()
            assert [state for state, _ in other.states] == ["syncing", "live"]


async def test_a_renewed_connection_takes_the_books_over_without_a_snapshot() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue)) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.compared >= 3)
            asked = venue.requests.count("/api/v3/depth")
            venue.shut_down()
            await reader.until(lambda: venue.connections == 2)
            await reader.until(lambda: venue.connections == 1)
            compared = follower.compared
            await follower.until(lambda f: f.compared > compared + 15)
            assert [state for state, _ in follower.states] == ["syncing", "live"]
            assert venue.requests.count("/api/v3/depth") == asked


async def test_of_redundant_connections_one_may_break() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue, redundant=True)) as reader:
            follower = Follower(reader, venue)
            await reader.until(lambda: venue.connections == 2)
            await follower.until(lambda f: f.compared >= 5)
            venue.drop_connections(most=1)
            compared = follower.compared
            await follower.until(lambda f: f.compared > compared + 20)
            assert [state for state, _ in follower.states] == ["syncing", "live"]
            ids = sorted(set(reader.ids("sim:BTCUSDT")))
            assert ids == list(range(ids[0], ids[-1] + 1))


async def test_times_in_microseconds_are_the_same_times() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue, microseconds=True)) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.compared >= 3)
            truth = {trade.id: trade.time for trade in venue.truth("BTCUSDT")}
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 5)
            for batch in reader.batches("sim:BTCUSDT"):
                for id, ts in zip(batch.trade_id.tolist(), batch.ts_event.tolist(), strict=True):
                    assert ts // 1_000_000 == truth[id]


async def test_symbols_come_and_go_while_running() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=100.0) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > 3)
            source.watch(["ETHUSDT", "NOSUCH"])
            follower = Follower(reader, venue, "ETHUSDT")
            await follower.until(lambda f: f.compared >= 3)
            assert reader.ids("sim:ETHUSDT")
            await reader.until(lambda: any("does not list NOSUCH" in h.detail for h in reader.health("refused")))
            assert source.symbols == ("BTCUSDT", "ETHUSDT")
            source.unwatch(["ETHUSDT"])
            await follower.until(lambda f: f.book.state == "stale")
            before = len(reader.ids("sim:BTCUSDT"))
            await asyncio.sleep(0.2)  # what was under way
            gone = len(reader.ids("sim:ETHUSDT"))
            await reader.until(lambda: len(reader.ids("sim:BTCUSDT")) > before + 40)
            assert len(reader.ids("sim:ETHUSDT")) == gone


async def test_books_go_stale_where_no_snapshot_can_be_had_and_recover() -> None:
    async with SimVenue(["BTCUSDT"], rate=100.0) as venue:
        async with reading(source_of(venue)) as reader:
            follower = Follower(reader, venue)
            await follower.until(lambda f: f.compared >= 1)
            venue.refuse(503, on="rest", body=b"<html>busy</html>")
            venue.skip_depth(1)
            await follower.until(lambda f: f.book.state == "stale")
            await reader.until(lambda: any(h.source == "sim REST" for h in reader.health("refused")))
            venue.refuse(None)
            await follower.until(lambda f: f.book.state == "live")
