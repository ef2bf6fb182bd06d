"""Candles as those see them who want no open ones: as many closed rows as were asked for."""

from __future__ import annotations

from dataclasses import replace

from tapewick.market import CandleAnswer, Fill, Market, Window
from tapewick.model import CandleBatch, State
from tapewick.timeframe import Timeframe

__all__ = ["closed_candles", "without_open"]


def without_open(batch: CandleBatch) -> CandleBatch:
    """The same without its open rows."""
    return replace(batch, rows=batch.rows[batch.rows["state"] != State.OPEN])


async def closed_candles(
    market: Market, id: str, tf: Timeframe, window: Window, *, fill: Fill | None = None
) -> CandleAnswer:
    """``Market.candles`` as if there were no open candle: closed rows up to the limit. Raises what that raises."""
    room = 0
    while True:
        wider = window._replace(limit=window.limit + room)
        found = await market.candles(id, tf, wider, fill=fill)
        closed = without_open(found.batch)
        left_out = len(found.batch.rows) - len(closed.rows)
        if left_out <= room or len(found.batch.rows) < wider.limit:
            return found._replace(batch=replace(closed, rows=window.cut(closed.rows)))
        room = 2 * left_out  # they took the place of closed ones
