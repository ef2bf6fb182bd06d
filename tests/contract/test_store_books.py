"""Stored books, whichever the store."""

from __future__ import annotations

import numpy as np
import pytest

from tapewick.errors import NotFound
from tapewick.timeframe import SECOND
from tests.contract.tapes import (
    T0,
    Open,
    fresh,
    instrument,
    told_of,
    whole_book,
)


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
