"""A market that is silent after a connection began: what was missed shows without waiting for its next trade."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Literal

import numpy as np
import pytest

from tapewick.clock import RealClock
from tapewick.model import TradeBatch
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_silences import Silences
from tapewick.sources._rest_rows import TradeRow, trades
from tapewick.sources.binance import PRODUCTS, BinanceSource
from tests.fault.roles.rig import HaltingClock
from tests.sources.test_binance import reading, row, rows, source_of

ID = "sim:BTCUSDT"

pytestmark = pytest.mark.timeout(120)


async def _missed(venue: SimVenue, clock: HaltingClock) -> int:
    """Let trades happen that no stream carries, then none any more; the newest id."""
    venue.skip_ids(10**6)
    before = venue.truth("BTCUSDT")[-1].id
    while venue.truth("BTCUSDT")[-1].id < before + 20:  # noqa: ASYNC110  # the venue tells nobody
        await asyncio.sleep(0.02)
    clock.halt()
    await asyncio.sleep(0.2)  # the venue's next turn, after which nothing happens
    return venue.truth("BTCUSDT")[-1].id


@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_the_newest_trade_is_asked_for_after_a_reconnect(stream: str) -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        async with reading(source_of(venue, stream=stream)) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 20)
            newest = await _missed(venue, clock)
            heard = len(reader.batches(ID))
            assert newest not in reader.ids(ID)
            venue.drop_connections()
            await reader.until(lambda: newest in reader.ids(ID))
            last = next(batch for batch in reader.batches(ID)[heard:] if newest in batch.trade_id)
            assert last.covers == ((int(last.first_id[0]), newest),)
            truth = {trade.id: trade for trade in venue.truth("BTCUSDT")}
            if stream == "trade":
                assert rows([last]) == [row(truth[newest])]
            else:
                parts = [row(truth[id]) for id in range(int(last.first_id[0]), newest + 1)]
                ((_, price, size, _, side),) = rows([last])
                assert (price, size, side) == (parts[0][1], sum(part[2] for part in parts), parts[0][4])


@pytest.mark.parametrize("venue_id", list(PRODUCTS))
@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_every_market_kind_is_asked_at_its_own_path(venue_id: str, stream: Literal["trade", "aggTrade"]) -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        async with reading(source_of(venue)) as reader:  # trades happen from the first reader on
            await reader.until(lambda: len(reader.ids(ID)) > 20)
        newest = await _missed(venue, clock)
        source = BinanceSource(
            ["BTCUSDT"], venue=venue_id, rest_url=venue.rest_url, ws_url=venue.ws_url, stream=stream, retry_cap=0.05
        )
        async with reading(source) as reader:
            await reader.until(lambda: newest in reader.ids(f"{venue_id}:BTCUSDT"))
        asked = {"trade": "trades", "aggTrade": "aggTrades"}[stream]
        assert f"{PRODUCTS[venue_id].root}/{asked}" in venue.requests


async def test_a_venue_that_refuses_is_asked_again() -> None:
    clock = HaltingClock()
    async with SimVenue(["BTCUSDT"], rate=100.0, clock=clock) as venue:
        source = source_of(venue)
        async with reading(source) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 20)
            newest = await _missed(venue, clock)
            venue.refuse(400, on="rest", count=2)
            venue.drop_connections()
            await reader.until(lambda: newest in reader.ids(ID))
            assert source.rejects["newest"] >= 2


def test_an_id_without_a_trade_is_vouched_for_and_makes_no_trade() -> None:
    handed: list[TradeBatch] = []
    own = Silences(PRODUCTS["binance-usdm"], "sim", "trade", RealClock(), handed.append, Counter(), retry_cap=1.0)
    own.tell("BTCUSDT", trades([TradeRow(id=7, price="0.00", qty="0.0", time=1_767_225_600_000, isBuyerMaker=True)]))
    assert [(len(batch.trade_id), batch.covers) for batch in handed] == [(0, ((7, 7),))]


async def test_a_market_that_trades_is_not_asked() -> None:
    async with SimVenue(["BTCUSDT"], rate=200.0) as venue:
        async with reading(source_of(venue)) as reader:
            await reader.until(lambda: len(reader.ids(ID)) > 800)  # longer than a silence lasts
            ids = reader.ids(ID)
            assert ids == sorted(set(ids)) and np.all(np.diff(ids) == 1)
        assert "/api/v3/trades" not in venue.requests
