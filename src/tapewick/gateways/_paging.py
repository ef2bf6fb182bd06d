"""Where the page of candles after an answer begins: the same for every surface."""

from __future__ import annotations

from typing import NamedTuple

from tapewick.market import FAR, CandleAnswer, Window
from tapewick.timeframe import Timeframe, bucket_end

__all__ = ["Turn", "turn"]


class Turn(NamedTuple):
    """The bound of the window that changes, ``start`` or ``end``, and what it becomes in UTC ns."""

    bound: str
    at: int


def turn(tf: Timeframe, window: Window, found: CandleAnswer) -> Turn | None:
    """Towards later rows if the answer began at ``window.start``, else towards older ones; None where no time of the
    window is left."""
    rows, end = found.batch.rows, FAR if window.end is None else window.end
    if len(rows) >= window.limit:
        if window.newest:
            return Turn("end", int(rows["open_time"][0]))
        after = bucket_end(tf, int(rows["open_time"][-1]))
        return Turn("start", after) if after < end else None
    # Short of the limit, and yet perhaps not at the end of what there is.
    return Turn("start", found.reached) if found.reached < min(found.head.watermark, end) else None
