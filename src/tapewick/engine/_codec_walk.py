"""What a raw exchange frame is and says: the rules, as a full JSON walk.

Strict JSON (RFC 8259), at most 64 levels deep, numbers kept as text. The checks run in a
fixed order because the first that fails is the reason counted. ``native/codec_walk.cpp`` is
the twin of this file.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn, TypeAlias

from tapewick.decimals import split
from tapewick.errors import BadDecimal

__all__ = [
    "MAX_FRAME",
    "MAX_SYMBOL",
    "TRADES",
    "Other",
    "Read",
    "Reject",
    "Trade",
    "decimal",
    "event_kind",
    "record_ids",
    "stream_kind",
    "time_ns",
    "walk",
]

MAX_FRAME = 1 << 20
MAX_SYMBOL = 64  # bytes
MAX_DEPTH = 64
MAX_UNKNOWN = 32  # characters of an unknown type's name that are kept
TRADES = ("trade", "aggTrade")

_EARLIEST, _LATEST = 1_230_768_000_000, 4_102_444_800_000  # ms of 2009-01-01 and 2100-01-01


class Other(str):
    """The type of a frame that is no trade."""

    __slots__ = ()


class Reject(str):
    """Why a frame was refused."""

    __slots__ = ()


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


Read: TypeAlias = Trade | Other | Reject


class _Number(str):
    """A JSON number as its raw text."""

    __slots__ = ()


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


def time_ns(value: int) -> int:
    """A time in ms, µs or ns, told by magnitude, as ns; 0 outside 2009-01-01 … 2100-01-01."""
    if value < _EARLIEST:
        return 0
    if value < _LATEST:
        return value * 1_000_000
    if _EARLIEST <= value // 1_000 < _LATEST:
        return value * 1_000
    return value if _EARLIEST <= value // 1_000_000 < _LATEST else 0


def walk(frame: bytes) -> Read:
    """Read a frame of any layout: a trade, the type of another frame, or why it was refused."""
    try:
        text = frame.decode()
    except UnicodeDecodeError:
        return Reject("bad_utf8")
    try:
        document = _parse(text)
    except (ValueError, RecursionError):
        return Reject("malformed_json")
    if isinstance(document, dict) and "stream" in document and "data" in document:
        stream = document["stream"]
        if type(stream) is not str:
            return Reject("wrong_type")
        kind = stream_kind(stream)
        if kind and kind not in TRADES:
            return Other(kind)
        return _body(document["data"], kind, stream)
    return _body(document, "", "")


def _body(body: Any, kind: str, stream: str) -> Read:
    """A body whose type the stream did not settle (``kind`` empty), or that must be a trade."""
    if not isinstance(body, dict):
        if kind:
            return Reject("wrong_type")
        return _unknown(stream or ("array" if isinstance(body, list) else "scalar"))
    if "e" in body:
        tag = body["e"]
        if type(tag) is not str:
            return Reject("wrong_type")
        named = event_kind(tag)
        if not kind and named not in TRADES:
            return Other(named) if named else _unknown(tag)
        if kind and kind != named:
            return Reject("wrong_type")
        kind = named
    elif not kind:
        return _shape(body, stream)
    return _trade(body, kind)


def _shape(body: dict[str, Any], stream: str) -> Other:
    if all(key in body for key in "ubBaA"):
        return Other("bookTicker")
    if "lastUpdateId" in body:
        return Other("snapshot")
    if any(key in body for key in ("result", "id", "error", "code")):
        return Other("control")
    return _unknown(stream)


def _unknown(name: str) -> Other:
    return Other("unknown:" + name[:MAX_UNKNOWN])


def _trade(body: dict[str, Any], kind: str) -> Trade | Reject:
    low_key, high_key = ("f", "l") if kind == "aggTrade" else ("t", "t")
    if any(key not in body for key in ("s", low_key, high_key, "T", "p", "q", "m")):
        return Reject("missing_field")
    symbol = body["s"]
    whole = all(_is_integer(body[key]) for key in (low_key, high_key, "T"))
    if not whole or not isinstance(body["p"], str) or not isinstance(body["q"], str) or type(body["m"]) is not bool:
        return Reject("wrong_type")
    if type(symbol) is not str or not 0 < len(symbol.encode()) <= MAX_SYMBOL:
        return Reject("wrong_type")
    first, last = _int64(body[low_key]), _int64(body[high_key])
    if first is None or last is None or not record_ids(first, last):
        return Reject("overflow")
    try:
        price, size = decimal(body["p"]), decimal(body["q"])
    except BadDecimal:
        return Reject("bad_number")
    ts = time_ns(_int64(body["T"]) or 0)
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


def _is_integer(value: Any) -> bool:
    return type(value) is _Number and not any(mark in value for mark in ".eE")


def _int64(digits: str) -> int | None:
    if len(digits) > 20:  # JSON has no leading zeros
        return None
    value = int(digits)
    return value if -(2**63) <= value < 2**63 else None


def record_ids(first: int, last: int) -> bool:
    """Whether a record's lowest and highest id fit 64 bits and their count 32."""
    return -(2**63) <= first < 2**63 and -(2**63) <= last < 2**63 and -(2**31) <= last - first + 1 < 2**31


def decimal(text: str) -> tuple[int, int]:
    """Mantissa and scale of decimal text. Raises ``BadDecimal``."""
    if text.endswith("\n"):
        raise BadDecimal(f"{text[:40]!r} is not a decimal number")
    return split(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_no_constant)
_STRUCTURE = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def _parse(text: str) -> Any:
    """The document, numbers as ``_Number``. Raises ``ValueError`` for anything but strict JSON."""
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
