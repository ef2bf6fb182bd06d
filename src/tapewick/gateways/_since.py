"""The positions that requests carry: offsets on the tape as it is now."""

from __future__ import annotations

from tapewick.channel import Channel, parse_position
from tapewick.errors import BadRequest
from tapewick.market import Market
from tapewick.model import Head
from tapewick.timeframe import Timeframe

__all__ = ["changed_after", "own_offset"]


def own_offset(since: str, head: Head) -> int:
    """The offset of a position on this tape. Raises ``BadRequest``."""
    epoch, offset = parse_position(since)
    if epoch not in (None, head.epoch):
        raise BadRequest(f"since={since!r} is of another tape (now {head.epoch}); read without it", field="since")
    return offset


async def changed_after(market: Market, instrument: str, tf: Timeframe, since: str) -> int:
    """The offset after which changed candles are wanted. Raises ``BadRequest`` where candles that changed since have
    been let go of: what is left would look like all there is. Who holds none (0) misses none."""
    offset = own_offset(since, await market.head(instrument))
    floor = await market.floor(Channel("candle", instrument, tf))
    if 0 < offset < floor.offset:
        raise BadRequest(
            f"since={since!r} is older than what is kept: {tf.name} candles that changed after it are gone; "
            "read without it",
            field="since",
        )
    return offset
