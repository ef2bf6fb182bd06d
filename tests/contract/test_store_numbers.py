"""Trades with numbered ids that are sent again: every store tells the same ones from others under their numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick.engine.tape import Engine
from tapewick.model import TradeBatch
from tapewick.protocols import Store
from tapewick.timeframe import SECOND
from tests.contract.tapes import T0, Open, instrument

_symbols = count(1)
NOW = T0 + 30 * 86_400 * SECOND
CHANGE = st.sampled_from(["", "ts_event", "price", "size", "side", "far"])


def batch(id: str, ids: list[int]) -> TradeBatch:
    """Trades that follow from their ids, each some 20 minutes after the one before."""
    column = np.array(ids, np.int64)
    return TradeBatch(
        instrument=id,
        trade_id=column,
        first_id=column.copy(),
        count=np.ones(len(ids), np.int32),
        ts_event=T0 + column * 1_201 * SECOND,
        ts_recv=T0 + column * 1_201 * SECOND,
        price=10_000 + column,
        size=1 + column,
        side=np.where(column % 2, 1, -1).astype(np.int8),
        price_scale=2,
        size_scale=5,
    )


def changed(whole: TradeBatch, changes: list[str]) -> TradeBatch:
    """The same trades with one value each that is another."""
    columns: dict[str, Any] = {name: getattr(whole, name).copy() for name in ("ts_event", "price", "size", "side")}
    for place, name in enumerate(changes):
        if name == "side":
            columns["side"][place] *= -1
        elif name == "far":
            columns["ts_event"][place] += 5 * 86_400 * SECOND
        elif name:
            columns[name][place] += 1
    return replace(whole, **columns)


async def stored(store: Store, ids: list[int]) -> str:
    """A new instrument that holds trades; its id."""
    own = instrument(f"N{next(_symbols)}", id_kind="contiguous")
    await store.put_instrument(own)
    engine = Engine()
    engine.add(await store.claim([own.id]))
    engine.ingest(batch(own.id, ids), NOW)
    while need := engine.missing():
        for tape, keys, windows in need:
            tape.load(await store.load_candles(tape.number, keys, windows))
    assert await store.commit(engine.take()) == frozenset()
    return own.id


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 30), CHANGE), min_size=1, max_size=10, unique_by=lambda one: one[0]))
async def test_exactly_what_has_other_values_is_unlike(opened: Open, asked: list[tuple[int, str]]) -> None:
    ids, changes = [id for id, _ in asked], [change for _, change in asked]
    async with opened() as store:
        id = await stored(store, list(range(31)))
        sent = changed(batch(id, ids), changes)
        wanted = [change != "" for change in changes]
        assert (await store.unlike(id, sent)).tolist() == wanted
        finer = replace(sent, price=sent.price * 1000, price_scale=5)
        assert (await store.unlike(id, finer)).tolist() == wanted, "decimals are equal, whatever their scales"


async def test_what_came_later_than_a_seq_is_looked_for_behind_it_only(opened: Open) -> None:
    async with opened() as store:
        id = await stored(store, list(range(10)))
        assert not (await store.unlike(id, batch(id, [5, 9]), 5)).any()
        assert (await store.unlike(id, batch(id, [3, 7]), 5)).tolist() == [True, False]
