"""Bars of the simulated venue: exact folds of its own trades, whole minutes remembered.

A bar of any interval is merged from minutes, a second's straight from trades. What a request needs
is computed once, an hour at a time, and kept; ``warm`` does so in slices, letting the loop run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tapewick.sim.market import Columns, Listing, SimTrade
from tapewick.timeframe import BY_NAME, Timeframe, bucket, bucket_end

__all__ = ["INTERVALS", "Bar", "Bars", "Grid", "History"]

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
MINUTE = 60_000
HOUR = 3_600_000
_MS = 1_000_000
_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::([0-5]\d))?", re.ASCII)
_FIELDS = 11


class History(Protocol):
    """The past of one symbol, as bars need it."""

    listing: Listing

    def last_id(self, now: int) -> int: ...
    def first_id_at(self, time: int) -> int: ...
    def columns(self, first_id: int, last_id: int) -> Columns: ...
    def last_trade(self, now: int) -> SimTrade | None: ...


class Bar(NamedTuple):
    """One bar: times in UTC ms (``end`` exclusive), prices, sizes and sums as mantissas.

    An empty one has 0 trades, ids -1 and four times the close before it.
    """

    start: int
    end: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote: int
    trades: int
    taker: int
    taker_quote: int
    first_id: int
    last_id: int


class Grid(NamedTuple):
    """Where the bars of an interval begin; ``zone`` ms east of UTC."""

    tf: Timeframe
    zone: int = 0

    def open(self, time: int) -> int:
        """Start of the bar that holds ``time``."""
        return bucket(self.tf, (time + self.zone) * _MS) // _MS - self.zone

    def next(self, start: int) -> int:
        """Start of the bar after the one that begins at ``start``."""
        return bucket_end(self.tf, (start + self.zone) * _MS) // _MS - self.zone

    @classmethod
    def of(cls, interval: str, zone: str = "0") -> Grid | None:
        """The grid of one of the venue's intervals in a zone such as ``8`` or ``-05:30``; None if unknown."""
        matched = _ZONE.fullmatch(zone)
        if interval not in INTERVALS or matched is None:
            return None
        minutes = int(matched[2]) * 60 + int(matched[3] or 0)
        minutes = -minutes if matched[1] == "-" else minutes
        return cls(BY_NAME[interval], minutes * MINUTE) if -12 * 60 <= minutes <= 14 * 60 else None


class Bars:
    """The bars of one symbol."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._hours: dict[int, npt.NDArray[np.int64]] = {}
        self._minutes: dict[int, npt.NDArray[np.int64]] = {}
        self._first: int | None = None

    def first(self, now: int) -> int | None:
        """UTC ms of the first trade; None while there is none before ``now``."""
        if self._first is None and (last := self._history.last_id(now)) > 0:
            first = self._history.first_id_at(-(2**62))
            found = self._history.columns(first, min(last, first + 99))
            self._first = int(found.time[0]) if len(found.time) else None
        return self._first if self._first is not None and self._first < now else None

    async def warm(self, start: int, end: int, now: int) -> None:
        """Compute the whole hours in [start, end) that are over, a slice at a time."""
        begin = self.first(now)
        if begin is None:
            return
        for hour in range(max(start, begin) // HOUR, min(end, now) // HOUR):
            if hour not in self._hours:
                self._hour(hour)
                await asyncio.sleep(0)

    def bar(self, start: int, end: int, now: int) -> Bar:
        """The bar of the trades in [start, end) that happened before ``now``."""
        rows = self._rows(start, min(end, now), now)
        rows = rows[rows[:, 6] > 0]
        if not len(rows):
            last = self._history.last_trade(min(start, now))
            close = 0 if last is None else int(last.price.replace(".", ""))
            return Bar(start, end, close, close, close, close, 0, 0, 0, 0, 0, -1, -1)
        # Python's integers: a month of a busy market can leave 64 bits.
        volume, quote, trades, taker, taker_quote = (sum(rows[:, at].tolist()) for at in (4, 5, 6, 7, 8))
        high, low = int(rows[:, 1].max()), int(rows[:, 2].min())
        prices = int(rows[0, 0]), high, low, int(rows[-1, 3])
        ids = int(rows[0, 9]), int(rows[-1, 10])
        return Bar(start, end, *prices, volume, quote, trades, taker, taker_quote, *ids)

    def page(self, grid: Grid, now: int, *, start: int | None, end: int | None, limit: int) -> list[tuple[int, int]]:
        """Start and end of up to ``limit`` bars: from ``start`` on, else the newest that begin by ``end``.

        None lies before the first trade or after ``now``.
        """
        first = self.first(now)
        until = now - 1 if end is None else min(end, now - 1)
        if first is None or until < first and start is None:
            return []
        spans: list[tuple[int, int]] = []
        at = grid.open(first)
        if start is not None:
            if start > at:
                at = grid.open(start)
                at = at if at >= start else grid.next(at)
            while at <= until and len(spans) < limit:
                spans.append((at, at := grid.next(at)))
            return spans
        oldest, at = at, grid.open(until)
        while at >= oldest and len(spans) < limit:
            spans.append((at, grid.next(at)))
            at = grid.open(at - 1)
        return spans[::-1]

    def _rows(self, start: int, end: int, now: int) -> npt.NDArray[np.int64]:
        """Rows that together hold the trades in [start, end), ascending."""
        begin = self.first(now)
        if begin is None or end <= start or end <= begin:
            return np.empty((0, _FIELDS), np.int64)
        start = max(start, begin - begin % MINUTE)
        if start % MINUTE:
            return self._fold([start, end])
        parts: list[npt.NDArray[np.int64]] = []
        whole = end - end % MINUTE
        while start < whole:
            stop = min(whole, start - start % HOUR + HOUR)
            parts.append(self._part(start, stop, now))
            start = stop
        if start < end:
            parts.append(self._fold([start, end]))
        return np.concatenate(parts)

    def _part(self, start: int, stop: int, now: int) -> npt.NDArray[np.int64]:
        """Minute rows of [start, stop), whole minutes inside one hour."""
        hour = start // HOUR
        if (hour + 1) * HOUR <= now:
            return self._hour(hour)[start % HOUR // MINUTE : (stop - hour * HOUR) // MINUTE]
        return np.stack([self._minute(minute) for minute in range(start // MINUTE, stop // MINUTE)])

    def _hour(self, hour: int) -> npt.NDArray[np.int64]:
        if (kept := self._hours.get(hour)) is None:
            minutes = range(hour * 60, hour * 60 + 60)
            kept = self._hours[hour] = np.stack([self._minute(minute) for minute in minutes])
            for minute in minutes:
                del self._minutes[minute]
        return kept

    def _minute(self, minute: int) -> npt.NDArray[np.int64]:
        if (kept := self._minutes.get(minute)) is None:
            kept = self._minutes[minute] = self._fold([minute * MINUTE, (minute + 1) * MINUTE])[0]
        return kept

    def _fold(self, edges: list[int]) -> npt.NDArray[np.int64]:
        """One row per span between neighbouring ``edges`` (UTC ms), all zero where nothing was traded."""
        found = self._history.columns(self._history.first_id_at(edges[0]), self._history.last_id(edges[-1]))
        rows = np.zeros((len(edges) - 1, _FIELDS), np.int64)
        at = np.searchsorted(found.time, edges, side="left")
        full = np.flatnonzero(np.diff(at))
        if not len(full):
            return rows
        starts, ends = at[full], at[full + 1] - 1
        quote = found.price * found.size
        taken = np.where(found.maker, 0, 1)
        rows[full, 0], rows[full, 3] = found.price[starts], found.price[ends]
        rows[full, 1] = np.maximum.reduceat(found.price, starts)
        rows[full, 2] = np.minimum.reduceat(found.price, starts)
        sums: Iterable[npt.NDArray[np.int64]] = (found.size, quote, found.size * taken, quote * taken)
        for column, values in zip((4, 5, 7, 8), sums, strict=True):
            rows[full, column] = np.add.reduceat(values, starts)
        rows[full, 6] = ends - starts + 1
        rows[full, 9], rows[full, 10] = found.id[starts], found.id[ends]
        return rows
