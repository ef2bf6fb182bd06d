"""Whole ranges of a tape as files: read page by page by key, never more than one page in memory.

The position is taken first: what comes after it is not in the file (trades), or is there again when
asked since that position (candles).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from tapewick.formats import Format, Layout, candle_layout, trade_layout, writer
from tapewick.market import FAR, Market, Window
from tapewick.model import CandleBatch, TradeBatch, position
from tapewick.timeframe import Timeframe, bucket_end

__all__ = ["Export", "candles", "chunks", "trades"]

PAGE = 20_000  # rows in memory at once; a row group or record batch of the file
SECONDS_PAGE = 600  # 1s candles of a page: they are folded from all trades in it


class Export(NamedTuple):
    """What a file will hold: its columns, the position it was begun at, the rows in pages."""

    layout: Layout
    position: str
    pages: AsyncIterator[CandleBatch | TradeBatch]


async def trades(
    market: Market, id: str, *, since: int | None = None, start: int | None = None, end: int | None = None
) -> Export:
    """Trades with seq > ``since`` and ``start`` ≤ ts_event < ``end`` (ns), by seq. Raises ``NotFound``."""
    own, head = await market.instrument(id), await market.head(id)
    at = position(head.epoch, head.seq)
    layout = trade_layout(own, head.price_scale, head.size_scale, {"instrument": id, "position": at})

    async def pages() -> AsyncGenerator[TradeBatch, None]:
        after = since or 0
        while after < head.seq:
            batch, now = await market.trades(id, since=after, start=start, end=end, limit=PAGE)
            if batch.seq is None or not len(batch) or now.epoch != head.epoch:
                return
            wanted = batch.seq <= head.seq
            full, after = len(batch) >= PAGE, int(batch.seq[-1])
            yield batch if wanted.all() else batch.select(wanted.nonzero()[0])
            if not full:
                return

    return Export(layout, at, pages())


async def candles(
    market: Market, id: str, tf: Timeframe, *, start: int | None = None, end: int | None = None
) -> Export:
    """Candles with ``start`` ≤ open_time < ``end`` (ns), by open time, the open one included. Raises ``NotFound``."""
    own, head = await market.instrument(id), await market.head(id)
    at = position(head.epoch, head.pos)
    facts = {"instrument": id, "tf": tf.name, "position": at}
    layout = candle_layout(own, head.price_scale, head.size_scale, facts)

    async def pages() -> AsyncGenerator[CandleBatch, None]:
        low, high, size = start or 0, FAR if end is None else end, PAGE if tf.index else SECONDS_PAGE
        while low < high:
            found = await market.candles(id, tf, Window(low, end, size))
            rows = found.batch.rows
            if len(rows):
                yield found.batch
            if len(rows) >= size:
                low = bucket_end(tf, int(rows["open_time"][-1]))
            elif low < found.reached < min(high, found.head.watermark):
                low = found.reached
            else:
                return

    return Export(layout, at, pages())


async def chunks(export: Export, format: Format) -> AsyncGenerator[bytes, None]:
    """The file, part by part. Raises ``ModelError`` when the instrument got more decimals meanwhile."""
    made = writer(format, export.layout)
    if head := made.head():
        yield head
    async for batch in export.pages:
        if part := await asyncio.to_thread(made.part, batch):
            yield part
    if end := made.end():
        yield end
