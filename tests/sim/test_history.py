"""The demo's past: told whole and in order up to the first live trade, while books come at once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest

from tapewick.model import BookUpdate, TradeBatch
from tapewick.sim.history import WithHistory
from tapewick.sim.venue import SimVenue
from tapewick.sources.binance import BinanceSource

pytestmark = pytest.mark.timeout(60)

HOUR = 3_600_000  # ms
LATENESS = 2 * 10**9


def source_of(venue: SimVenue, start: int) -> WithHistory:
    """The venue's past since ``start`` (ms) and its live trades and books."""
    symbols = list(venue.markets())
    live = BinanceSource(
        symbols, venue="sim", rest_url=venue.rest_url, ws_url=venue.ws_url, books=True, limit=10**9, retry_cap=0.05
    )
    return WithHistory(live, venue.markets(), start=start, now=venue.now())


async def test_books_are_live_before_the_past_is_told() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=100.0, catch_up=60 * 24 * 3) as venue:
        source = source_of(venue, 0)
        untold = {f"sim:{symbol}": market.last_id(venue.now()) for symbol, market in venue.markets().items()}
        live: set[str] = set()
        async with aclosing(source.events()) as events:
            async for event in events:
                if isinstance(event, TradeBatch) and len(event):
                    untold[event.instrument] -= len(event)
                    await asyncio.sleep(0.005)  # as an engine takes them; the venue needs turns of the loop too
                if isinstance(event, BookUpdate) and event.state == "live":
                    live.add(event.instrument)
                    if len(live) == 2:
                        break
        assert untold["sim:ETHUSDT"] > 0


async def test_the_past_meets_the_present_without_a_hole_or_a_step_back() -> None:
    async with SimVenue(["BTCUSDT", "ETHUSDT"], rate=200.0, catch_up=60) as venue:
        start = venue.now() - HOUR // 2
        told: dict[str, list[TradeBatch]] = {"sim:BTCUSDT": [], "sim:ETHUSDT": []}
        source = source_of(venue, start)
        async with aclosing(source.events()) as events:
            async for event in events:
                if isinstance(event, TradeBatch):
                    told[event.instrument].append(event)
                    if not source.pull and all(batches[-1].ts_recv.any() for batches in told.values()):
                        break
        for id, batches in told.items():
            trades = [batch for batch in batches if len(batch)]
            assert trades[0].trade_id[0] == venue.markets()[id.partition(":")[2]].first_id_at(start)
            for one, next_ in pairwise(trades):
                assert next_.first_id[0] <= one.trade_id[-1] + 1
                assert next_.trade_id[-1] > one.trade_id[-1]
            clock = 0
            for batch in batches:
                assert not len(batch) or batch.ts_event[0] >= clock - LATENESS, "the clock ran ahead of the past"
                clock = max(clock, batch.clock)
