"""What a raw exchange frame is and says: the rules, as a full JSON walk.

Strict JSON (RFC 8259), at most 64 levels deep, numbers kept as text. The checks run in a
fixed order because the first that fails is the reason counted. ``native/codec_walk.cpp`` is
the twin of this file.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn, TypeAlias

import msgspec

from tapewick.engine._codec_book import BOOKS, Book, read_body, read_snapshot_body
from tapewick.engine._codec_values import (
    MAX_DEPTH,
    MAX_SYMBOL,
    MAX_UNKNOWN,
    Number,
    Other,
    Reject,
    decimal,
    int64,
    is_integer,
    record_ids,
    time_ns,
)
from tapewick.errors import BadDecimal

__all__ = ["RAW", "TRADES", "Kept", "Read", "Trade", "event_kind", "stream_kind", "walk", "walk_snapshot"]

TRADES = ("trade", "aggTrade")
RAW = frozenset({"kline", "24hrMiniTicker", "partialDepth", "snapshot"})
"""Types kept as they came when order books are asked for."""


class Trade(NamedTuple):
    """A decoded trade; ``price`` and ``size`` are (mantissa, scale), ``ts`` is in ns.

    ``void``: it covers its id but is no trade.
    """

    kind: str
    symbol: str
    id: int
    first: int
    span: int
    ts: int
    price: tuple[int, int]
    size: tuple[int, int]
    side: int
    futures: bool
    void: bool


class Kept(NamedTuple):
    """A frame kept raw: its type, its stream's name and the JSON of its data."""

    kind: str
    stream: str
    body: bytes


Read: TypeAlias = Trade | Book | Kept | Other | Reject


class _Wrapped(msgspec.Struct):
    data: msgspec.Raw


_data = msgspec.json.Decoder(_Wrapped).decode

_EVENTS = frozenset(
    {
        *TRADES, "depthUpdate", "bookTicker", "kline", "continuous_kline", "24hrMiniTicker", "24hrTicker", "1hTicker",
        "4hTicker", "1dTicker", "avgPrice", "referencePrice", "blockTrade", "markPriceUpdate", "forceOrder",
        "serverShutdown",
    }
)  # fmt: skip
_CHANNELS = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "bookTicker": "bookTicker",
    "depth": "depthUpdate",
    "depth5": "partialDepth",
    "depth10": "partialDepth",
    "depth20": "partialDepth",
    "miniTicker": "24hrMiniTicker",
    "ticker": "24hrTicker",
    "ticker_1h": "1hTicker",
    "ticker_4h": "4hTicker",
    "ticker_1d": "1dTicker",
    "avgPrice": "avgPrice",
    "referencePrice": "referencePrice",
    "blockTrade": "blockTrade",
    "markPrice": "markPriceUpdate",
    "forceOrder": "forceOrder",
    "serverShutdown": "serverShutdown",
}


def event_kind(tag: str) -> str:
    """The type an event tag announces, ``""`` if it is unknown."""
    return tag if tag in _EVENTS else ""


def stream_kind(name: str) -> str:
    """The type a combined stream's name (``btcusdt@depth@100ms``, ``!ticker@arr``) announces, ``""`` if unknown."""
    channel = name[1:] if name.startswith("!") else name.partition("@")[2]
    channel = channel.partition("@")[0]
    if channel.startswith("kline_"):
        return "kline"
    if channel.startswith("continuousKline_"):
        return "continuous_kline"
    return _CHANNELS.get(channel, "")


def walk(frame: bytes, books: bool = False) -> Read:
    """Read a frame of any layout: a trade, the type of another frame, or why it was refused.

    With ``books``, frames of order books are read too and those of types in ``RAW`` kept.
    """
    document = _document(frame)
    if isinstance(document, Reject):
        return document
    if isinstance(document, dict) and "stream" in document and "data" in document:
        stream = document["stream"]
        if type(stream) is not str:
            return Reject("wrong_type")
        kind = stream_kind(stream)
        if kind and not _wanted(kind, books):
            return Other(kind)
        return _Walk(frame, stream, books).body(document["data"], kind)
    return _Walk(frame, "", books).body(document, "")


def walk_snapshot(body: bytes) -> Book | Reject:
    """A REST answer read as a depth snapshot."""
    document = _document(body)
    return document if isinstance(document, Reject) else read_snapshot_body(document)


def _document(frame: bytes) -> Any:
    try:
        text = frame.decode()
    except UnicodeDecodeError:
        return Reject("bad_utf8")
    try:
        return _parse(text)
    except (ValueError, RecursionError):
        return Reject("malformed_json")


def _wanted(kind: str, books: bool) -> bool:
    """Whether frames of a type are more than counted."""
    return kind in TRADES or (books and (kind in BOOKS or kind in RAW))


class _Walk(NamedTuple):
    """One frame and what is asked of it; ``stream`` is "" for a raw stream's."""

    frame: bytes
    stream: str
    books: bool

    def body(self, body: Any, kind: str) -> Read:
        """A body whose type the stream did not settle (``kind`` empty), or one to be read."""
        if kind in RAW:
            return self.settled(body, kind)
        if not isinstance(body, dict):
            if kind:
                return Reject("wrong_type")
            return _unknown(self.stream or ("array" if isinstance(body, list) else "scalar"))
        if "e" in body:
            tag = body["e"]
            if type(tag) is not str:
                return Reject("wrong_type")
            named = event_kind(tag)
            if not kind and not _wanted(named, self.books):
                return Other(named) if named else _unknown(tag)
            if kind and kind != named:
                return Reject("wrong_type")
            kind = named
        elif not kind:
            return self.shape(body)
        return _trade(body, kind) if kind in TRADES else self.settled(body, kind)

    def settled(self, body: Any, kind: str) -> Read:
        """A body of a known type that is no trade."""
        if not _wanted(kind, self.books):
            return Other(kind)
        if kind in BOOKS:
            return read_body(body, kind)
        raw = bytes(_data(self.frame).data) if self.stream else self.frame.strip(b" \t\r\n")
        return Kept(kind, self.stream, raw)

    def shape(self, body: dict[str, Any]) -> Read:
        """A body without an event tag is known by its stream or its shape."""
        if all(key in body for key in "ubBaA"):
            return self.settled(body, "bookTicker")
        if "lastUpdateId" in body:
            return self.settled(body, "snapshot")
        if any(key in body for key in ("result", "id", "error", "code")):
            return Other("control")
        return _unknown(self.stream)


def _unknown(name: str) -> Other:
    return Other("unknown:" + name[:MAX_UNKNOWN])


def _trade(body: dict[str, Any], kind: str) -> Trade | Reject:
    low_key, high_key = ("f", "l") if kind == "aggTrade" else ("t", "t")
    if any(key not in body for key in ("s", low_key, high_key, "T", "p", "q", "m")):
        return Reject("missing_field")
    symbol = body["s"]
    whole = all(is_integer(body[key]) for key in (low_key, high_key, "T"))
    if not whole or not isinstance(body["p"], str) or not isinstance(body["q"], str) or type(body["m"]) is not bool:
        return Reject("wrong_type")
    if type(symbol) is not str or not 0 < len(symbol.encode()) <= MAX_SYMBOL:
        return Reject("wrong_type")
    first, last = int64(body[low_key]), int64(body[high_key])
    if first is None or last is None or not record_ids(first, last):
        return Reject("overflow")
    try:
        price, size = decimal(body["p"]), decimal(body["q"])
    except BadDecimal:
        return Reject("bad_number")
    ts = time_ns(int64(body["T"]) or 0)
    if not ts:
        return Reject("bad_time")
    absent = "X" in body and (body["X"] is None or (type(body["X"]) is str and body["X"] in ("", "NA")))
    return Trade(
        kind=kind,
        symbol=symbol,
        id=last,
        first=first,
        span=last - first + 1,
        ts=ts,
        price=price,
        size=size,
        side=-1 if body["m"] else 1,
        futures="X" in body or "ps" in body,
        void=kind == "trade" and absent and price[0] == 0 and size[0] == 0,
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_no_constant)
_STRUCTURE = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def _parse(text: str) -> Any:
    """The document, numbers as ``Number``. Raises ``ValueError`` for anything but strict JSON."""
    if text.count("[") + text.count("{") > MAX_DEPTH and not _shallow(text):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text and not _pairs_surrogates(text):
        raise ValueError("half of a surrogate pair")
    return _decoder.decode(text)


def _shallow(text: str) -> bool:
    depth = 0
    quoted = False
    for match in _STRUCTURE.finditer(text):
        mark = match[0]
        if mark == '"':
            quoted = not quoted
        elif not quoted and mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return False
        elif not quoted and mark in "]}":
            depth -= 1
    return True


def _pairs_surrogates(text: str) -> bool:
    high_end = -1
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else 0
        low = 0xDC00 <= code <= 0xDFFF
        if high_end >= 0:
            if match.start() != high_end or not low:
                return False
            high_end = -1
        elif low:
            return False
        elif 0xD800 <= code <= 0xDBFF:
            high_end = match.end()
    return high_end < 0
