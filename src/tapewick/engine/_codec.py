"""Raw exchange frames to trade columns, and exact-decimal JSON rows, in Python.

The fallback of the native codec and its twin: same API, same results. ``_walk`` holds the
rules; the typed decoders below are its short cut for frames of the venue's own layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from operator import index

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from tapewick.decimals import INT64_MAX, fit_scale
from tapewick.engine._codec_rows import check_scales, encode_candles, encode_trades
from tapewick.engine._codec_walk import (
    MAX_FRAME,
    MAX_SYMBOL,
    TRADES,
    Other,
    Read,
    Reject,
    Trade,
    decimal,
    event_kind,
    record_ids,
    stream_kind,
    time_ns,
    walk,
)
from tapewick.errors import BadDecimal, ModelError
from tapewick.model import I8, I32, I64

__all__ = ["Decoded", "Decoder", "Group", "encode_candles", "encode_trades"]


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

    ``others`` counts frames that are no trades by type, ``rejects`` refused frames by reason;
    ``last_recv`` is the receive time of the last frame, 0 if none.
    """

    groups: list[Group]
    others: dict[str, int]
    rejects: dict[str, int]
    last_recv: int


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    e: str
    E: int
    s: str
    p: str
    q: str
    T: int
    m: bool
    t: int | UnsetType = UNSET
    a: int | UnsetType = UNSET
    f: int | UnsetType = UNSET
    l: int | UnsetType = UNSET  # noqa: E741 - the venue's key
    M: bool | UnsetType = UNSET
    X: str | None | UnsetType = UNSET


class _Combined(msgspec.Struct, forbid_unknown_fields=True):
    stream: str
    data: _Body


_decode_combined = msgspec.json.Decoder(_Combined).decode
_decode_body = msgspec.json.Decoder(_Body).decode


@lru_cache(4096)
def _named(name: bytes) -> str:
    return stream_kind(name.decode("latin-1"))


@dataclass(slots=True)
class _Symbol:
    name: str
    price_scale: int
    size_scale: int
    known: bool = False
    batch: int = 0
    groups: dict[str, _Open] = field(default_factory=dict)
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
    that leave a factor 1000 of head-room. Nothing is ever rounded; no frame raises.
    """

    def __init__(self, price_scale: int = 8, size_scale: int = 8) -> None:
        check_scales(price_scale, size_scale)
        self._scales = price_scale, size_scale
        self._symbols: dict[str, _Symbol] = {}
        self._batch = 0
        self._open: list[_Open] = []
        self._others: dict[str, int] = {}
        self._rejects: dict[str, int] = {}

    def set_scale(self, symbol: str, price_scale: int, size_scale: int) -> None:
        """Give a symbol the venue's own scales. Raises ``ModelError`` outside 0..38."""
        check_scales(price_scale, size_scale)
        known = self._symbol(symbol)
        known.price_scale, known.size_scale, known.known = price_scale, size_scale, True

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

    def _finish(self, last: int) -> Decoded:
        groups = [group.close() for group in self._open]
        for group in self._open:
            group.symbol.groups = {}  # symbols live as long as the decoder, rows must not
        self._open = []
        return Decoded(groups, self._others, self._rejects, last)

    def _take(self, frame: bytes, recv: int) -> None:
        read = _read(frame)
        if type(read) is Trade:
            if not self._keep(read, recv):
                _count(self._rejects, "overflow")
        elif type(read) is Other:
            _count(self._others, str(read))
        else:
            _count(self._rejects, str(read))

    def _symbol(self, name: str) -> _Symbol:
        """The symbol, ready for this batch."""
        symbol = self._symbols.get(name)
        if symbol is None:
            symbol = self._symbols[name] = _Symbol(name, *self._scales)
        if symbol.batch != self._batch:
            symbol.batch, symbol.groups, symbol.top_price, symbol.top_size = self._batch, {}, 0, 0
        return symbol

    def _group(self, symbol: _Symbol, kind: str, futures: bool) -> _Open:
        group = symbol.groups.get(kind)
        if group is None:
            group = symbol.groups[kind] = _Open(symbol, kind)
            self._open.append(group)
        group.futures = group.futures or futures
        return group

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


def _read(frame: bytes) -> Read:
    """One frame: settled by its first bytes, else by the typed decoder, else by the walk."""
    if len(frame) > MAX_FRAME:
        return Reject("oversize")
    kind, name = "", b""
    if frame.startswith(b'{"stream":"'):
        end = frame.find(b'"', 11)
        if frame.startswith(b'","data":', end):
            name = frame[11:end]
            kind = _named(name)
    elif frame.startswith(b'{"e":"'):
        end = frame.find(b'"', 6)
        if frame.startswith(b'",', end):
            kind = event_kind(frame[6:end].decode("latin-1"))
    elif frame.startswith(b'{"lastUpdateId":'):
        kind = "snapshot"
    if kind not in TRADES:
        return Other(kind) if kind else walk(frame)
    # The typed decoder takes escapes and repeated keys the first bytes did not show.
    plain = frame.isascii() and b"\\" not in frame
    return (_typed(frame, kind, name) if plain else None) or walk(frame)


def _typed(frame: bytes, kind: str, name: bytes) -> Trade | None:
    """A trade in the venue's own layout; None for anything else, which the walk then decides."""
    try:
        if name:
            combined = _decode_combined(frame)
            if combined.stream.encode() != name:
                return None
            body = combined.data
        else:
            body = _decode_body(frame)
        price, size = _plain_decimal(body.p), _plain_decimal(body.q)
    except (msgspec.DecodeError, BadDecimal):
        return None
    first, last = (body.f, body.l) if kind == "aggTrade" else (body.t, body.t)
    ts = time_ns(body.T)
    if isinstance(first, UnsetType) or isinstance(last, UnsetType) or body.e != kind or not ts:
        return None
    if not 0 < len(body.s) <= MAX_SYMBOL or not record_ids(first, last):
        return None
    futures = body.X is not UNSET
    void = futures and kind == "trade" and body.X in (None, "", "NA") and price[0] == 0 and size[0] == 0
    side = -1 if body.m else 1
    return Trade(kind, body.s, last, first, last - first + 1, ts, price, size, side, futures, void)


def _plain_decimal(text: str) -> tuple[int, int]:
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    digits = whole + fraction
    if whole.isdigit() and digits.isdigit() and len(digits) <= 18:
        return int(digits), len(fraction)
    return decimal(text)


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
