"""The way in for trades: nothing is called stored that is not, and trying again after an outage doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.errors import StoreError, Unavailable
from tapewick.intake import Intake, _covered
from tapewick.model import TapeCommit
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND
from tests.gateways.rig import T0, batch, instrument

HOOK = "hook:XYZ"


class Outage(DuckDBStore):
    """A store that refuses commits while ``away``."""

    away = False

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        if self.away:
            raise StoreError("the disk is full")
        return await super().commit(group)


@pytest.mark.parametrize("kind", ["contiguous", "unique"])
async def test_an_outage_answers_503_and_the_repetition_counts_once(tmp_path: Path, kind: str) -> None:
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        Outage(tmp_path) as store,
        MemoryBus() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
    ):
        way_in = Intake(bus, store, 20)
        await way_in.register(instrument(HOOK, id_kind=kind))
        assert (await way_in.store(batch(1, 3, HOOK))).new.all()
        store.away = True
        hasty = Intake(bus, store, 0.05)
        await hasty.instruments({HOOK})
        with pytest.raises(Unavailable, match="again"):
            await hasty.store(batch(2, 4, HOOK))
        with pytest.raises(Unavailable):
            await hasty.store(batch(2, 4, HOOK))
        store.away = False
        hasty._patience = 20
        assert (await hasty.store(batch(2, 4, HOOK))).new.tolist() == [False, False, True, True]
        assert not (await hasty.store(batch(1, 5, HOOK))).new.any()
        trades, head = await store.trades(HOOK)
        assert sorted(trades.trade_id.tolist()) == [1, 2, 3, 4, 5]
        assert head.seq == 5


async def test_two_gateways_that_both_take_a_number_for_new_do_not_both_believe_it(tmp_path: Path) -> None:
    """Each looks before the other has sent; the tape has one of the trades, and one of them is told."""
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        DuckDBStore(tmp_path) as store,
        MemoryBus() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
    ):
        ways = [Intake(bus, store, 20) for _ in range(2)]
        await ways[0].register(instrument(HOOK, id_kind="contiguous"))
        for number in range(1, 6):
            first = batch(number, 1, HOOK)
            sent = first, replace(first, price=first.price + 1)
            told = await asyncio.gather(*(way.store(one) for way, one in zip(ways, sent, strict=True)))
            assert [one.other.tolist() for one in told].count([True]) == 1, told
            again = await ways[0].store(sent[0])
            assert not again.new.any() and again.other.tolist() == told[0].other.tolist()


async def test_a_full_bus_is_told_at_once(tmp_path: Path) -> None:
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with DuckDBStore(tmp_path) as store, MemoryBus(max_bytes=1000) as bus:
        async with EngineRole(bus, store, Engine(), clock, interval=0.001):
            way_in = Intake(bus, store, 20)
            await way_in.register(instrument(HOOK))
        stuck = bus.subscribe(["trades"], group="nobody")
        for _ in range(10):
            bus.offer("trades", batch(1, 1, HOOK))
        with pytest.raises(Unavailable, match="no room"):
            await asyncio.wait_for(way_in.store(batch(1, 3, HOOK)), 60)
        await stuck.close()


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60), max_size=20))
def test_covered_is_membership_in_the_ranges(held: set[int], asked: list[int]) -> None:
    ranges: list[list[int]] = []
    for id in sorted(held):
        if ranges and ranges[-1][1] == id - 1:
            ranges[-1][1] = id
        else:
            ranges.append([id, id, 0, 0])
    ledger = np.array(ranges, np.int64).reshape(-1, 4)
    assert _covered(np.array(asked, np.int64), ledger).tolist() == [id in held for id in asked]
