"""Wider scales, whichever the store: everything or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tapewick.errors import Fenced, ModelError
from tapewick.model import (
    State,
)
from tests.contract.tapes import (
    DAY,
    HOUR,
    MINUTE,
    SUMS,
    T0,
    Open,
    fresh,
    mine,
    other_state,
    row,
    same,
    total,
    trades,
    write,
)


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


async def test_a_rescale_by_another_owner_is_refused(opened: Open) -> None:
    """An engine that was taken over must not change rows under the one that has the tape."""
    async with opened() as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 3))
        [heir] = await store.claim(["sim:AAA"])
        with pytest.raises(Fenced, match="sim:AAA"):
            await store.rescale("sim:AAA", 4, 6, owner=state.owner)
        assert (await store.instruments())[0].price_scale == 2
        assert (await store.rescale("sim:AAA", 4, 6, owner=heir.owner)).price_scale == 4


# ── concurrency and crashes ──
