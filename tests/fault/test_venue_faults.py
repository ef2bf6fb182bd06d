"""The venue misbehaves: whatever it does, afterwards the tape is the venue's truth.

``TAPEWICK_FAULTS`` sets the number of injected faults (default 1000). The seed is printed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path

import pytest

from tapewick.conditions import Condition
from tapewick.sim.venue import Fault, SimVenue, faults
from tests.fault.pacing import PacedClock
from tests.fault.rig import Rig, opened, running, seed
from tests.fault.truth import assert_tape_is_the_truth
from tests.fault.witness import BookWitness, HealthWitness

FAULTS = int(os.environ.get("TAPEWICK_FAULTS", "1000"))
PER_SECOND = 2.0  # faults, of the venue's time
RATE = 50.0  # trades a second: more than the faults withhold
DEAD = 1800  # seconds of the venue
SOURCES = ("sim", "sim REST")
# Midnight before a Monday that is the first of a month: every timeframe but 3d begins anew there.
NEW_MONTH = int(dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()) * 10**9


def _firewall_last(fault: Fault, span: float) -> Fault:
    """A request that a firewall turns down is not sent again for five minutes: told early, that would leave
    hardly a live book to look at, so before the last tenth it is another refusal."""
    if fault.args.get("status") == 403 and fault.after < 0.9 * span:
        return fault._replace(args={**fault.args, "status": 500})
    return fault


@pytest.mark.timeout(1800)
async def test_after_many_faults_everything_is_the_venues_truth(tmp_path: Path) -> None:
    chosen = seed()
    span = FAULTS / PER_SECOND
    clock = PacedClock(10.0, NEW_MONTH - int(span / 2) * 10**9)
    script = [_firewall_last(fault, span) for fault in faults(chosen, FAULTS, span=span)]
    symbols = ("BTCUSDT", "ETHUSDT")
    venue = SimVenue(symbols, seed=chosen, rate=RATE, catch_up=10.0, clock=clock, faults=script)
    async with clock.running(), venue, running(tmp_path, venue, symbols) as rig:
        health = HealthWitness()
        await rig.market.listen_health(health)
        collector = rig.collect(books=True, idle=1.0, retry_cap=2.0)
        await rig.until(lambda: len(collector.instruments) == len(symbols))
        witnesses = [BookWitness(rig, symbol) for symbol in symbols]
        await rig.until(venue.script_done.is_set)
        assert venue.injected.total() == FAULTS

        clock.speed = 30.0  # what a firewall has turned down is not asked for again in five minutes
        await rig.until_whole()
        compared = {one.symbol: one.compared for one in witnesses}
        await rig.until(lambda: all(one.compared > compared[one.symbol] for one in witnesses))
        clock.speed = 10.0
        await rig.until(lambda: all(one.compared > compared[one.symbol] + 20 for one in witnesses))
        await rig.stop_collecting()
        count = await assert_tape_is_the_truth(rig)
        assert count > span * RATE
        for one in witnesses:
            assert not one.wrong, one.wrong[:5]
            assert one.quotes and one.states.count("live") > 1 and one.compared > FAULTS / 10
        compared_books = sum(one.compared for one in witnesses)
        print(f"{FAULTS} faults, {count} trades, {compared_books} states of books compared")  # noqa: T201
        for shown in (
            ("stream_health", "disconnected"), ("stream_health", "refused"), ("stream_health", "connected"),
            ("book_state", "stale"), ("book_state", "live"), ("gap_opened", "open"), ("gap_closed", "closed"),
        ):  # fmt: skip
            assert health.seen[shown], f"readers were never shown {shown}"


async def until_shown(rig: Rig, state: str) -> list[Condition]:
    """Wait until readers are shown the venue's streams and its REST in that state; the two rows.

    A single stream has a row of its own: it is stale as well when time passes before its connection's end is noticed.
    """
    while True:
        rows = [row for row in await rig.market.conditions("") if row["kind"] == "stream_health"]
        whole = {str(row["source"]): row for row in rows if row["instrument"] is None}
        if all(source in whole and whole[source]["state"] == state for source in SOURCES):
            return [whole[source] for source in SOURCES]
        rig.alive()
        await asyncio.sleep(0.01)


@pytest.mark.timeout(600)
async def test_a_dead_venue_is_asked_a_bounded_number_of_times_and_comes_back_by_itself(tmp_path: Path) -> None:
    clock = PacedClock(20.0, NEW_MONTH)
    venue = SimVenue(["BTCUSDT"], seed=3, rate=5.0, catch_up=10.0, clock=clock)
    async with clock.running(), venue, running(tmp_path, venue, ["BTCUSDT"]) as rig:
        health = HealthWitness()
        await rig.market.listen_health(health)
        collector = rig.collect(books=True)
        await rig.until(lambda: bool(collector.runs))
        witness = BookWitness(rig, "BTCUSDT")
        venue.skip_ids(5)
        await rig.until_stored(lambda state: bool(state.gaps))  # before that it is whole as well
        await rig.until_whole()
        await rig.until(lambda: witness.compared > 5)

        asked = len(venue.requests)
        dead_from = clock.now()
        venue.skip_ids(5)  # a hole that cannot be repaired while the venue is dead
        venue.refuse(503, body=b"<html>down</html>")
        await rig.until(lambda: rig.engine.tapes["sim:BTCUSDT"].open_gaps > 0)
        venue.drop_connections()
        clock.speed = 200.0
        await rig.until(lambda: clock.now() - dead_from > DEAD * 10**9)
        attempts = len(venue.requests) - asked
        # Streams, requests and repair each: a few at once, then one per half a minute on average.
        assert 10 < attempts < 3 * DEAD / 10, f"{attempts} attempts in {DEAD} s"
        await rig.until(lambda: witness.states[-1] == "stale")
        for row in await until_shown(rig, "refused"):
            assert "503" in str(row["detail"])
        (state,) = (await rig.states()).values()
        (gap,) = opened(state)
        assert gap.attempts > 0

        clock.speed = 20.0
        venue.refuse(None)
        compared = witness.compared
        await rig.until(lambda: witness.compared > compared + 5)
        await rig.until_whole()
        assert not witness.wrong
        await until_shown(rig, "connected")
        await rig.stop_collecting()
        assert await assert_tape_is_the_truth(rig) > DEAD
