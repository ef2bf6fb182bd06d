"""Readers beside a writer and a writer that is killed, whichever the store."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from tapewick.model import (
    State,
)
from tapewick.timeframe import SECOND, STORED, bucket
from tests.contract.tapes import (
    HOUR,
    MINUTE,
    T0,
    Open,
    fresh,
    mine,
    part,
    row,
    same,
    total,
    trades,
    write,
)


async def test_readers_see_whole_commits_while_they_happen(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        done = asyncio.Event()

        async def commit_many() -> None:
            for k in range(25):
                rows = row(T0 + k * 60 * SECOND, volume=state.seq + 50, pos=state.pos + 1)
                await write(store, state, trades(state, 50), rows, ranges=[(1001, 1000 + state.seq + 50, 1, 2)])
            done.set()

        async def read_many() -> int:
            reads = 0
            while not done.is_set() or reads == 0:
                batch, head = await store.trades("sim:AAA")
                assert len(batch) == head.seq == head.pos * 50
                rows, head = await store.candles("sim:AAA", MINUTE)
                assert len(rows) == head.pos
                found = await store.coverage("sim:AAA")
                assert found.seq == found.pos * 50
                assert not len(found.ranges) or found.ranges[0, 1] == 1000 + found.seq
                reads += 1
            return reads

        await asyncio.gather(read_many(), read_many(), commit_many())
        assert (await store.head("sim:AAA")).seq == 1250


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[3])
from tests.contract.tapes import store_at, HOUR, MINUTE, T0, fresh, row, trades, write
import numpy as np
from tapewick.model import State
from tapewick.timeframe import SECOND

async def main():
    async with store_at(sys.argv[1], sys.argv[2]) as store:
        [state] = await fresh(store)
        while True:
            n = state.seq + 200
            rows = np.concatenate([
                row(T0 + state.pos * 60 * SECOND, volume=200, state=State.CLOSED, pos=state.pos + 1),
                row(T0, HOUR, volume=n, state=State.OPEN, pos=state.pos + 1),
            ])
            await write(store, state, trades(state, 200), rows, ranges=[(1001, 1000 + n, T0, T0 + n)])
            print(state.seq, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 9])
async def test_kill_inside_a_commit_loses_nothing_acknowledged_and_leaves_nothing_partial(
    address: tuple[str, str], opened: Open, acknowledged: int
) -> None:
    root = str(Path(__file__).parents[2])
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, *address, root, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    last = [int(await writer.stdout.readline()) for _ in range(acknowledged)][-1]
    writer.kill()
    await writer.wait()
    async with opened() as store:
        [state] = await store.claim(["sim:AAA"])
        assert state.seq >= last and state.seq == state.pos * 200
        batch, _ = await store.trades("sim:AAA")
        assert batch.seq is not None and batch.seq.tolist() == list(range(1, state.seq + 1))
        assert state.ranges.tolist() == [[1001, 1000 + state.seq, T0, T0 + state.seq]]
        [hour] = (await store.candles("sim:AAA", HOUR))[0]
        minutes, _ = await store.candles("sim:AAA", MINUTE)
        assert total(hour, "volume") == sum(total(m, "volume") for m in minutes) == state.seq
        await write(store, state, trades(state, 10))


async def test_many_instruments_are_claimed_and_committed_together(opened: Open) -> None:
    async with opened() as store:
        states = await fresh(store, *(f"S{k:03}" for k in range(60)))
        rows = np.concatenate([row(bucket(tf, T0), tf.index, state=State.OPEN) for tf in STORED])
        assert (
            await store.commit([part(s, trades(s, 2), rows, ranges=[(1001, 1002, 1, 2)]) for s in states])
            == frozenset()
        )
        again = await store.claim([s.instrument.id for s in states])
        assert [s.instrument.id for s in again] == [s.instrument.id for s in states]
        assert {(s.seq, s.pos, len(s.rows), s.owner) for s in again} == {(2, 1, 17, 2)}
        for state in again:
            same(state.rows, mine(state, rows))
