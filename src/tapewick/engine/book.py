"""Order books: the sync machine a collector drives, and the reader's copy its updates build.

``BookSync`` joins a stream of depth frames with a REST snapshot by the venue's update ids; it is
``live`` only while every frame follows the one before. ``L2`` applies the ``BookUpdate``s it
emits. Neither ever guesses: whatever does not follow makes the book stale until a new snapshot.
"""

from __future__ import annotations

from tapewick.engine import Levels, read_snapshot
from tapewick.engine._book_sync import BookSync
from tapewick.engine._depth import DepthSnapshot
from tapewick.errors import BadPayload
from tapewick.model import I64, BookState, BookUpdate

__all__ = ["BookSync", "DepthSnapshot", "L2", "parse_snapshot"]

_REFUSED = {
    "malformed_json": "is no JSON",
    "bad_utf8": "is no UTF-8 text",
    "missing_field": "lacks lastUpdateId, bids or asks",
    "wrong_type": "holds a value of the wrong type",
    "bad_number": "holds a level that is no price and size",
    "bad_time": "holds a time outside 2009 … 2100",
    "overflow": "holds a number beyond 64 bits",
}


def parse_snapshot(body: bytes, price_scale: int, size_scale: int) -> DepthSnapshot:
    """A REST depth answer as columns, at the given scales or the wider ones its values need.

    Raises ``BadPayload`` for anything but a depth snapshot.
    """
    group = read_snapshot(body, price_scale, size_scale)
    if isinstance(group, str):
        raise BadPayload(f"the depth snapshot {_REFUSED[group]}: {body[:60]!r}; fetch it again")
    price, size, bids = group.price, group.size, int(group.bid_end[0])
    return DepthSnapshot(
        last_id=int(group.last_id[0]),
        ts_event=int(group.ts_event[0]),
        price_scale=group.price_scale,
        size_scale=group.size_scale,
        bid_price=price[:bids],
        bid_size=size[:bids],
        ask_price=price[bids:],
        ask_size=size[bids:],
    )


class L2:
    """One reader's copy of a book, built from one run's updates.

    ``state`` is ``live`` only while every update followed the one before; in any other state there are no
    levels. ``run``, ``seq``, ``last_id``, ``ts_event`` and the scales are those of the last update taken.
    """

    def __init__(self) -> None:
        self.run = ""
        self.seq = self.last_id = self.ts_event = self.ts_recv = 0
        self.price_scale = self.size_scale = 0
        self.state: BookState = "syncing"
        self.detail = ""
        self._levels = Levels()
        self._broken = False

    def apply(self, update: BookUpdate) -> bool:
        """Take an update; False when it does not follow and a snapshot is needed.

        A snapshot starts anew, of whatever run. An update of another run is left alone (and False); one
        that was taken before is passed over. A gap drops the levels: ``state`` is then ``stale``.
        """
        same = update.run == self.run
        if same and not self._broken and update.seq <= self.seq:
            return True
        if update.snapshot and update.state == "live":
            self._levels.load(update.bid_price, update.bid_size, update.ask_price, update.ask_size)
        elif not same and self.run:
            return False
        elif update.state != "live":
            self._levels.clear()
        elif not same or self._broken or update.prev_seq != self.seq or self.state != "live":
            return self._break(update)
        else:
            self._levels.put(update.bid_price, update.bid_size, update.ask_price, update.ask_size)
        self._note(update)
        return True

    def _break(self, update: BookUpdate) -> bool:
        self._levels.clear()
        if self.state == "live":
            self.state = "stale"
            self.detail = f"update {update.seq} follows {update.prev_seq}, not {self.seq}: updates are missing"
        self._broken = bool(self.run)
        return False

    def _note(self, update: BookUpdate) -> None:
        self.run, self.seq, self.state, self.detail = update.run, update.seq, update.state, update.detail
        self.last_id, self.ts_event, self.ts_recv = update.last_id, update.ts_event, update.ts_recv
        self.price_scale, self.size_scale = update.price_scale, update.size_scale
        self._broken = False

    def best(self) -> tuple[int, int, int, int] | None:
        """Best bid, its size, best ask, its size as mantissas; None unless live with both sides."""
        return self._levels.best() if self.state == "live" else None

    def levels(self, n: int = 0) -> tuple[I64, I64, I64, I64]:
        """Bid prices and sizes, ask prices and sizes, the ``n`` best (0: all), best first."""
        return self._levels.levels(n)
