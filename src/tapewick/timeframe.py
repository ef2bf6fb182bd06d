"""Candle boundaries: the one authority on where a bucket starts and ends.

A bucket is half-open ``[open, open + tf)`` in UTC and keyed by its open time. Months are
calendar months, weeks start on Monday, ``3d`` counts from 1970-01-02 as the venue does
(databases cut weeks and days from other origins, so no SQL decides a boundary).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tapewick.errors import UnknownTimeframe

__all__ = [
    "NAMES",
    "SECOND",
    "STORED",
    "TREE",
    "Timeframe",
    "bucket",
    "buckets",
    "bucket_end",
    "next_open",
    "parse",
]

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Timeframe:
    """One of the 18 frames. ``index`` is its number in stored rows (0 = 1s, 1 = 1m …).

    ``length`` is the bucket's length in ns; for ``1M`` it is that of the longest month.
    ``offset`` shifts the grid: a bucket opens where ``(t - offset) % length == 0``.
    """

    index: int
    name: str
    length: int
    offset: int = 0

    @property
    def calendar(self) -> bool:
        """Whether buckets are calendar months rather than a fixed length."""
        return self.name == "1M"


_ALL = (
    Timeframe(0, "1s", SECOND),
    Timeframe(1, "1m", MINUTE),
    Timeframe(2, "3m", 3 * MINUTE),
    Timeframe(3, "5m", 5 * MINUTE),
    Timeframe(4, "15m", 15 * MINUTE),
    Timeframe(5, "30m", 30 * MINUTE),
    Timeframe(6, "45m", 45 * MINUTE),
    Timeframe(7, "1h", HOUR),
    Timeframe(8, "2h", 2 * HOUR),
    Timeframe(9, "3h", 3 * HOUR),
    Timeframe(10, "4h", 4 * HOUR),
    Timeframe(11, "6h", 6 * HOUR),
    Timeframe(12, "8h", 8 * HOUR),
    Timeframe(13, "12h", 12 * HOUR),
    Timeframe(14, "1d", DAY),
    Timeframe(15, "3d", 3 * DAY, DAY),
    Timeframe(16, "1w", 7 * DAY, 4 * DAY),  # 1970-01-05 was a Monday
    Timeframe(17, "1M", 31 * DAY),
)
BY_INDEX = _ALL
BY_NAME = {tf.name: tf for tf in _ALL}
NAMES = tuple(BY_NAME)
STORED = _ALL[1:]
"""The 17 frames the engine stores; ``1s`` is live and folded from trades on read."""

TREE: tuple[tuple[int, int], ...] = tuple(
    (BY_NAME[child].index, BY_NAME[parent].index)
    for child, parent in (
        ("1m", "3m"), ("1m", "5m"), ("5m", "15m"), ("15m", "30m"), ("15m", "45m"),
        ("30m", "1h"), ("1h", "2h"), ("1h", "3h"), ("2h", "4h"), ("2h", "6h"),
        ("4h", "8h"), ("6h", "12h"), ("12h", "1d"), ("1d", "3d"), ("1d", "1w"), ("1d", "1M"),
    )
)  # fmt: skip
"""Edges (child, parent) along which deltas flow, children always first. Every edge nests."""

# Spellings other systems use. Case matters only between m (minute) and M (month).
_ALIASES = {
    "1": "1m", "3": "3m", "5": "5m", "15": "15m", "30": "30m", "45": "45m", "60": "1h",
    "120": "2h", "180": "3h", "240": "4h", "360": "6h", "480": "8h", "720": "12h",
    "1S": "1s", "S": "1s", "1H": "1h", "2H": "2h", "3H": "3h", "4H": "4h", "6H": "6h", "8H": "8h", "12H": "12h",
    "D": "1d", "1D": "1d", "3D": "3d", "W": "1w", "1W": "1w", "M": "1M", "1mo": "1M",
    "1 minute": "1m", "5 minutes": "5m", "15 minutes": "15m", "30 minutes": "30m",
    "1 hour": "1h", "4 hours": "4h", "1 day": "1d", "1 week": "1w", "1 month": "1M",
    "ohlc1m": "1m",
}  # fmt: skip


def parse(text: str) -> Timeframe:
    """The timeframe a canonical name or a known alias means.

    Raises ``UnknownTimeframe``, listing the supported set.
    """
    found = BY_NAME.get(text) or BY_NAME.get(_ALIASES.get(text, ""))
    if found is None:
        raise UnknownTimeframe(f"unknown timeframe {text!r}; use one of {' '.join(NAMES)}")
    return found


def _month_open(t: int) -> int:
    day = dt.datetime.fromtimestamp(t // SECOND, dt.UTC)
    return int(dt.datetime(day.year, day.month, 1, tzinfo=dt.UTC).timestamp()) * SECOND


def bucket(tf: Timeframe, t: int) -> int:
    """Open time (ns) of the bucket of ``tf`` that holds time ``t`` (ns)."""
    if tf.calendar:
        return _month_open(t)
    return t - (t - tf.offset) % tf.length


def buckets(tf: Timeframe, ts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``bucket`` for a column of times: shape (n,), int64 ns in and out."""
    if tf.calendar:
        months = ts.astype("datetime64[ns]").astype("datetime64[M]")
        return months.astype("datetime64[ns]").astype(np.int64)
    return ts - (ts - tf.offset) % tf.length


def bucket_end(tf: Timeframe, open_time: int) -> int:
    """Exclusive end (ns) of the bucket that opens at ``open_time``; the next bucket's open."""
    if not tf.calendar:
        return open_time + tf.length
    day = dt.datetime.fromtimestamp(open_time // SECOND, dt.UTC)
    year, month = divmod(day.year * 12 + day.month, 12)
    return int(dt.datetime(year, month + 1, 1, tzinfo=dt.UTC).timestamp()) * SECOND


next_open = bucket_end
