"""Redundant collectors, connections that hand over, and a bus that is full: nothing is missing, nothing is double."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from tapewick import metrics
from tapewick.books import SILENT
from tapewick.engine.book import L2
from tapewick.model import TapeCommit
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_books import WHOLE_EVERY
from tapewick.stores.duckdb import DuckDBStore
from tests.fault.pacing import PacedClock
from tests.fault.rig import Rig, running
from tests.fault.truth import assert_tape_is_the_truth
from tests.fault.witness import BookWitness

BTC = "sim:BTCUSDT"
SECOND = 10**9
START = int(dt.datetime(2026, 3, 1, tzinfo=dt.UTC).timestamp()) * SECOND
TICKS = 2 * SECOND  # a reader looks for silence each second, a collector for due snapshots
TURNS = 3 * SECOND  # what sockets and queues take, in the venue's fast seconds
DAY = 24 * 3600


class Watcher:
    """Follows ``watch_book`` as a client would; ``jumps``: the longest time between two updates of different runs."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.book = L2()
        self.runs: list[str] = []
        self.updates = 0
        self.wrong: list[str] = []
        self.task = asyncio.create_task(self._follow(), name="watch_book")
        rig.tasks.append(self.task)

    async def _follow(self) -> None:
        async with aclosing(self._rig.market.watch_book(BTC)) as updates:
            async for update in updates:
                assert self.book.apply(update) or update.state != "live", "an update that does not follow"
                if self.book.state != "live":
                    continue
                self.updates += 1
                if self.runs[-1:] != [update.run]:
                    self.runs.append(update.run)
                _, truth = self._rig.venue.book("BTCUSDT", self.book.last_id)
                bid_price, bid_size, ask_price, ask_size = (column.tolist() for column in self.book.levels())
                own = dict(zip(bid_price, bid_size, strict=True)), dict(zip(ask_price, ask_size, strict=True))
                if own != (truth.bids, truth.asks):
                    self.wrong.append(f"run {update.run} seq {update.seq} update {update.last_id}")


@pytest.mark.timeout(600)
async def test_of_two_collectors_one_is_killed(tmp_path: Path) -> None:
    clock = PacedClock(5.0, START)
    venue = SimVenue(["BTCUSDT"], seed=11, rate=40.0, catch_up=1.0, clock=clock)
    async with clock.running(), venue, running(tmp_path, venue, ["BTCUSDT"]) as rig:
        both = [rig.collect(books=True), rig.collect(books=True)]
        await rig.until(lambda: all(one.runs for one in both))
        await rig.until_stored(lambda state: state.seq > 0)
        witness, watcher = BookWitness(rig, "BTCUSDT"), Watcher(rig)
        duplicates = rig.engine.rejects
        await rig.until(lambda: watcher.updates > 30 and duplicates["duplicate"] > 100)

        (followed,) = [one for one in both if witness.runs[-1] in one.runs]
        (other,) = [one for one in both if one is not followed]
        rig.collectors.remove(followed)
        await followed.kill()
        last = witness.heard
        await rig.until(lambda: witness.runs[-1] in other.runs)
        assert witness.heard - last <= SILENT + WHOLE_EVERY + TICKS + TURNS, "the hand-over took longer than stated"
        updates = watcher.updates
        await rig.until(lambda: watcher.updates > updates + 30)

        for reader in (witness, watcher):
            assert not reader.wrong, reader.wrong[:5]
            assert len(reader.runs) == 2, "one run after the other, never mixed"
        assert not [gap for state in (await rig.states()).values() for gap in state.gaps], "not even a short hole"
        await rig.until_whole()
        await rig.stop_collecting()
        assert await assert_tape_is_the_truth(rig) > 100


@pytest.mark.timeout(600)
@pytest.mark.parametrize("announced", [pytest.param(True, id="serverShutdown"), pytest.param(False, id="redundant")])
async def test_connections_hand_over_without_a_hole(tmp_path: Path, announced: bool) -> None:
    """The venue announces an end again and again; or cuts one of two redundant connections without a word."""
    clock = PacedClock(5.0, START)
    venue = SimVenue(["BTCUSDT", "ETHUSDT"], seed=12, rate=40.0, catch_up=1.0, clock=clock)
    async with clock.running(), venue, running(tmp_path, venue, ["BTCUSDT", "ETHUSDT"]) as rig:
        collector = rig.collect(books=True, redundant=not announced)
        await rig.until(lambda: len(collector.instruments) == 2)
        witnesses = [BookWitness(rig, symbol) for symbol in rig.symbols]
        kept = 1 if announced else 2
        for _ in range(4):
            await rig.until(lambda: venue.connections == kept)
            compared = [one.compared for one in witnesses]
            await rig.until(lambda: all(one.compared > n + 10 for one, n in zip(witnesses, compared, strict=True)))  # noqa: B023
            old = set(venue.outlet.clients)
            if announced:
                venue.shut_down(close_after=60.0)
            else:
                venue.drop_connections(most=1)
            await rig.until(lambda: len(venue.outlet.clients - old) > 0 and venue.connections == kept)  # noqa: B023
        compared = [one.compared for one in witnesses]
        await rig.until(lambda: all(one.compared > n + 10 for one, n in zip(witnesses, compared, strict=True)))

        for one in witnesses:
            assert not one.wrong, one.wrong[:5]
            assert [state for state in one.states if state != "syncing"] == ["live"], "never stale"
        for state in (await rig.states()).values():
            assert not state.gaps, "not even opened"
        assert not collector.source.jumps
        await rig.until_whole()
        await rig.stop_collecting()
        assert await assert_tape_is_the_truth(rig) > 100


@pytest.mark.timeout(600)
async def test_connections_are_replaced_before_the_venue_cuts_them_after_a_day(tmp_path: Path) -> None:
    clock = PacedClock(500.0, START)
    venue = SimVenue(["BTCUSDT"], seed=13, rate=0.03, catch_up=60.0, clock=clock, lifetime=DAY)
    async with clock.running(), venue, running(tmp_path, venue, ["BTCUSDT"]) as rig:
        clock.speed = 1.0  # until the clocks have been compared: at high speed an answer takes minutes
        collector = rig.collect()
        await rig.until(lambda: venue.connections == 1)
        venue.refuse(503, on="rest")  # from now on nothing that is missed can be repaired
        clock.speed = 500.0
        for _ in range(2):
            await rig.until_stored(lambda state: state.seq > 0)
            (old,) = venue.outlet.clients
            clock.speed = 10_000.0
            # a new one has come; at this speed both may be there for no longer than between two looks
            await rig.until(lambda: bool(set(venue.outlet.clients) - {old}))  # noqa: B023
            clock.speed = 500.0  # the overlap lasts a real second
            await rig.until(lambda: venue.connections == 1)
            assert old not in venue.outlet.clients
            assert 20 * 3600 * SECOND < clock.now() - old.since < DAY * SECOND, "before the venue had to"
        assert not [health for health in collector.health if health.state == "disconnected"]
        for state in (await rig.states()).values():
            assert not state.gaps, "not even opened"
        await rig.until_whole()
        await rig.stop_collecting()
        assert await assert_tape_is_the_truth(rig) > 1000


class SlowStore(DuckDBStore):
    """A store whose commits wait while ``open`` is not set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.open = asyncio.Event()
        self.open.set()

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        await self.open.wait()
        return await super().commit(group)


def dropped() -> float:
    """How many batches of the source were dropped so far."""
    return metrics.REGISTRY.get_sample_value("tapewick_dropped_batches_total", {"source": "sim"}) or 0.0


@pytest.mark.timeout(600)
async def test_what_a_full_bus_drops_is_a_recorded_hole_and_repaired(tmp_path: Path) -> None:
    clock = PacedClock(5.0, START)
    venue = SimVenue(["BTCUSDT", "ETHUSDT"], seed=14, rate=100.0, catch_up=1.0, clock=clock)
    store = SlowStore(tmp_path)
    bounds = {"max_bytes": 4096, "max_pending": 4096}
    async with clock.running(), venue, running(tmp_path, venue, ["BTCUSDT", "ETHUSDT"], store=store, **bounds) as rig:
        rig.collect()
        await rig.until_stored(lambda state: state.seq > 100)
        for _ in range(3):
            before = dropped()
            store.open.clear()
            await rig.until(lambda: dropped() > before + 10)  # noqa: B023
            store.open.set()
            await rig.until_covered()  # a bus so small may be full again by then
        for state in (await rig.states()).values():
            assert [gap for gap in state.gaps if gap.reason == "stream"], "the hole was recorded"
        await rig.stop_collecting()
        assert await assert_tape_is_the_truth(rig) > 1000
