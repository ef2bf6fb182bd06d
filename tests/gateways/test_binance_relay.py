"""A server behind a server: what the second collects from the first's Binance gateway is what the first holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick.errors import SourceError
from tapewick.model import Wanted
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.timeframe import STORED
from tests.gateways.relay import Server, relayed, until

VALUES = (
    "open_time open high low close volume_lo volume_hi quote_volume_lo quote_volume_hi taker_buy_volume_lo "
    "taker_buy_volume_hi taker_buy_quote_volume_lo taker_buy_quote_volume_hi trades first_id last_id first_ts last_ts"
).split()


async def repaired(second: Server, rest_url: str, first: int, last: int) -> None:
    """Fetch ids from the gateway at ``rest_url`` and have them committed."""
    wanted = Wanted(instrument=second.id, ranges=((first, last),))
    async with BinanceRepairer(venue="binance", rest_url=rest_url, limit=10**6, attempts=1) as repairer:
        async for page in repairer.fetch(wanted):
            await second.bus.publish("trades", page)
    await second.bus.settled("trades")


async def trades(one: Server) -> list[tuple[Any, ...]]:
    batch = (await one.store.trades(one.id))[0]
    columns = (batch.trade_id, batch.first_id, batch.count, batch.ts_event, batch.price, batch.size, batch.side)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


async def caught_up(first: Server, second: Server) -> None:
    last = await first.last_id()
    await until(lambda: _reached(second, last))
    await second.stop_collecting()


async def _reached(one: Server, id: int) -> bool:
    return await one.last_id() >= id


async def _more(one: Server, count: int) -> bool:
    return await one.count() >= count


async def test_the_second_servers_values_equal_the_firsts_in_every_timeframe(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (_, first, second):
        await until(lambda: _more(second, 300))
        await first.stop_collecting()
        await caught_up(first, second)
        begin, start = [int((await one.store.coverage(one.id)).ranges[0, 0]) for one in (first, second)]
        assert begin < start, "the second began later and has the rest to fetch"
        await repaired(second, first.rest_url, begin, start - 1)
        assert await trades(second) == await trades(first)
        assert len((await second.store.coverage(second.id)).ranges) == 1
        assert second.source is not None and not second.source.jumps and not second.source.rejects.total()
        for tf in STORED:
            mine, theirs = [(await one.store.candles(one.id, tf.index))[0] for one in (second, first)]
            assert len(mine) and np.array_equal(mine[VALUES], theirs[VALUES]), tf.name


async def test_a_hole_of_the_first_is_a_hole_of_the_second_and_never_taken_for_void(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (venue, first, second):
        await until(lambda: _more(second, 100))
        venue.skip_ids(20)
        await until(lambda: _more(second, 300))
        await first.stop_collecting()
        await caught_up(first, second)
        ours, theirs = [(await one.store.coverage(one.id)).ranges[-2:] for one in (second, first)]
        hole = int(ours[0, 1]) + 1, int(ours[1, 0]) - 1
        assert hole == (int(theirs[0, 1]) + 1, int(theirs[1, 0]) - 1) and hole[1] - hole[0] == 19
        before = await trades(second)
        with pytest.raises(SourceError):
            await repaired(second, first.rest_url, *hole)
        with pytest.raises(SourceError):
            await repaired(second, first.rest_url, hole[0] - 5, hole[1])
        assert await trades(second) == before
        assert len((await second.store.coverage(second.id)).ranges) == 2


async def test_the_second_servers_book_is_the_firsts(tmp_path: Path) -> None:
    async with relayed(tmp_path, rate=40.0, books=True) as (_, first, second):
        equal: list[int] = []

        async def same() -> bool:
            views = [one.market.books_of(one.id)[0] for one in (first, second)]
            if views[0].last_id == views[1].last_id and all(view.live for view in views):
                ours, theirs = [view.levels(20) for view in (views[1], views[0])]
                assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
                equal.append(views[0].last_id)
            return len(set(equal)) >= 3

        await until(same)
