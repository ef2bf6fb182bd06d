"""Raw exchange frames to trade columns, and exact-decimal JSON rows, in Python.

The fallback of the native codec and its twin: same API, same results. ``_codec_walk`` holds
the rules; ``_codec_read`` is its short cut for frames of the venue's own layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import index

import numpy as np

from tapewick.decimals import INT64_MAX, fit_scale
from tapewick.engine._codec_book import BOOKS, Book, BookRows, Scales
from tapewick.engine._codec_read import read as read_frame
from tapewick.engine._codec_rows import check_scales, encode_candles, encode_trades
from tapewick.engine._codec_values import Other, Reject
from tapewick.engine._codec_walk import Kept, Trade, walk_snapshot
from tapewick.engine._depth import DepthGroup, QuoteGroup, Rest
from tapewick.errors import ModelError
from tapewick.model import I8, I32, I64

__all__ = ["Decoded", "Decoder", "Group", "encode_candles", "encode_trades", "read_snapshot"]


@dataclass(slots=True, eq=False)
class Group:
    """One symbol's trades of one kind, as columns in order of arrival.

    ``symbol`` is the venue's own text; ``kind`` is ``trade`` or ``aggTrade``; ``futures``: a
    frame carried a futures-only key. ``price`` and ``size`` are mantissas at ``price_scale`` and
    ``size_scale``; times are UTC ns. ``voids``: ids the venue used for no trade.
    """

    symbol: str
    kind: str
    futures: bool
    price_scale: int
    size_scale: int
    trade_id: I64
    first_id: I64
    count: I32
    ts_event: I64
    ts_recv: I64
    price: I64
    size: I64
    side: I8
    voids: I64

    def __len__(self) -> int:
        return len(self.trade_id)


@dataclass(slots=True, eq=False)
class Decoded:
    """What a block of frames held.

    ``depth`` and ``quotes`` hold order-book frames by symbol and ``rest`` frames kept raw, if the decoder
    was asked for books. ``others`` counts all other frames that are no trades by type, ``rejects`` refused
    frames by reason; ``last_recv`` is the receive time of the last frame, 0 if none.
    """

    groups: list[Group]
    depth: list[DepthGroup]
    quotes: list[QuoteGroup]
    rest: list[Rest]
    others: dict[str, int]
    rejects: dict[str, int]
    last_recv: int


@dataclass(slots=True)
class _Symbol:
    name: str
    price_scale: int
    size_scale: int
    scales: dict[str, Scales]
    known: bool = False
    batch: int = 0
    groups: dict[str, _Open] = field(default_factory=dict)
    books: dict[str, BookRows] = field(default_factory=dict)
    top_price: int = 0
    top_size: int = 0


@dataclass(slots=True)
class _Open:
    """A group while its batch is being read: rows at the scales of their moment."""

    symbol: _Symbol
    kind: str
    futures: bool = False
    rows: list[tuple[int, int, int, int, int, int, int, int, int, int]] = field(default_factory=list)
    voids: list[int] = field(default_factory=list)

    def close(self) -> Group:
        symbol = self.symbol
        table = list(zip(*self.rows, strict=True)) if self.rows else [()] * 10
        ids, first, count, ts, recv, side, price, size, price_scale, size_scale = table
        return Group(
            symbol=symbol.name,
            kind=self.kind,
            futures=self.futures,
            price_scale=symbol.price_scale,
            size_scale=symbol.size_scale,
            trade_id=np.array(ids, np.int64),
            first_id=np.array(first, np.int64),
            count=np.array(count, np.int32),
            ts_event=np.array(ts, np.int64),
            ts_recv=np.array(recv, np.int64),
            price=_widened(price, price_scale, symbol.price_scale),
            size=_widened(size, size_scale, symbol.size_scale),
            side=np.array(side, np.int8),
            voids=np.array(self.voids, np.int64),
        )


def _widened(mantissas: Sequence[int], scales: Sequence[int], scale: int) -> I64:
    if scales and min(scales) != scale:
        mantissas = [m * 10 ** (scale - own) for m, own in zip(mantissas, scales, strict=True)]
    return np.array(mantissas, np.int64)


class Decoder:
    """Raw exchange frames to columns; remembers each symbol's scales between calls.

    A value with more digits than its symbol's scale widens the scale; values of the same call
    follow. A symbol never seen starts at ``price_scale`` / ``size_scale``, or the largest scales
    that leave a factor 1000 of head-room. Nothing is ever rounded; no frame raises. ``books``: read
    frames of order books too, each kind at scales of its own, and keep klines, mini tickers, partial
    books and depth snapshots raw, instead of counting them.
    """

    def __init__(self, price_scale: int = 8, size_scale: int = 8, books: bool = False) -> None:
        check_scales(price_scale, size_scale)
        self._scales = price_scale, size_scale
        self._books = books
        self._symbols: dict[str, _Symbol] = {}
        self._batch = 0
        self._open: list[_Open] = []
        self._rows: dict[str, list[BookRows]] = {}
        self._rest: list[Rest] = []
        self._others: dict[str, int] = {}
        self._rejects: dict[str, int] = {}

    def set_scale(self, symbol: str, price_scale: int, size_scale: int) -> None:
        """Give a symbol the venue's own scales. Raises ``ModelError`` outside 0..38."""
        check_scales(price_scale, size_scale)
        known = self._symbol(symbol)
        known.price_scale, known.size_scale, known.known = price_scale, size_scale, True
        known.scales = {kind: Scales(price_scale, size_scale, True) for kind in BOOKS}

    def frames(self, frames: Sequence[bytes], recv: I64 | int) -> Decoded:
        """Decode bare JSON frames; ``recv`` (ns) is one time per frame or one for all.

        A frame whose first bytes name another type than a trade (stream name, event tag, or a depth
        snapshot) is counted by it without a look at the rest: ``malformed_json`` counts only frames
        that claim to be trades or name no type. Raises ``ModelError`` for other numbers of times.
        """
        times: Iterable[int]
        if isinstance(recv, np.ndarray):
            if len(recv) != len(frames):
                raise ModelError(f"{len(recv)} receive times for {len(frames)} frames")
            times = recv.tolist()
        else:
            times = repeat(index(recv), len(frames))
        self._begin()
        last = 0
        for frame, last in zip(frames, times, strict=True):
            if not isinstance(frame, bytes):
                raise TypeError(f"expected bytes, {type(frame).__name__} found")
            self._take(frame, last)
        return self._finish(last)

    def lines(self, block: bytes) -> Decoded:
        """Decode recorder lines, ``<recv ns> <frame JSON>\\n`` each; the block holds whole lines only."""
        if not isinstance(block, bytes):
            raise TypeError(f"expected bytes, {type(block).__name__} found")
        self._begin()
        last = 0
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            digits, space, frame = line.partition(b" ")
            if not line:
                _count(self._others, "blank")
            elif not space or not digits.isdigit() or len(digits) > 19:
                _count(self._rejects, "malformed_json")
            elif (time := int(digits)) > INT64_MAX:
                _count(self._rejects, "bad_time")
            else:
                last = time
                self._take(frame, time)
        return self._finish(last)

    def _begin(self) -> None:
        self._batch += 1
        self._open, self._others, self._rejects = [], {}, {}
        self._rows, self._rest = {kind: [] for kind in BOOKS}, []

    def _finish(self, last: int) -> Decoded:
        groups = [group.close() for group in self._open]
        for group in self._open:
            group.symbol.groups = {}  # symbols live as long as the decoder, rows must not
        self._open = []
        depth = [rows.depth() for rows in self._rows["depthUpdate"]]
        quotes = [rows.quotes() for rows in self._rows["bookTicker"]]
        for rows in (*self._rows["depthUpdate"], *self._rows["bookTicker"]):
            self._symbols[rows.symbol].books = {}
        return Decoded(groups, depth, quotes, self._rest, self._others, self._rejects, last)

    def _take(self, frame: bytes, recv: int) -> None:
        read = read_frame(frame, self._books)
        if type(read) is Trade:
            if not self._keep(read, recv):
                _count(self._rejects, "overflow")
        elif type(read) is Book:
            if not self._keep_book(read, recv):
                _count(self._rejects, "overflow")
        elif type(read) is Kept:
            self._rest.append(Rest(read.kind, read.stream, read.body, recv))
        elif type(read) is Other:
            _count(self._others, str(read))
        else:
            _count(self._rejects, str(read))

    def _symbol(self, name: str) -> _Symbol:
        """The symbol, ready for this batch."""
        symbol = self._symbols.get(name)
        if symbol is None:
            scales = {kind: Scales(*self._scales) for kind in BOOKS}
            symbol = self._symbols[name] = _Symbol(name, *self._scales, scales)
        if symbol.batch != self._batch:
            symbol.batch, symbol.groups, symbol.top_price, symbol.top_size = self._batch, {}, 0, 0
            symbol.books = {}
        return symbol

    def _group(self, symbol: _Symbol, kind: str, futures: bool) -> _Open:
        group = symbol.groups.get(kind)
        if group is None:
            group = symbol.groups[kind] = _Open(symbol, kind)
            self._open.append(group)
        group.futures = group.futures or futures
        return group

    def _keep_book(self, book: Book, recv: int) -> bool:
        """Add a frame to its symbol's rows; False, and nothing changed, if its values do not fit 64 bits."""
        symbol = self._symbol(book.symbol)
        rows = symbol.books.get(book.kind) or BookRows(symbol.name)
        if not rows.append(book, recv, symbol.scales[book.kind]):
            return False
        if book.kind not in symbol.books:
            symbol.books[book.kind] = rows
            self._rows[book.kind].append(rows)
        return True

    def _keep(self, trade: Trade, recv: int) -> bool:
        """Add a trade to its group; False, and nothing changed, if its values do not fit 64 bits."""
        kind, name, id, first, span, ts, price, size, side, futures, void = trade
        symbol = self._symbol(name)
        if void:
            self._group(symbol, kind, futures).voids.append(id)
            return True
        new_price = _fit(*price, symbol.price_scale, symbol.known, symbol.top_price)
        new_size = _fit(*size, symbol.size_scale, symbol.known, symbol.top_size)
        if new_price is None or new_size is None:
            return False
        price_scale, price_mantissa, symbol.top_price = new_price
        size_scale, size_mantissa, symbol.top_size = new_size
        symbol.price_scale, symbol.size_scale, symbol.known = price_scale, size_scale, True
        self._group(symbol, kind, futures).rows.append(
            (id, first, span, ts, recv, side, price_mantissa, size_mantissa, price_scale, size_scale)
        )
        return True


def _fit(mantissa: int, own: int, current: int, known: bool, top: int) -> tuple[int, int, int] | None:
    """Scale, mantissa and largest magnitude of the batch with a value; None if any leaves 64 bits."""
    scale = current
    if not known:
        scale = fit_scale(current, mantissa, own)
    elif own > current:
        scale = own
        top *= 10 ** (own - current)
    mantissa *= 10 ** (scale - own)
    if abs(mantissa) > top:
        top = abs(mantissa)
    return (scale, mantissa, top) if top <= INT64_MAX else None


def read_snapshot(body: bytes, price_scale: int, size_scale: int) -> DepthGroup | str:
    """A depth snapshot as a group of one frame without a symbol, or the reason why it is none.

    Values with more digits than the scales widen them.
    """
    read = walk_snapshot(body)
    rows = BookRows("")
    if isinstance(read, Reject):
        return str(read)
    return rows.depth() if rows.append(read, 0, Scales(price_scale, size_scale, True)) else "overflow"


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
