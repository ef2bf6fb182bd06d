"""What every store promises, tried on each registered one through ``protocols.Store`` alone.

One more store adds a name to ``STORES``, where its data are to ``address``, and what opens it to ``store_at``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tapewick.errors import ModelError, NotFound
from tapewick.model import (
    CANDLE,
    NO_TIME,
    BookUpdate,
    Candles,
    Gap,
    Head,
    Instrument,
    Origin,
    State,
    TapeCommit,
    TapeState,
    TradeBatch,
)
from tapewick.protocols import Store
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import BY_NAME, SECOND, STORED, bucket
from tests.parts.postgres import PostgresServer

Open = Callable[[], Store]

STORES = ("duckdb", "postgres", "timescale")
T0 = 1_722_988_800 * SECOND  # 2024-08-07, a whole day
MINUTE, HOUR, DAY = (BY_NAME[name].index for name in ("1m", "1h", "1d"))
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def store_at(kind: str, where: str) -> Store:
    """A store of a folder or server, not yet open; twice the same means twice the same data."""
    return DuckDBStore(where) if kind == "duckdb" else PostgresStore(where)


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Kind and place of the store of this test, empty."""
    if request.param == "duckdb":
        return request.param, str(tmp_path / "data")
    server: PostgresServer = request.getfixturevalue(request.param)
    return request.param, server.database()


@pytest.fixture
def opened(address: tuple[str, str]) -> Open:
    """Makes the store of this test; called again after closing, the same data."""
    return lambda: store_at(*address)


def instrument(symbol: str = "AAA", **fields: object) -> Instrument:
    return Instrument(id=f"sim:{symbol}", venue="sim", symbol=symbol, price_scale=2, size_scale=5, **fields)  # type: ignore[arg-type]


def trades(state: TapeState, n: int, *, start: int = T0, late: bool = False) -> TradeBatch:
    """``n`` trades that follow the state's last, a second apart."""
    seq = np.arange(state.seq + 1, state.seq + n + 1, dtype=np.int64)
    ts = start + (seq - 1) * SECOND
    return TradeBatch(
        instrument=state.instrument.id,
        trade_id=seq + 1000,
        first_id=seq + 1000,
        count=np.ones(n, np.int32),
        ts_event=ts,
        ts_recv=ts + 5_000_001,
        price=6_000_000 + seq,
        size=seq * 7,
        side=np.where(seq % 3 == 0, -1, seq % 3 - 1).astype(np.int8),
        price_scale=2,
        size_scale=5,
        seq=seq,
        epoch=state.epoch,
        late=late,
    )


def row(open_time: int, tf: int = MINUTE, **fields: int) -> Candles:
    """One candle with a value of its own in every field."""
    made = np.zeros(1, CANDLE)
    for k, name in enumerate(CANDLE.names or ()):
        if name not in ("reserved", "filled", "origin"):
            made[name] = k + 1
    made["open_time"], made["tf"] = open_time, tf
    made["state"], made["complete"], made["change"], made["reason"] = State.FINAL, 1, 2, 0
    for name, value in fields.items():
        if name in SUMS:
            made[name + "_hi"], made[name + "_lo"] = value >> 64, value & (2**64 - 1)
        else:
            made[name] = value
    return made


def part(
    state: TapeState,
    batch: TradeBatch | None = None,
    rows: Candles | None = None,
    *,
    ranges: list[tuple[int, int, int, int]] | None = None,
    gone: tuple[int, ...] = (),
    gaps: tuple[Gap, ...] = (),
    watermark: int | None = None,
) -> TapeCommit:
    """The next commit of a tape."""
    seq = state.seq + (0 if batch is None else len(batch))
    own = state.instrument
    head = Head(
        instrument=own.id,
        epoch=state.epoch,
        seq=seq,
        pos=state.pos + 1,
        watermark=T0 + seq if watermark is None else watermark,
        price_scale=own.price_scale,
        size_scale=own.size_scale,
    )
    return TapeCommit(
        number=state.number,
        instrument=state.instrument.id,
        owner=state.owner,
        expected_pos=state.pos,
        head=head,
        trades=[] if batch is None else [batch],
        rows=np.empty(0, CANDLE) if rows is None else rows,
        ranges_put=np.array(ranges or [], np.int64).reshape(-1, 4),
        ranges_gone=np.array(gone, np.int64),
        gaps=gaps,
    )


async def write(store: Store, state: TapeState, *args: object, **kwargs: object) -> None:
    """Commit the tape's next part and move the state along with it."""
    commit = part(state, *args, **kwargs)  # type: ignore[arg-type]
    assert await store.commit([commit]) == frozenset()
    state.seq, state.pos, state.watermark = commit.head.seq, commit.head.pos, commit.head.watermark


async def fresh(store: Store, *symbols: str) -> list[TapeState]:
    """New instruments, claimed."""
    ids = [(await store.put_instrument(instrument(symbol))).id for symbol in symbols or ("AAA",)]
    return await store.claim(ids)


def same(left: Candles, right: Candles) -> None:
    assert left.tolist() == right.tolist()


def mine(state: TapeState, rows: Candles) -> Candles:
    """Rows as the store gives them back: numbered and marked as the tape's."""
    rows = rows.copy()
    rows["number"], rows["filled"], rows["origin"] = state.number, 0, Origin.TAPE
    return rows


# ── instruments ──


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


async def test_rescale_multiplies_everything_stored_exactly(opened: Open) -> None:
    big = 2**100 + 7
    async with opened() as store:
        [state, other] = await fresh(store, "AAA", "BBB")
        rows = np.concatenate([row(T0, quote_volume=big, volume=2**70 - 1), row(T0, HOUR, state=State.OPEN)])
        batch = trades(state, 20)
        await write(store, state, batch, rows)
        await write(store, other, trades(other, 5), rows)
        await store.put_imported("sim:AAA", row(T0, DAY, volume=2**64 + 5))
        wide = await store.rescale("sim:AAA", 5, 7)
        assert (wide.price_scale, wide.size_scale) == (5, 7)
    async with opened() as store:
        assert (await store.instruments())[0] == wide
        found, head = await store.trades("sim:AAA")
        assert found.price.tolist() == (batch.price * 1000).tolist()
        assert found.size.tolist() == (batch.size * 100).tolist()
        assert (found.price_scale, found.size_scale, head.pos, head.seq) == (5, 7, 1, 20)
        for tf, was in ((MINUTE, rows[0]), (HOUR, rows[1]), (DAY, row(T0, DAY, volume=2**64 + 5)[0])):
            [now] = (await store.candles("sim:AAA", tf))[0]
            for name in ("open", "high", "low", "close"):
                assert int(now[name]) == int(was[name]) * 1000
            for name in SUMS:
                assert total(now, name) == total(was, name) * (100_000 if "quote" in name else 100), name
            for name in ("trades", "first_id", "last_id", "pos", "rev", "last_ts", "last_seq"):
                assert now[name] == was[name]
        assert (await store.trades("sim:BBB"))[0].price.tolist() == trades(other_state(other), 5).price.tolist()


def other_state(state: TapeState) -> TapeState:
    return dataclasses.replace(state, seq=0)


def total(candle: np.void, name: str) -> int:
    return (int(candle[name + "_hi"]) << 64) + int(candle[name + "_lo"])


@pytest.mark.parametrize("where", ["trade", "price", "sum", "quote", "narrower"])
async def test_a_rescale_that_cannot_hold_every_value_changes_nothing(opened: Open, where: str) -> None:
    async with opened() as store:
        [state] = await fresh(store)
        batch, candle = trades(state, 3), row(T0)
        if where == "trade":
            batch.price[1] = 2**62
        elif where == "price":
            candle = row(T0, high=2**62)
        elif where == "sum":
            candle = row(T0, volume=2**125)
        elif where == "quote":
            candle = row(T0, quote_volume=2**122)
        await write(store, state, batch, candle)
        with pytest.raises(ModelError, match="sim:AAA"):
            await store.rescale("sim:AAA", 1 if where == "narrower" else 3, 6)
        assert (await store.instruments())[0].price_scale == 2
        assert (await store.trades("sim:AAA"))[0].price.tolist() == batch.price.tolist()
        same((await store.candles("sim:AAA", MINUTE))[0], mine(state, candle))
        await write(store, state, trades(state, 3))


# ── concurrency and crashes ──


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
from tests.contract.test_store import store_at, HOUR, MINUTE, T0, SECOND, State, fresh, row, trades, write
import numpy as np

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


def whole_book(ts: int, id: str = "sim:AAA", **fields: Any) -> BookUpdate:
    """A snapshot with a value of its own in every field."""
    levels = {
        "bid_price": np.array([105, 104, 101], np.int64),
        "bid_size": np.array([1, 2**62, 3], np.int64),
        "ask_price": np.array([106], np.int64),
        "ask_size": np.array([9], np.int64),
    }
    told = {"run": "run-1", "prev_seq": 7, "seq": 7, "state": "live", "snapshot": True, "source": "a"}
    ids = {"first_id": 90, "last_id": 99, "ts_event": ts, "ts_recv": ts + 5, "price_scale": 3, "size_scale": 1}
    return BookUpdate(**{"instrument": id, **told, **ids, **levels, **fields})  # type: ignore[arg-type]


def told_of(book: BookUpdate | None) -> dict[str, Any]:
    assert book is not None
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in dataclasses.asdict(book).items()}


async def test_books_come_back_exactly_by_time(opened: Open) -> None:
    async with opened() as store:
        await store.put_instrument(instrument("AAA"))
        await store.put_instrument(instrument("BBB"))
        first, second = whole_book(T0), whole_book(T0 + 60 * SECOND, run="run-2", first_id=100, last_id=120)
        untimed = whole_book(0, "sim:BBB", ts_recv=T0 + 1)
        await store.put_books([second, first, untimed])
        await store.put_books([])
        assert await store.book_at("sim:AAA", T0 - 1) is None
        assert told_of(await store.book_at("sim:AAA", T0)) == told_of(first)
        assert told_of(await store.book_at("sim:AAA", T0 + 60 * SECOND - 1)) == told_of(first)
        assert told_of(await store.book_at("sim:AAA", 2**63 - 1)) == told_of(second)
        assert await store.book_at("sim:BBB", T0) is None, "its time is when it was received"
        assert told_of(await store.book_at("sim:BBB", T0 + 1)) == told_of(untimed)
    async with opened() as store:
        assert told_of(await store.book_at("sim:AAA", T0 + 61 * SECOND)) == told_of(second)


async def test_a_book_of_a_known_time_is_kept_and_wider_scales_leave_it_alone(opened: Open) -> None:
    async with opened() as store:
        await fresh(store, "AAA")
        await store.put_books([whole_book(T0)])
        await store.put_books([whole_book(T0, run="other")])
        await store.rescale("sim:AAA", 6, 8)
        assert told_of(await store.book_at("sim:AAA", T0)) == told_of(whole_book(T0))


async def test_a_one_sided_and_an_empty_book_are_books(opened: Open) -> None:
    none = np.empty(0, np.int64)
    async with opened() as store:
        await store.put_instrument(instrument("AAA"))
        await store.put_books([whole_book(T0, bid_price=none, bid_size=none)])
        await store.put_books([whole_book(T0 + 1, bid_price=none, bid_size=none, ask_price=none, ask_size=none)])
        one_sided, empty = await store.book_at("sim:AAA", T0), await store.book_at("sim:AAA", T0 + 1)
        assert told_of(one_sided)["bid_price"] == [] and told_of(one_sided)["ask_price"] == [106]
        assert empty is not None and empty.ask_price.dtype == np.int64 and not len(empty.ask_price)


async def test_books_of_an_unknown_instrument_are_refused_whole(opened: Open) -> None:
    async with opened() as store:
        await store.put_instrument(instrument("AAA"))
        with pytest.raises(NotFound, match="sim:ZZZ"):
            await store.put_books([whole_book(T0), whole_book(T0, "sim:ZZZ")])
        with pytest.raises(NotFound, match="sim:ZZZ"):
            await store.book_at("sim:ZZZ", T0)
        assert await store.book_at("sim:AAA", T0) is None


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
