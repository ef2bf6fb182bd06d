"""Candles, whichever the store."""

from __future__ import annotations

import numpy as np

from tapewick.model import (
    NO_TIME,
    Candles,
    State,
)
from tapewick.timeframe import SECOND
from tests.contract.tapes import (
    HOUR,
    MINUTE,
    T0,
    Open,
    fresh,
    instrument,
    mine,
    row,
    same,
    write,
)


async def test_candles_come_back_exactly_with_128_bit_sums(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        rows = np.concatenate(
            [
                row(T0, volume=2**127 - 1, quote_volume=2**64, taker_buy_volume=2**64 - 1, taker_buy_quote_volume=0),
                row(T0 + 60 * SECOND, volume=-5, quote_volume=-(2**127), rev=2**31 - 1, complete=-1, state=1),
                row(T0 + 120 * SECOND, state=State.OPEN, complete=0, volume=2**126 + 3),
                row(T0, HOUR, high=2**63 - 1, low=-(2**63) + 1),
            ]
        )
        await write(store, state, None, rows)
    async with opened() as store:
        found, _ = await store.candles("sim:AAA", MINUTE)
        same(found, mine(state, rows[:3]))
        found, _ = await store.candles("sim:AAA", HOUR)
        same(found, mine(state, rows[3:]))


async def test_a_later_version_replaces_a_candle_in_every_state(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        for k, life in enumerate((State.OPEN, State.OPEN, State.CLOSED, State.CLOSED, State.FINAL)):
            version = row(T0, state=life, pos=k + 1, close=100 + k)
            await write(store, state, None, version)
            found, head = await store.candles("sim:AAA", MINUTE)
            same(found, mine(state, version))
            assert head.pos == k + 1


async def test_candle_windows_limits_and_positions(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        for k in range(20):
            life = State.OPEN if k == 19 else State.CLOSED
            await write(store, state, None, row(T0 + k * 60 * SECOND, pos=k + 1, state=life))
        await write(store, state, None, row(T0 + 3 * 60 * SECOND, pos=21, rev=1))

        async def minutes(**wanted: object) -> list[int]:
            rows, _ = await store.candles("sim:AAA", MINUTE, **wanted)  # type: ignore[arg-type]
            return [(t - T0) // (60 * SECOND) for t in rows["open_time"].tolist()]

        assert await minutes() == list(range(20))
        assert await minutes(limit=3) == [0, 1, 2]
        assert await minutes(limit=3, newest=True) == [17, 18, 19]
        assert await minutes(start=T0 + 300 * SECOND, end=T0 + 480 * SECOND) == [5, 6, 7]
        assert await minutes(end=T0 + 480 * SECOND, limit=2, newest=True) == [6, 7]
        assert await minutes(since_pos=17) == [17, 18, 19, 3]
        assert await minutes(since_pos=17, limit=2) == [17, 18]
        assert await minutes(since_pos=21) == []
        assert (await store.candles("sim:AAA", HOUR))[0].size == 0


async def test_a_complete_tape_row_wins_over_an_import_and_an_incomplete_one_loses(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        t = [T0 + k * 60 * SECOND for k in range(5)]
        tape = np.concatenate(
            [row(t[0], close=1), row(t[1], close=1, complete=0, state=1), row(t[2], close=1, complete=0)]
        )
        await write(store, state, None, tape)
        await write(store, state, None, row(t[4], close=1, complete=0, state=State.OPEN))
        imported = np.concatenate([row(at, close=2) for at in (t[0], t[1], t[3], t[4])])
        await store.put_imported("sim:AAA", imported)

        def seen(rows: Candles) -> list[tuple[int, int, int]]:
            return list(
                zip(
                    ((rows["open_time"] - T0) // (60 * SECOND)).tolist(),
                    rows["close"].tolist(),
                    rows["origin"].tolist(),
                    strict=True,
                )
            )

        rows, _ = await store.candles("sim:AAA", MINUTE)
        assert seen(rows) == [(0, 1, 0), (1, 2, 1), (2, 1, 0), (3, 2, 1), (4, 2, 1)]
        rows, _ = await store.candles("sim:AAA", MINUTE, limit=3)
        assert seen(rows) == [(0, 1, 0), (1, 2, 1), (2, 1, 0)]
        rows, _ = await store.candles("sim:AAA", MINUTE, limit=3, newest=True)
        assert seen(rows) == [(2, 1, 0), (3, 2, 1), (4, 2, 1)]
        rows, _ = await store.candles("sim:AAA", MINUTE, since_pos=0)
        assert rows["origin"].tolist() == [0, 0, 0, 0]
        await store.put_imported("sim:AAA", row(t[1], close=3))
        rows, _ = await store.candles("sim:AAA", MINUTE, start=t[1], end=t[2])
        assert seen(rows) == [(1, 3, 1)]


async def test_an_import_needs_no_tape_and_never_reaches_the_engine(opened: Open) -> None:
    async with opened() as store:
        await store.put_instrument(instrument())
        await store.put_imported("sim:AAA", row(T0))
        assert len((await store.head("sim:AAA")).epoch) == 8
        [state] = await store.claim(["sim:AAA"])
        assert len(state.rows) == 0 and set(state.newest.tolist()) == {NO_TIME}
        assert len(await store.load_candles(state.number, np.array([[MINUTE, T0]]), np.empty((0, 2), np.int64))) == 0


async def test_load_candles_by_key_and_by_window(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        t = [T0 + k * 60 * SECOND for k in range(200)]
        rows = np.concatenate(
            [
                row(t[0]), row(t[1], complete=0, state=1), row(t[2], complete=0, state=0),
                row(t[3], complete=0, state=1), row(t[0], HOUR, complete=0, state=1), row(t[4], complete=1, state=1),
            ]
        )  # fmt: skip
        await write(store, state, None, rows)

        async def load(keys: list[tuple[int, int]], windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
            found = await store.load_candles(
                state.number, np.array(keys, np.int64).reshape(-1, 2), np.array(windows, np.int64).reshape(-1, 2)
            )
            return sorted((r["tf"].item(), (r["open_time"].item() - T0) // (60 * SECOND)) for r in found)

        assert await load([(MINUTE, t[0]), (MINUTE, t[2]), (MINUTE, t[9]), (HOUR, t[2])], []) == [(1, 0), (1, 2)]
        assert await load([], [(t[1], t[1] + 1)]) == [(1, 1), (7, 0)]
        assert await load([(MINUTE, t[1])], [(-(2**62), t[2])]) == [(1, 1), (7, 0)]
        assert await load([], [(t[1], t[2]), *((x, x + 1) for x in t[60:190])]) == [(1, 1), (7, 0)]
        assert await load([], [(t[2], t[3])]) == [(7, 0)]
        assert await load([], []) == []


# ── ledger ──
