"""What happens while nobody collects is fetched afterwards."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tapewick.sim.venue import SimVenue
from tests.fault.pacing import PacedClock
from tests.fault.rig import running
from tests.fault.truth import assert_tape_is_the_truth
from tests.fault.witness import BookWitness

SYMBOLS = ("BTCUSDT", "ETHUSDT")
HOUR = 3600
RATE = 5.0  # trades a second
# Half an hour before a year ends: the hour offline crosses a border of every timeframe but 1w and 3d.
NEW_YEAR = int(dt.datetime(2027, 1, 1, tzinfo=dt.UTC).timestamp())


@pytest.mark.timeout(600)
async def test_an_hour_offline_is_fetched_after_the_restart(tmp_path: Path) -> None:
    clock = PacedClock(10.0, (NEW_YEAR - HOUR // 2) * 10**9)
    venue = SimVenue(SYMBOLS, seed=5, rate=RATE, catch_up=10.0, clock=clock)
    async with clock.running(), venue:
        async with running(tmp_path, venue, SYMBOLS) as rig:
            rig.collect()
            await rig.until_stored(lambda state: state.seq > 100)
            await rig.stop_collecting()
            before = await rig.states()

        clock.advance(HOUR)

        async with running(tmp_path, venue, SYMBOLS) as rig:
            collector = rig.collect(books=True)
            await rig.until(lambda: len(collector.instruments) == len(SYMBOLS))
            witnesses = [BookWitness(rig, symbol) for symbol in SYMBOLS]
            await rig.until(lambda: all(one.compared > 5 for one in witnesses))
            states = await rig.until_whole()
            await rig.stop_collecting()
            assert await assert_tape_is_the_truth(rig) > HOUR * RATE * len(SYMBOLS) * 0.9
            for id, state in states.items():
                assert state.ranges[0, 0] == before[id].ranges[0, 0], "coverage goes on where it was"
                assert state.epoch == before[id].epoch
                assert {gap.reason for gap in state.gaps} == {"restart"}, "each part of the hole tells where it is from"
            assert not any(one.wrong for one in witnesses)
