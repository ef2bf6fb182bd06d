"""Trades whose ids are unique: each name is taken once for good, whatever is repeated, redelivered or killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.decimals import INT64_MAX
from tapewick.engine.candles import fold
from tapewick.engine.tape import Engine
from tapewick.model import TradeBatch
from tapewick.protocols import Store
from tapewick.roles import EngineRole
from tapewick.timeframe import BY_INDEX, SECOND
from tests.contract.tapes import DAY, HOUR, MINUTE, T0, Open, instrument

_symbols = count(1)
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
VALUES = ["open_time", "open", "high", "low", "close", "trades", "first_id", "last_id"]
VALUES += [f"{name}_{word}" for name in SUMS for word in ("hi", "lo")]
NOW = T0 + 86_400 * SECOND
KEYS = st.lists(st.integers(0, 40), min_size=0, max_size=8)
STEP = st.tuples(st.lists(KEYS, min_size=1, max_size=3), st.sampled_from(["commit", "die before", "die after", "wait"]))


def hook(symbol: str = "") -> Any:
    return instrument(symbol or f"U{next(_symbols)}", id_kind="unique")


def batch(id: str, keys: list[int], *, bare: bool = False) -> TradeBatch:
    """Trades that follow from their keys; half of them share ids with another key, as hashes cut short do."""
    column = np.array(keys, np.int64)
    return TradeBatch(
        instrument=id,
        trade_id=column if bare else column // 2,
        first_id=column if bare else column // 2,
        count=np.ones(len(keys), np.int32),
        ts_event=T0 + column * 3 * SECOND,
        ts_recv=T0 + column * 3 * SECOND,
        price=10_000 + column * 37 % 500,
        size=1 + column,
        side=np.where(column % 2, 1, -1).astype(np.int8),
        price_scale=2,
        size_scale=5,
        key=None if bare else np.column_stack((column * 2**55 - INT64_MAX // 2, ~column)),
    )


async def start(store: Store, id: str) -> Engine:
    engine = Engine()
    engine.add(await store.claim([id]))
    return engine


async def prepared(engine: Engine, store: Store) -> list[Any]:
    """What a commit of all that was ingested would write."""
    for tape, names in engine.doubtful():
        engine.settle(tape, await store.holds(tape.instrument.id, names))
    while need := engine.missing():
        for tape, keys, windows in need:
            tape.load(await store.load_candles(tape.number, keys, windows))
    return engine.take()


async def check(store: Store, id: str, keys: set[int]) -> None:
    """The tape holds each of ``keys`` once, and its candles are what a fold of them gives."""
    stored, head = await store.trades(id)
    sizes = sorted(1 + key for key in keys)
    assert sorted(stored.size.tolist()) == sizes
    assert stored.seq is not None and stored.seq.tolist() == list(range(1, len(keys) + 1)) and head.seq == len(keys)
    for tf in (MINUTE, HOUR, DAY):
        rows, _ = await store.candles(id, tf)
        assert rows[VALUES].tolist() == fold(batch(id, sorted(keys)), BY_INDEX[tf])[VALUES].tolist()
    held = await store.holds(id, batch(id, list(range(41))).names)
    assert {key for key in range(41) if held[key]} == keys


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=8))
async def test_each_name_is_taken_once_whatever_happens(opened: Open, steps: list[Any]) -> None:
    """What was not committed before a crash comes again, what was may: the tape is that of an undisturbed run."""
    own, wanted = hook(), set()
    async with opened() as store:
        await store.put_instrument(own)
        engine, unsure = await start(store, own.id), list[TradeBatch]()
        for batches, ending in steps:
            for keys in batches:
                wanted.update(keys)
                unsure.append(batch(own.id, keys))
                engine.ingest(batch(own.id, keys), NOW)
            if ending == "wait":
                continue
            group = await prepared(engine, store)
            if ending == "die before":
                engine = await start(store, own.id)
                for one in unsure:  # not acknowledged: the bus brings it again
                    engine.ingest(one, NOW)
                continue
            assert await store.commit(group) == frozenset()
            if ending == "die after":
                engine = await start(store, own.id)
                for one in unsure:  # committed, and not acknowledged
                    engine.ingest(one, NOW)
            unsure.clear()
        await store.commit(await prepared(engine, store))
        await check(store, own.id, wanted)


async def test_names_outlive_a_restart_and_belong_to_their_instrument(opened: Open) -> None:
    one, other = hook("ONE"), hook("OTHER")
    async with opened() as store:
        for own in (one, other):
            await store.put_instrument(own)
        engine = await start(store, one.id)
        engine.ingest(batch(one.id, [1, 2, 3]), NOW)
        await store.commit(await prepared(engine, store))
    async with opened() as store:
        names = batch(one.id, [3, 4, 1, 3]).names
        assert (await store.holds(one.id, names)).tolist() == [True, False, True, True]
        assert not (await store.holds(other.id, names)).any()
        assert (await store.holds(one.id, names[:0])).tolist() == []
        assert len(await store.holds(one.id, np.repeat(names, 2000, axis=0))) == 8000


async def test_a_fenced_engine_leaves_no_name_behind(opened: Open) -> None:
    own = hook("FENCED")
    async with opened() as store:
        await store.put_instrument(own)
        old = await start(store, own.id)
        old.ingest(batch(own.id, [1, 2]), NOW)
        group = await prepared(old, store)
        new = await start(store, own.id)
        assert await store.commit(group) == {own.id}
        assert not (await store.holds(own.id, batch(own.id, [1, 2]).names)).any()
        new.ingest(batch(own.id, [2, 3]), NOW)
        group = await prepared(new, store)
        await store.commit(group)
        assert await store.commit(group) == frozenset(), "tried again after an answer that was lost"
        await check(store, own.id, {2, 3})


async def test_without_a_key_the_id_is_the_name(opened: Open) -> None:
    own = hook("BARE")
    async with opened() as store:
        await store.put_instrument(own)
        for keys in ([1, 2, 2], [2, 3]):
            engine = await start(store, own.id)
            engine.ingest(batch(own.id, keys, bare=True), NOW)
            await store.commit(await prepared(engine, store))
        trades, _ = await store.trades(own.id)
        assert sorted(trades.trade_id.tolist()) == [1, 2, 3]


async def test_what_is_acknowledged_is_stored(opened: Open) -> None:
    """Through the role and a bus: an acknowledgement never comes before the commit with the trades."""
    own = hook("ROLE")
    async with opened() as store, MemoryBus() as bus:
        engine = Engine()
        async with EngineRole(bus, store, engine, ManualClock(NOW), interval=0.001):
            await bus.publish("trades", own)
            await bus.settled("trades")
            for first in range(0, 30, 3):
                sent = [batch(own.id, [first, first + 1, first + 4]) for _ in range(2)]
                await asyncio.gather(*(bus.publish("trades", one) for one in sent))
                await bus.settled("trades")
                assert (await store.holds(own.id, sent[0].names)).all()
        keys = {key for first in range(0, 30, 3) for key in (first, first + 1, first + 4)}
        await check(store, own.id, keys)
        assert engine.rejects == Counter(duplicate=60 - len(keys))
