"""The sync machine of one order book: a stream of depth frames joined with a REST snapshot."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tapewick.engine import DepthGroup, Levels
from tapewick.engine._book_reference import Applied
from tapewick.engine._depth import DepthGroup as Columns
from tapewick.engine._depth import DepthSnapshot
from tapewick.model import I64, BookState, BookUpdate

__all__ = ["BookSync"]

INT64_MAX = 2**63 - 1
_NONE: I64 = np.empty(0, np.int64)
_NO_LEVELS = (_NONE, _NONE, _NONE, _NONE)
_DETAILS = {
    "gap": "update ids jumped from {id} to {first}: frames are missing",
    "restarted": "update ids went back from {id} to {last}",
    "crossed": "the best bid is not below the best ask after update {last}",
    "overgrown": "too many levels after update {last}",
}
_COUNTED = {"gap": "breaks", "restarted": "breaks"}


class BookSync:
    """The order-book sync machine of one instrument: buffer, snapshot, chain, guard.

    Feed it one connection's frames in order with ``depth``; whenever ``wants_snapshot`` fetch the venue's
    REST snapshot and give it to ``snapshot``. Every call returns the updates to publish, in order: one per
    applied frame, a snapshot whenever the book becomes live, and one without levels on each other change
    of ``state``. ``rule``: ``spot`` chains frames by ``U``, ``futures`` by ``pu``. Values finer than the
    scales widen them: the whole book is then sent anew.

    ``counters``: frames ``applied`` and ``dropped`` (older than the book), ``breaks`` of the chain,
    ``crossed`` and ``overgrown`` books, ``old_snapshots`` refused, values ``unfit`` for 64 bits,
    ``resyncs``, groups of frames gone with a full buffer (``overflow``), ``lost`` links. For one thread
    at a time.
    """

    def __init__(
        self,
        instrument: str,
        *,
        price_scale: int,
        size_scale: int,
        rule: Literal["spot", "futures"],
        run: str,
        source: str = "",
        buffer_bytes: int = 4 << 20,
    ) -> None:
        self.instrument, self.run, self.source = instrument, run, source
        self.price_scale, self.size_scale = price_scale, size_scale
        self.state: BookState = "syncing"
        self.last_id = 0
        self.seq = 0
        self.counters: Counter[str] = Counter()
        self._futures = rule == "futures"
        self._levels = Levels()
        self._waiting: deque[tuple[DepthGroup, int]] = deque()  # groups and their first frame of use
        self._waiting_bytes, self._buffer_bytes = 0, buffer_bytes
        self._early: tuple[DepthSnapshot, int] | None = None
        self._fresh = False  # no frame has followed the snapshot yet
        self._ts_event = self._ts_recv = 0

    @property
    def wants_snapshot(self) -> bool:
        """Whether a REST snapshot must be fetched: frames are waiting for one."""
        return self.state != "live" and bool(self._waiting)

    def depth(self, group: DepthGroup) -> list[BookUpdate]:
        """Take the frames of this instrument from one decode call."""
        if not len(group):
            return []
        if self.state == "live":
            updates = self._widen(group.price_scale, group.size_scale)
            return updates + (self._follow(group) if self.state == "live" else self._wait(group, 0))
        updates = [] if self.seq else [self._status(int(group.ts_recv[-1]), "waiting for a snapshot")]
        self._wait(group, 0)
        if self._early is not None:
            early, self._early = self._early, None
            updates += self.snapshot(*early)
        return updates

    def snapshot(self, snapshot: DepthSnapshot, ts: int) -> list[BookUpdate]:
        """Take a REST snapshot received at ``ts`` (ns).

        One that is older than the waiting frames, or that they do not follow, is counted, changes
        nothing and leaves ``wants_snapshot`` true. One that comes before any frame is kept until the first
        frame shows whether it follows. A live book ignores it.
        """
        if self.state == "live":
            return []
        if not self._waiting:
            self._early = snapshot, ts
            return []
        if not self._load(snapshot):
            return []
        levels = self._levels.levels(0)
        frames = self._replay(snapshot)
        if frames is None:
            self._levels.clear()
            return []
        self.counters["resyncs"] += self.state == "stale"
        self.state = "live"
        self.last_id = snapshot.last_id
        self._ts_event = self._ts_event or ts
        updates = [self._update(levels, ts_event=snapshot.ts_event or self._ts_event, ts_recv=ts, snapshot=True)]
        for group, applied in frames:
            updates += self._changes(group, applied)
        return updates

    def lost(self, detail: str) -> list[BookUpdate]:
        """The link is gone: drop the levels and wait for the frames of the next one."""
        self.counters["lost"] += 1
        self._forget()
        return self._stale(self._ts_recv, detail)

    def whole(self, ts: int) -> BookUpdate | None:
        """The whole book as it is after update ``seq``, sent at ``ts`` (ns); None unless it is live."""
        if self.state != "live":
            return None
        self.seq -= 1  # it repeats what the last update led to and takes no number of its own
        return self._update(self._levels.levels(0), ts_event=self._ts_event, ts_recv=ts, snapshot=True)

    def best(self) -> tuple[int, int, int, int] | None:
        """Best bid, its size, best ask, its size as mantissas; None unless live with both sides."""
        return self._levels.best() if self.state == "live" else None

    def levels(self, n: int = 0) -> tuple[I64, I64, I64, I64]:
        """Bid prices and sizes, ask prices and sizes, the ``n`` best (0: all), best first; none unless live."""
        return self._levels.levels(n) if self.state == "live" else _NO_LEVELS

    def _follow(self, group: DepthGroup) -> list[BookUpdate]:
        """Apply frames to a live book; at the first that does not follow it is stale and they wait."""
        own = self._at_own_scale(group)
        if own is None:
            return self._break("unfit", int(group.ts_recv[0]), "a level does not fit 64 bits", group, 0)
        applied, stop, reason, dropped = self._levels.follow(
            own, 0, self.last_id, self._fresh, self._futures, self._ts_event
        )
        self.counters["dropped"] += dropped
        updates = self._changes(own, applied)
        if not reason:
            return updates
        ids = {"id": self.last_id, "first": int(group.first_id[stop]), "last": int(group.last_id[stop])}
        detail = _DETAILS[reason].format(**ids)
        return updates + self._break(_COUNTED.get(reason, reason), int(group.ts_recv[stop]), detail, group, stop)

    def _break(self, count: str, ts: int, detail: str, group: DepthGroup, start: int) -> list[BookUpdate]:
        self.counters[count] += 1
        self._forget()
        self._wait(group, start)
        return self._stale(ts, detail)

    def _replay(self, snapshot: DepthSnapshot) -> list[tuple[DepthGroup, list[Applied]]] | None:
        """Apply the waiting frames to the loaded snapshot, and none wait any more.

        None if the snapshot is too old for them or they break off.
        """
        id, fresh, ts = snapshot.last_id, True, snapshot.ts_event
        out: list[tuple[DepthGroup, list[Applied]]] = []
        passed = 0
        for number, (group, start) in enumerate(self._waiting):
            own = self._at_own_scale(group)
            if own is None:
                self._refuse("unfit", number, len(group))
                return None
            # A snapshot may tell no time; until a frame follows it, event times say nothing of the ids.
            limit = INT64_MAX // 2 if fresh else ts
            applied, stop, reason, dropped = self._levels.follow(own, start, id, fresh, self._futures, limit)
            passed += dropped
            if reason == "gap" and not passed and not out and not applied:
                self.counters["old_snapshots"] += 1
                return None
            if reason:
                self._refuse(_COUNTED.get(reason, reason), number, stop)
                return None
            ts = max(ts, int(group.ts_event[-1]))
            if applied:
                id, fresh = applied[-1][1], False
                out.append((own, applied))
        self._ts_recv = int(self._waiting[-1][0].ts_recv[-1])
        self.counters["dropped"] += passed
        self._fresh, self._ts_event = fresh, ts
        self._forget(levels=False)
        return out

    def _refuse(self, count: str, number: int, start: int) -> None:
        """The waiting frames break off: only those from there on are of use with another snapshot."""
        self.counters[count] += 1
        for _ in range(number):
            self._drop_oldest()
        group, _ = self._waiting[0]
        self._waiting[0] = group, start
        if start >= len(group):
            self._drop_oldest()

    def _wait(self, group: DepthGroup, start: int) -> list[BookUpdate]:
        """Keep frames until a snapshot comes; the oldest go when there are too many bytes."""
        self._waiting.append((group, start))
        self._waiting_bytes += group.nbytes
        while self._waiting_bytes > self._buffer_bytes:
            self._drop_oldest()
            self.counters["overflow"] += 1
        return []

    def _drop_oldest(self) -> None:
        self._waiting_bytes -= self._waiting.popleft()[0].nbytes

    def _forget(self, *, levels: bool = True) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._early = None
        if levels:
            self._levels.clear()

    def _load(self, snapshot: DepthSnapshot) -> bool:
        """Set the levels to a snapshot's; False if they are no book."""
        self._widen(snapshot.price_scale, snapshot.size_scale)
        self._levels.load(snapshot.bid_price, snapshot.bid_size, snapshot.ask_price, snapshot.ask_size)
        price_up, size_up = self.price_scale - snapshot.price_scale, self.size_scale - snapshot.size_scale
        if self._levels.crossed():
            self.counters["crossed"] += 1
        elif _rescale(self._levels, price_up, size_up):
            return True
        else:
            self.counters["unfit"] += 1
        self._levels.clear()
        return False

    def _widen(self, price_scale: int, size_scale: int) -> list[BookUpdate]:
        """Adopt wider scales; a live book is sent anew, or stale if it does not fit them."""
        price_up, size_up = max(price_scale - self.price_scale, 0), max(size_scale - self.size_scale, 0)
        if not price_up and not size_up:
            return []
        self.price_scale += price_up
        self.size_scale += size_up
        if self.state != "live":
            return []
        if _rescale(self._levels, price_up, size_up):
            levels = self._levels.levels(0)
            return [self._update(levels, ts_event=self._ts_event, ts_recv=self._ts_recv, snapshot=True)]
        self.counters["unfit"] += 1
        self._forget()
        return self._stale(self._ts_recv, "a level does not fit 64 bits at the wider scale")

    def _at_own_scale(self, group: DepthGroup) -> DepthGroup | None:
        """A group at this book's scales; None if a level does not fit 64 bits there."""
        up = self.price_scale - group.price_scale, self.size_scale - group.size_scale
        if up == (0, 0):
            return group
        price, size = _scaled(group.price, up[0]), _scaled(group.size, up[1])
        if price is None or size is None:
            return None
        ids = group.first_id, group.last_id, group.prev_id
        ends = group.bid_end, group.ask_end
        scales = self.price_scale, self.size_scale
        return Columns(group.symbol, *scales, *ids, group.ts_event, group.ts_recv, *ends, price, size)

    def _changes(self, group: DepthGroup, applied: Sequence[Applied]) -> list[BookUpdate]:
        """One update per applied frame, its levels cut from the group's columns."""
        if not applied:
            return []
        self.counters["applied"] += len(applied)
        self._fresh = False
        price, size = group.price, group.size
        updates = []
        for first, last, ts_event, ts_recv, start, bid_end, ask_end in applied:
            self.last_id, self._ts_event, self._ts_recv = last, ts_event, ts_recv
            bids, asks = slice(start, bid_end), slice(bid_end, ask_end)
            levels = price[bids], size[bids], price[asks], size[asks]
            updates.append(self._update(levels, ts_event=ts_event, ts_recv=ts_recv, first_id=first))
        return updates

    def _stale(self, ts: int, detail: str) -> list[BookUpdate]:
        if self.state == "stale":
            return []
        self.state = "stale"
        return [self._status(ts, detail)]

    def _status(self, ts: int, detail: str) -> BookUpdate:
        return self._update(_NO_LEVELS, ts_event=self._ts_event, ts_recv=ts, detail=detail)

    def _update(
        self,
        levels: tuple[I64, I64, I64, I64],
        *,
        ts_event: int,
        ts_recv: int,
        first_id: int | None = None,
        snapshot: bool = False,
        detail: str = "",
    ) -> BookUpdate:
        self.seq += 1
        return BookUpdate(
            instrument=self.instrument,
            run=self.run,
            prev_seq=self.seq - 1,
            seq=self.seq,
            state=self.state,
            snapshot=snapshot,
            first_id=self.last_id if first_id is None else first_id,
            last_id=self.last_id,
            ts_event=ts_event,
            ts_recv=ts_recv,
            bid_price=levels[0],
            bid_size=levels[1],
            ask_price=levels[2],
            ask_size=levels[3],
            price_scale=self.price_scale,
            size_scale=self.size_scale,
            source=self.source,
            detail=detail,
        )


def _rescale(levels: Levels, price_up: int, size_up: int) -> bool:
    """Multiply levels by powers of ten; False where one does not fit 64 bits."""
    if not len(levels) or not (price_up or size_up):
        return True
    return max(price_up, size_up) <= 18 and levels.rescale(10**price_up, 10**size_up)


def _scaled(column: I64, up: int) -> I64 | None:
    """A column times a power of ten; None where a value does not fit 64 bits."""
    if not up or not len(column) or not column.any():
        return column
    if up > 18 or int(np.abs(column).max()) > INT64_MAX // 10**up:
        return None
    return column * np.int64(10**up)
