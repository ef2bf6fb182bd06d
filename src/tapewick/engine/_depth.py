"""What a decode call found of order books: depth changes, best bid and ask, frames kept raw, snapshots.

The Python twins of the native codec's classes, and what tests build by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from tapewick.model import I64

__all__ = ["DepthGroup", "DepthSnapshot", "QuoteGroup", "Rest"]


@dataclass(slots=True, eq=False)
class DepthGroup:
    """One symbol's depth frames in order of arrival.

    One value per frame: the venue's update ids ``first_id`` (U), ``last_id`` (u) and ``prev_id`` (pu, -1
    where the venue sends none), ``ts_event`` (T where present, else E) and ``ts_recv`` (ns), and where its
    levels end: frame i changed the bids ``[ask_end[i - 1], bid_end[i])`` and the asks ``[bid_end[i],
    ask_end[i])`` of the level columns ``price`` and ``size`` (mantissas; size 0 removes a level).
    """

    symbol: str
    price_scale: int
    size_scale: int
    first_id: I64
    last_id: I64
    prev_id: I64
    ts_event: I64
    ts_recv: I64
    bid_end: I64
    ask_end: I64
    price: I64
    size: I64

    def __len__(self) -> int:
        return len(self.last_id)

    @property
    def nbytes(self) -> int:
        """Memory the columns hold, for byte-bounded buffers."""
        return 256 + 8 * (7 * len(self.last_id) + 2 * len(self.price))


@dataclass(slots=True, eq=False)
class QuoteGroup:
    """One symbol's best bids and asks in order of arrival, as the venue announced them.

    ``update_id`` is that of the book a quote stands for; ``ts_event`` (ns) is 0 where the frame tells no
    time. An empty side has price 0.
    """

    symbol: str
    price_scale: int
    size_scale: int
    update_id: I64
    bid: I64
    bid_size: I64
    ask: I64
    ask_size: I64
    ts_event: I64
    ts_recv: I64

    def __len__(self) -> int:
        return len(self.update_id)

    @property
    def nbytes(self) -> int:
        """Memory the columns hold."""
        return 256 + 8 * 11 * len(self.update_id)


@dataclass(slots=True)
class Rest:
    """A frame kept as it came, for readers that are in no hurry.

    ``kind`` is ``kline``, ``24hrMiniTicker``, ``partialDepth`` or ``snapshot``; ``stream`` the combined
    stream's name (``""`` for a raw stream); ``body`` the JSON of its data, which nobody has validated yet.
    """

    kind: str
    stream: str
    body: bytes
    ts_recv: int


@dataclass(slots=True, eq=False)
class DepthSnapshot:
    """A whole book as the venue's REST answer told it; ``ts_event`` (ns) is 0 where it tells no time."""

    last_id: int
    ts_event: int
    price_scale: int
    size_scale: int
    bid_price: I64
    bid_size: I64
    ask_price: I64
    ask_size: I64
