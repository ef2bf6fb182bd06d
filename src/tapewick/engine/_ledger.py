"""The coverage ledger in readable Python: which trade ids are known to be completely stored."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from tapewick.model import I64, NO_TIME

__all__ = ["Ledger", "Range", "range_rows"]


@dataclass(slots=True)
class Range:
    """Covered ids [first, last] and the times of the lowest and highest known trade inside.

    ``stored``: a store has, or is about to have, a range of this ``first``.
    """

    first: int
    last: int
    first_ts: int
    last_ts: int
    stored: bool = False


class Ledger:
    """Disjoint, merged, ascending ranges of ids known to be completely stored."""

    def __init__(self, slack: int) -> None:
        self.ranges: list[Range] = []
        self.slack = slack
        self.touched: set[int] = set()  # ``first`` of ranges that are new or grew
        self.gone: list[int] = []  # ``first`` of stored ranges that merged into a lower one
        self.windows: list[tuple[int, int]] = []
        self.holes_changed = False

    def restore(self, rows: I64) -> None:
        self.ranges = [Range(first, last, low, high, True) for first, last, low, high in rows.tolist()]

    def covers(self, id: int) -> bool:
        if not self.ranges or id > self.ranges[-1].last:
            return False
        i = bisect_right(self.ranges, id, key=lambda r: r.first) - 1
        return i >= 0 and id <= self.ranges[i].last

    def covered(self, first: int, last: int) -> int:
        """How many ids of [first, last] are covered."""
        if not self.ranges or first > self.ranges[-1].last:
            return 0
        low = bisect_left(self.ranges, first, key=lambda r: r.last)
        high = bisect_right(self.ranges, last, key=lambda r: r.first)
        return sum(min(last, r.last) - max(first, r.first) + 1 for r in self.ranges[low:high])

    def add(self, first: int, last: int, ts: int) -> None:
        """Cover [first, last]; ``ts`` is the time of the record there, ``NO_TIME`` if it is void."""
        low = bisect_left(self.ranges, first - 1, key=lambda r: r.last)
        high = bisect_right(self.ranges, last + 1, key=lambda r: r.first)
        joined = self.ranges[low:high]
        if len(joined) == 1 and joined[0].first <= first and last <= joined[0].last:
            return
        new = Range(first, last, ts, ts)
        self._note_window(joined, new, at_end=high == len(self.ranges))
        self.ranges[low:high] = [self._join(joined, new)]

    def extend(self, first: int, last: int, first_ts: int, last_ts: int) -> None:
        """Cover [first, last], all above what is covered, as adding its records one by one would."""
        self.add(first, first, first_ts)
        tail = self.ranges[-1]
        tail.last, tail.last_ts = last, last_ts

    def _join(self, joined: list[Range], new: Range) -> Range:
        """One range in place of ``joined`` (ascending, may be empty) and ``new``."""
        by_id = sorted([*joined, new], key=lambda r: r.last)
        first_ts = next((r.first_ts for r in by_id if r.first_ts != NO_TIME), NO_TIME)
        last_ts = next((r.last_ts for r in reversed(by_id) if r.last_ts != NO_TIME), NO_TIME)
        whole = Range(min(r.first for r in by_id), by_id[-1].last, first_ts, last_ts)
        for old in joined:
            self.touched.discard(old.first)
            if old.stored and old.first != whole.first:
                self.gone.append(old.first)
        whole.stored = any(old.stored and old.first == whole.first for old in joined)
        self.touched.add(whole.first)
        return whole

    def _note_window(self, joined: list[Range], new: Range, *, at_end: bool) -> None:
        """Remember where completeness may have been settled for candles that got no trade."""
        if not joined:
            self.holes_changed = self.holes_changed or bool(self.ranges)
            return
        if len(joined) == 1 and at_end and joined[0].first <= new.first:
            return  # the tape grew at its end: the rows that may settle are in memory
        self.holes_changed = True
        edges = [t for r in (*joined, new) for t in (r.first_ts, r.last_ts) if t != NO_TIME]
        if not edges:
            return
        # Inside joined ranges nothing changes: only between their inner edges.
        start = joined[0].last_ts if joined[0].first <= new.first and joined[0].last_ts != NO_TIME else min(edges)
        end = joined[-1].first_ts if joined[-1].last >= new.last and joined[-1].first_ts != NO_TIME else max(edges)
        if new.first <= 0:
            start = -(2**62)
        window = (min(start, end) - self.slack, max(start, end) + self.slack + 1)
        if self.windows and window[0] <= self.windows[-1][1] and self.windows[-1][0] <= window[1]:
            last = self.windows.pop()
            window = (min(last[0], window[0]), max(last[1], window[1]))
        self.windows.append(window)

    def proves(self, start: int, end: int) -> bool:
        """Whether one range holds a trade before ``start`` - slack and one at or after ``end`` + slack."""
        for r in reversed(self.ranges):
            if r.last_ts == NO_TIME:
                continue
            if r.last_ts < end + self.slack:
                return False
            if r.first <= 0 or r.first_ts < start - self.slack:
                return True
        return False

    def drain(self) -> tuple[list[Range], list[int]]:
        """The ranges a store must put and the ``first`` of those it must delete, both ascending."""
        at = [bisect_left(self.ranges, first, key=lambda r: r.first) for first in sorted(self.touched)]
        put, gone = [self.ranges[i] for i in at], sorted(self.gone)
        for r in put:
            r.stored = True
        self.touched.clear()
        self.gone.clear()
        self.windows.clear()
        self.holes_changed = False
        return put, gone


def range_rows(ranges: list[Range]) -> I64:
    """Shape (n, 4): from_id, to_id, from_ts, to_ts."""
    return np.array([(r.first, r.last, r.first_ts, r.last_ts) for r in ranges], np.int64).reshape(-1, 4)
