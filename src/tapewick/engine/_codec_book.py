"""Frames of order books in Python: depth changes, best bid and ask, snapshots.

The twin of ``native/codec_book.cpp``: the rules for a body of any layout, the short cut for the
venue's own, and the columns they fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from tapewick.decimals import INT64_MAX, fit_scale
from tapewick.engine._codec_values import (
    MAX_SYMBOL,
    Number,
    Reject,
    decimal,
    int64,
    is_integer,
    plain_decimal,
    time_ns,
)
from tapewick.engine._depth import DepthGroup, QuoteGroup
from tapewick.errors import BadDecimal

__all__ = ["BOOKS", "Book", "BookRows", "Scales", "read_body", "read_snapshot_body", "typed"]

BOOKS = ("depthUpdate", "bookTicker")

Level: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Price and size, each as mantissa and scale."""


class Book(NamedTuple):
    """One frame; a quote is a book of one bid and one ask. ``ts`` is in ns, 0 if the frame tells none."""

    kind: str
    symbol: str
    first: int
    last: int
    prev: int
    ts: int
    bids: list[Level]
    asks: list[Level]


def read_body(body: dict[str, Any], kind: str) -> Book | Reject:
    """A walked body of a type in ``BOOKS``."""
    return _depth(body) if kind == "depthUpdate" else _quote(body)


def _depth(body: dict[str, Any]) -> Book | Reject:
    time = _time_key(body)
    if time not in body or any(key not in body for key in "sUuba"):
        return Reject("missing_field")
    previous = body.get("pu", Number("-1"))
    whole = all(is_integer(value) for value in (body["U"], body["u"], previous, body[time]))
    if not whole or not _is_levels(body["b"]) or not _is_levels(body["a"]) or not _is_symbol(body["s"]):
        return Reject("wrong_type")
    first, last, prev = int64(body["U"]), int64(body["u"]), int64(previous)
    if first is None or last is None or prev is None or min(first, last) < 0 or (prev < 0 and "pu" in body):
        return Reject("overflow")
    try:
        bids, asks = _levels(body["b"]), _levels(body["a"])
    except BadDecimal:
        return Reject("bad_number")
    ts = time_ns(int64(body[time]) or 0)
    return Book("depthUpdate", body["s"], first, last, prev, ts, bids, asks) if ts else Reject("bad_time")


def _quote(body: dict[str, Any]) -> Book | Reject:
    if any(key not in body for key in "subBaA"):
        return Reject("missing_field")
    time = _time_key(body)
    typed = is_integer(body["u"]) and (time not in body or is_integer(body[time]))
    if not typed or not all(isinstance(body[key], str) for key in "bBaA") or not _is_symbol(body["s"]):
        return Reject("wrong_type")
    update = int64(body["u"])
    if update is None or update < 0:
        return Reject("overflow")
    try:
        bid, ask = (_value(body["b"]), _value(body["B"])), (_value(body["a"]), _value(body["A"]))
    except BadDecimal:
        return Reject("bad_number")
    ts = time_ns(int64(body[time]) or 0) if time in body else 0
    if time in body and not ts:
        return Reject("bad_time")
    return Book("bookTicker", body["s"], update, update, -1, ts, [bid], [ask])


def read_snapshot_body(body: Any) -> Book | Reject:
    """A walked REST answer as a book without a symbol."""
    if not isinstance(body, dict):
        return Reject("wrong_type")
    if any(key not in body for key in ("lastUpdateId", "bids", "asks")):
        return Reject("missing_field")
    time = _time_key(body)
    if not is_integer(body["lastUpdateId"]) or (time in body and not is_integer(body[time])):
        return Reject("wrong_type")
    if not _is_levels(body["bids"]) or not _is_levels(body["asks"]):
        return Reject("wrong_type")
    last = int64(body["lastUpdateId"])
    if last is None or last < 0:
        return Reject("overflow")
    try:
        bids, asks = _levels(body["bids"]), _levels(body["asks"])
    except BadDecimal:
        return Reject("bad_number")
    ts = time_ns(int64(body[time]) or 0) if time in body else 0
    if time in body and not ts:
        return Reject("bad_time")
    return Book("snapshot", "", last, last, -1, ts, bids, asks)


def _time_key(body: dict[str, Any]) -> str:
    """The time to take: the transaction's if the frame has one, else the event's."""
    return "T" if "T" in body else "E"


def _is_symbol(value: Any) -> bool:
    return type(value) is str and 0 < len(value.encode()) <= MAX_SYMBOL


def _is_levels(side: Any) -> bool:
    """Whether a side holds nothing but arrays of at least two numbers."""
    return isinstance(side, list) and all(
        isinstance(level, list) and len(level) >= 2 and isinstance(level[0], str) and isinstance(level[1], str)
        for level in side
    )


def _levels(side: list[list[str]]) -> list[Level]:
    levels = [(_value(level[0]), _value(level[1])) for level in side]
    if any(price[0] == 0 for price, _ in levels):
        raise BadDecimal("a level has no price")
    return levels


def _value(text: str) -> tuple[int, int]:
    """A decimal that is not negative. Raises ``BadDecimal``."""
    value = decimal(text)
    if value[0] < 0:
        raise BadDecimal(f"{text[:40]!r} is negative")
    return value


class _Depth(msgspec.Struct, forbid_unknown_fields=True):
    s: str
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    E: int | UnsetType = UNSET
    T: int | UnsetType = UNSET
    e: str = "depthUpdate"
    ps: str = ""
    pu: int | UnsetType = UNSET


class _Quote(msgspec.Struct, forbid_unknown_fields=True):
    s: str
    u: int
    b: str
    B: str
    a: str
    A: str
    E: int | UnsetType = UNSET
    T: int | UnsetType = UNSET
    e: str = "bookTicker"
    ps: str = ""


class _CombinedDepth(msgspec.Struct, forbid_unknown_fields=True):
    stream: str
    data: _Depth


class _CombinedQuote(msgspec.Struct, forbid_unknown_fields=True):
    stream: str
    data: _Quote


_DEPTH = msgspec.json.Decoder(_CombinedDepth).decode, msgspec.json.Decoder(_Depth).decode
_QUOTE = msgspec.json.Decoder(_CombinedQuote).decode, msgspec.json.Decoder(_Quote).decode


def typed(frame: bytes, kind: str, name: bytes) -> Book | None:
    """A frame in the venue's own layout; None for anything else, which the walk then decides."""
    combined, bare = _DEPTH if kind == "depthUpdate" else _QUOTE
    try:
        if name:
            whole = combined(frame)
            if whole.stream.encode() != name:
                return None
            body: _Depth | _Quote = whole.data
        else:
            body = bare(frame)
        book = _typed_depth(body) if isinstance(body, _Depth) else _typed_quote(body)
    except (msgspec.DecodeError, BadDecimal):
        return None
    ids = 0 <= book.first <= INT64_MAX and 0 <= book.last <= INT64_MAX
    sound = ids and body.e == kind and 0 < len(book.symbol) <= MAX_SYMBOL
    return book if sound else None


def _typed_depth(body: _Depth) -> Book:
    stamp = body.T if body.T is not UNSET else body.E
    prev = -1 if isinstance(body.pu, UnsetType) else body.pu
    ts = 0 if isinstance(stamp, UnsetType) else time_ns(stamp)
    if not ts or (prev < 0 and body.pu is not UNSET) or prev >= 2**63:
        raise BadDecimal("left to the walk")
    return Book("depthUpdate", body.s, body.U, body.u, prev, ts, _plain_levels(body.b), _plain_levels(body.a))


def _typed_quote(body: _Quote) -> Book:
    stamp = body.T if body.T is not UNSET else body.E
    ts = 0 if isinstance(stamp, UnsetType) else time_ns(stamp)
    if not ts and stamp is not UNSET:
        raise BadDecimal("left to the walk")
    bids, asks = _plain_levels([(body.b, body.B)], zero=True), _plain_levels([(body.a, body.A)], zero=True)
    return Book("bookTicker", body.s, body.u, body.u, -1, ts, bids, asks)


def _plain_levels(side: Sequence[tuple[str, str]], zero: bool = False) -> list[Level]:
    levels = [(plain_decimal(price), plain_decimal(size)) for price, size in side]
    if any(price[0] < (not zero) or size[0] < 0 for price, size in levels):
        raise BadDecimal("left to the walk")
    return levels


@dataclass(slots=True)
class Scales:
    """The scales a symbol's levels are kept at; ``known``: set or learned, not merely the defaults."""

    price: int
    size: int
    known: bool = False


@dataclass(slots=True)
class BookRows:
    """All frames of one symbol in one decode call."""

    symbol: str
    rows: list[tuple[int, ...]] = field(default_factory=list)
    price: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    price_scale: int = 0
    size_scale: int = 0
    top_price: int = 0  # largest so far
    top_size: int = 0

    def append(self, book: Book, recv: int, scales: Scales) -> bool:
        """Add a frame at ``scales``, which finer values widen, rows already here included.

        False, and nothing changed, if a value does not fit 64 bits.
        """
        levels = book.bids + book.asks
        prices, sizes = [price for price, _ in levels], [size for _, size in levels]
        if any(mantissa > INT64_MAX for mantissa, _ in (*prices, *sizes)):
            return False
        price_scale = _scale_for(prices, scales.price, scales.known)
        size_scale = _scale_for(sizes, scales.size, scales.known)
        new_price, new_size = _at_scale(prices, price_scale), _at_scale(sizes, size_scale)
        price_up, size_up = price_scale - scales.price, size_scale - scales.size
        fits = _widens(self.top_price, price_up) and _widens(self.top_size, size_up)
        if not fits or max((*new_price, *new_size), default=0) > INT64_MAX:
            return False
        before = len(self.price)
        self.price, self.size = _widened(self.price, price_up), _widened(self.size, size_up)
        self.price += new_price
        self.size += new_size
        self.top_price = max(self.top_price * 10 ** max(price_up, 0), *new_price, 0)
        self.top_size = max(self.top_size * 10 ** max(size_up, 0), *new_size, 0)
        self.price_scale, self.size_scale = price_scale, size_scale
        scales.price, scales.size, scales.known = price_scale, size_scale, scales.known or bool(levels)
        ends = before + len(book.bids), len(self.price)
        self.rows.append((book.first, book.last, book.prev, book.ts, recv, *ends))
        return True

    def _columns(self) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        table = list(zip(*self.rows, strict=True)) or [()] * 7
        return [np.array(column, np.int64) for column in table]

    def depth(self) -> DepthGroup:
        """The frames as depth changes."""
        price, size = np.array(self.price, np.int64), np.array(self.size, np.int64)
        first, last, prev, ts_event, ts_recv, bid_end, ask_end = self._columns()
        scales = self.price_scale, self.size_scale
        return DepthGroup(self.symbol, *scales, first, last, prev, ts_event, ts_recv, bid_end, ask_end, price, size)

    def quotes(self) -> QuoteGroup:
        """The frames as quotes."""
        price, size = np.array(self.price, np.int64), np.array(self.size, np.int64)
        _, last, _, ts_event, ts_recv, _, _ = self._columns()
        sides = price[0::2], size[0::2], price[1::2], size[1::2]
        return QuoteGroup(self.symbol, self.price_scale, self.size_scale, last, *sides, ts_event, ts_recv)


def _scale_for(values: Sequence[tuple[int, int]], current: int, known: bool) -> int:
    """What the values need, what the symbol has or, for a new one, what leaves every value room."""
    needed = max((own for _, own in values), default=0)
    if not known:
        current = min((fit_scale(current, mantissa, own) for mantissa, own in values), default=current)
    return max(needed, current)


def _widens(top: int, up: int) -> bool:
    widest: int = INT64_MAX // 10 ** max(up, 0)
    return top <= widest


def _widened(mantissas: list[int], up: int) -> list[int]:
    return [mantissa * 10**up for mantissa in mantissas] if up > 0 else mantissas


def _at_scale(values: Sequence[tuple[int, int]], scale: int) -> list[int]:
    return [mantissa * 10 ** (scale - own) for mantissa, own in values]
