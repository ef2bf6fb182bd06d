"""Ledger, gaps, claims and fencing, whichever the store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from msgspec.structs import replace

from tapewick.errors import ModelError
from tapewick.model import (
    NO_TIME,
    Gap,
    State,
)
from tapewick.timeframe import BY_NAME, SECOND, bucket
from tests.contract.tapes import (
    HOUR,
    MINUTE,
    T0,
    Open,
    fresh,
    part,
    row,
    trades,
    write,
)


async def test_ranges_are_put_merged_and_taken_away(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        await write(store, state, ranges=[(1, 5, 10, 50), (8, 9, 80, 90), (20, 30, 200, NO_TIME)])
        await write(store, state, ranges=[(1, 12, 10, 120)], gone=(8,))
        expected = [[1, 12, 10, 120], [20, 30, 200, NO_TIME]]
        assert (await store.coverage("sim:AAA")).ranges.tolist() == expected
        await write(store, state, ranges=[(1, 30, 10, 200)], gone=(20,))
    async with opened() as store:
        found = await store.coverage("sim:AAA")
        assert found.ranges.tolist() == [[1, 30, 10, 200]]
        assert (found.epoch, found.pos, found.instrument.id) == (state.epoch, 3, "sim:AAA")


async def test_gaps_open_change_and_close(opened: Open) -> None:
    one = Gap(instrument="sim:AAA", left_id=5, right_id=8, left_ts=50, right_ts=80, reason="reconnect")
    two = Gap(instrument="sim:AAA", left_id=9, right_id=20, left_ts=90, right_ts=200)

    def with_state(gap: Gap, state: str, attempts: int) -> Gap:
        return replace(gap, state=state, attempts=attempts)

    async with opened() as store:
        [state] = await fresh(store)
        await write(store, state, gaps=(two, one))
        assert (await store.coverage("sim:AAA")).gaps == (one, two)
        await write(store, state, gaps=(with_state(one, "closed", 1), with_state(two, "unrepairable", 9)))
        assert (await store.coverage("sim:AAA")).gaps == (
            with_state(one, "closed", 1),
            with_state(two, "unrepairable", 9),
        )
        [again] = await store.claim(["sim:AAA"])
        assert again.gaps == (with_state(two, "unrepairable", 9),)


# ── claim and fencing ──


async def test_claim_gives_what_an_engine_restarts_from(opened: Open) -> None:
    tail = T0 + 3600 * SECOND
    m = 60 * SECOND
    waiting = [
        row(tail, state=State.OPEN, complete=0),
        row(tail - m, state=State.CLOSED, complete=0),
        row(tail - 2 * m, state=State.CLOSED, complete=0),
        row(tail - 40 * m, state=State.CLOSED, complete=1),
        row(bucket(BY_NAME["1M"], T0), BY_NAME["1M"].index, state=State.OPEN, complete=0),
    ]
    settled = [
        row(tail - 30 * m, state=State.FINAL),
        row(tail - 31 * m, state=State.CLOSED, complete=0),
        row(tail - 59 * m, BY_NAME["3m"].index, state=State.CLOSED, complete=-1),
    ]
    async with opened() as store:
        [first, other] = await fresh(store, "AAA", "BBB")
        assert (first.seq, first.pos, first.watermark, len(first.rows)) == (0, 0, NO_TIME, 0)
        assert len(first.epoch) == 8 and first.epoch != other.epoch
        rows = np.concatenate([*waiting, *settled])
        await write(store, first, trades(first, 10), rows, ranges=[(1, 9, 5, 6), (1001, 1010, T0, tail + m)])
    async with opened() as store:
        [other, state] = await store.claim(["sim:BBB", "sim:AAA"])
        assert (state.instrument.id, state.number, state.epoch) == ("sim:AAA", first.number, first.epoch)
        assert state.owner == first.owner + 1
        assert (state.seq, state.pos, state.watermark) == (10, 1, T0 + 10)
        assert state.ranges.tolist() == [[1, 9, 5, 6], [1001, 1010, T0, tail + m]]
        keys = [(r["tf"].item(), r["open_time"].item()) for r in state.rows]
        for wanted in waiting:
            assert (wanted["tf"].item(), wanted["open_time"].item()) in keys
        for unwanted in settled:
            assert (unwanted["tf"].item(), unwanted["open_time"].item()) not in keys
        expected = np.full(18, NO_TIME)
        expected[[MINUTE, 2, 17]] = tail, tail - 59 * m, bucket(BY_NAME["1M"], T0)
        assert state.newest.tolist() == expected.tolist()
        assert other.seq == 0 and len(other.ranges) == 0


async def test_a_fenced_instrument_is_refused_and_the_rest_of_its_group_is_written(opened: Open) -> None:
    async with opened() as store:
        [a, b, c] = await fresh(store, "AAA", "BBB", "CCC")
        [taken] = await store.claim(["sim:BBB"])
        gap = Gap(instrument="sim:BBB", left_id=1, right_id=3, left_ts=1, right_ts=3)
        open_row, done = row(T0, state=State.OPEN), row(T0, HOUR)
        group = [
            part(state, trades(state, 4), np.concatenate([open_row, done]), ranges=[(1001, 1004, 1, 2)], gaps=gaps)
            for state, gaps in ((a, ()), (b, (gap,)), (c, ()))
        ]
        assert await store.commit(group) == {"sim:BBB"}
        for id in ("sim:AAA", "sim:CCC"):
            assert len((await store.trades(id))[0]) == 4
            assert len((await store.candles(id, HOUR))[0]) == 1
        assert (await store.head("sim:BBB")).pos == 0
        assert len((await store.trades("sim:BBB"))[0]) == 0
        assert len((await store.candles("sim:BBB", MINUTE))[0]) == len((await store.candles("sim:BBB", HOUR))[0]) == 0
        found = await store.coverage("sim:BBB")
        assert len(found.ranges) == 0 and found.gaps == ()
        other = [part(state, trades(state, 3)) for state in (a, b, c)]
        assert await store.commit(other) == {"sim:AAA", "sim:BBB", "sim:CCC"}  # their pos has moved
        assert len((await store.trades("sim:AAA"))[0]) == 4
        assert await store.commit([part(taken, trades(taken, 2))]) == frozenset()


async def test_a_group_tried_again_is_written_once(opened: Open) -> None:
    async with opened() as store:
        states = await fresh(store, "AAA", "BBB")
        group = [part(s, trades(s, 4), row(T0), ranges=[(1001, 1004, 1, 2)]) for s in states]
        assert await store.commit(group[:1]) == frozenset()
        assert await store.commit(group) == frozenset()
        for id in ("sim:AAA", "sim:BBB"):
            batch, head = await store.trades(id)
            assert (len(batch), head.seq, head.pos) == (4, 4, 1)
        await store.claim(["sim:AAA"])
        assert await store.commit(group) == {"sim:AAA"}


async def test_a_group_names_each_instrument_once(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        with pytest.raises(ModelError):
            await store.commit([part(state, trades(state, 1)), part(state, trades(state, 1))])
        assert (await store.head("sim:AAA")).seq == 0


async def test_trades_without_seq_are_refused_whole(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        batch = dataclasses.replace(trades(state, 3), seq=None)
        with pytest.raises(ModelError, match="seq"):
            await store.commit([part(state, batch, row(T0))])
        assert (await store.head("sim:AAA")).pos == 0
        await write(store, state, trades(state, 3))


# ── rescale ──
