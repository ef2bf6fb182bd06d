"""What every store promises, tried on each registered one through ``protocols.Store`` alone.

One more store adds a name to ``STORES`` and what opens it to ``store_at`` in ``tapes.py``, and where its data are to
``address`` in ``conftest.py``.
"""

from __future__ import annotations

import pytest

from tapewick.errors import NotFound
from tapewick.model import (
    NO_TIME,
    Floor,
    Instrument,
)
from tapewick.timeframe import SECOND
from tests.contract.tapes import (
    MINUTE,
    T0,
    Open,
    fresh,
    instrument,
    trades,
    write,
)


async def test_instruments_come_back_with_every_field(opened: Open) -> None:
    wanted = [
        Instrument(
            id="hook:x/y", venue="hook", symbol="x/y", base="x", quote="y", price_scale=3, size_scale=0,
            status="halted", id_kind="unique", granularity="agg",
        ),
        instrument("BBB"),
    ]  # fmt: skip
    async with opened() as store:
        for one in wanted:
            assert await store.put_instrument(one) == one
    async with opened() as store:
        assert await store.instruments() == wanted


async def test_scales_and_kind_of_a_known_instrument_are_kept(opened: Open) -> None:
    async with opened() as store:
        await store.put_instrument(instrument(base="A", quote="Q"))
        changed = Instrument(
            id="sim:AAA", venue="sim", symbol="AAA", price_scale=9, size_scale=9, status="break", id_kind="unique"
        )
        kept = await store.put_instrument(changed)
        assert (kept.price_scale, kept.size_scale, kept.id_kind) == (2, 5, "contiguous")
        assert (kept.status, kept.base, kept.quote) == ("break", "A", "Q")
        assert await store.instruments() == [kept]


async def test_an_unknown_instrument_is_named(opened: Open) -> None:
    async with opened() as store:
        for call in (store.head, store.trades, store.coverage):
            with pytest.raises(NotFound, match="sim:ZZZ"):
                await call("sim:ZZZ")
        with pytest.raises(NotFound, match="sim:ZZZ"):
            await store.claim(["sim:ZZZ"])
        with pytest.raises(NotFound, match="sim:ZZZ"):
            await store.candles("sim:ZZZ", MINUTE)


async def test_nothing_has_been_let_go_of_unless_it_was_told_to(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 3))
        assert await store.floor("sim:AAA", 0) == await store.floor("sim:AAA", MINUTE) == Floor()
        with pytest.raises(NotFound, match="sim:ZZZ"):
            await store.floor("sim:ZZZ", MINUTE)


# ── trades ──


async def test_trades_come_back_exactly(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        batch = trades(state, 300)
        batch.price[7], batch.size[7], batch.ts_recv[8] = 2**63 - 1, 2**62 + 1, -1
        await write(store, state, batch, ranges=[(1001, 1300, T0, T0 + 299 * SECOND)])
    async with opened() as store:
        found, head = await store.trades("sim:AAA")
        for name in ("seq", "trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side"):
            column = getattr(found, name)
            assert column.dtype == getattr(batch, name).dtype
            assert column.tolist() == getattr(batch, name).tolist(), name
        assert (found.price_scale, found.size_scale, found.epoch) == (2, 5, state.epoch)
        assert (head.instrument, head.epoch, head.seq, head.pos) == ("sim:AAA", state.epoch, 300, 1)
        assert (head.watermark, head.price_scale, head.size_scale) == (T0 + 300, 2, 5)
        assert head == await store.head("sim:AAA")


async def test_trades_since_limit_newest_and_time(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        for _ in range(4):
            await write(store, state, trades(state, 25))
        early = trades(state, 5, start=T0 - 500 * SECOND, late=True)
        await write(store, state, early)  # seqs 101–105 carry times before all others

        async def seqs(**wanted: object) -> list[int]:
            batch, _ = await store.trades("sim:AAA", **wanted)  # type: ignore[arg-type]
            assert batch.seq is not None
            return [int(seq) for seq in batch.seq]

        assert await seqs() == list(range(1, 106))
        assert await seqs(since=90) == list(range(91, 106))
        assert await seqs(since=10, limit=7) == list(range(11, 18))
        assert await seqs(limit=30, newest=True) == list(range(76, 106))
        assert await seqs(since=100, limit=30, newest=True) == list(range(101, 106))
        assert await seqs(start=T0 + 10 * SECOND, end=T0 + 13 * SECOND) == [11, 12, 13]
        assert await seqs(start=T0 + 10 * SECOND, limit=2) == [11, 12]
        assert await seqs(end=T0 + 10 * SECOND, limit=6, newest=True) == [10, 101, 102, 103, 104, 105]
        assert await seqs(end=T0) == [101, 102, 103, 104, 105]
        assert await seqs(since=105) == await seqs(start=T0 + 10**6 * SECOND) == []
        assert await seqs(since=10**12) == await seqs(end=NO_TIME) == []


async def test_a_tape_without_trades_answers_empty(opened: Open) -> None:
    async with opened() as store:
        await store.put_instrument(instrument())
        batch, head = await store.trades("sim:AAA")
        rows, _ = await store.candles("sim:AAA", MINUTE)
        assert (len(batch), len(rows), head.seq, head.epoch) == (0, 0, 0, "")
        assert len((await store.coverage("sim:AAA")).ranges) == 0


# ── candles ──


async def test_trades_say_which_came_late(opened: Open) -> None:
    async with opened() as store:
        [state] = await fresh(store, "AAA")
        await write(store, state, trades(state, 3))
        await write(store, state, trades(state, 2, late=True))
        await write(store, state, trades(state, 1))
        for limit, newest in ((0, False), (6, True), (5000, False)):
            batch, _ = await store.trades("sim:AAA", limit=limit, newest=newest)
            assert batch.late_rows is not None
            assert batch.late_rows.tolist() == [False, False, False, True, True, False]
