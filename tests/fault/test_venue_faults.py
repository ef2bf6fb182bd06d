"""The venue misbehaves: whatever it does, afterwards the tape is the venue's truth.

``TAPEWICK_FAULTS`` sets the number of injected faults. The seed is printed.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from tapewick.sim.script import KINDS
from tapewick.sim.venue import SimVenue, faults
from tests.fault.pacing import PacedClock
from tests.fault.rig import running, seed
from tests.fault.truth import assert_tape_is_the_truth
from tests.fault.witness import BookWitness, HealthWitness

FAULTS = int(os.environ.get("TAPEWICK_FAULTS", "1000"))
PER_SECOND = 1.5  # faults, of the venue's time
# Midnight before a Monday that is the first of a month: every timeframe but 3d begins anew there.
NEW_MONTH = int(dt.datetime(2026, 6, 1, tzinfo=dt.UTC).timestamp()) * 10**9


@pytest.mark.timeout(1800)
async def test_after_many_faults_everything_is_the_venues_truth(tmp_path: Path) -> None:
    chosen = seed()
    span = FAULTS / PER_SECOND
    clock = PacedClock(10.0, NEW_MONTH - int(span / 2) * 10**9)
    script = faults(chosen, FAULTS, span=span)
    symbols = ("BTCUSDT", "ETHUSDT")
    venue = SimVenue(symbols, seed=chosen, rate=20.0, catch_up=10.0, clock=clock, faults=script)
    async with clock.running(), venue, running(tmp_path, venue, symbols) as rig:
        health = HealthWitness()
        await rig.market.listen_health(health)
        collector = rig.collect(books=True, idle=1.0)
        await rig.until(lambda: len(collector.instruments) == len(symbols))
        witnesses = [BookWitness(rig, symbol) for symbol in symbols]
        await rig.until(venue.script_done.is_set)
        assert venue.injected.total() == FAULTS

        await rig.until_whole()
        compared = {one.symbol: one.compared for one in witnesses}
        await rig.until(lambda: all(one.compared > compared[one.symbol] + 20 for one in witnesses))
        await rig.stop_collecting()
        count = await assert_tape_is_the_truth(rig)
        for one in witnesses:
            assert not one.wrong, one.wrong[:5]
            assert one.states[-1] == "live"
        print(count, dict(venue.injected), {w.symbol: (w.compared, w.quotes, len(w.states)) for w in witnesses}, health.seen)
