"""One raw exchange frame: settled by its first bytes, read by a typed decoder, or left to the walk."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

from tapewick.engine._codec_book import BOOKS, typed
from tapewick.engine._codec_values import MAX_FRAME, MAX_SYMBOL, Other, Reject, plain_decimal, record_ids, time_ns
from tapewick.engine._codec_walk import RAW, TRADES, Kept, Read, Trade, event_kind, stream_kind, walk
from tapewick.errors import BadDecimal

__all__ = ["read"]


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


def read(frame: bytes, books: bool) -> Read:
    """One frame: settled by its first bytes, else by the typed decoder, else by the walk."""
    if len(frame) > MAX_FRAME:
        return Reject("oversize")
    kind, name, start = "", b"", 0
    if frame.startswith(b'{"stream":"'):
        end = frame.find(b'"', 11)
        if frame.startswith(b'","data":', end):
            name = frame[11:end]
            kind = _named(name)
            start = end + 9
    elif frame.startswith(b'{"e":"'):
        end = frame.find(b'"', 6)
        if frame.startswith(b'",', end):
            kind = event_kind(frame[6:end].decode("latin-1"))
    elif frame.startswith(b'{"lastUpdateId":'):
        kind = "snapshot"
    if not kind:
        return walk(frame, books)
    if books and kind in RAW:
        return _kept(frame, kind, name, start) or walk(frame, books)
    if kind not in TRADES and not (books and kind in BOOKS):
        return Other(kind)
    # The typed decoders take escapes and repeated keys the first bytes did not show.
    if not frame.isascii() or b"\\" in frame:
        return walk(frame, books)
    return (_typed if kind in TRADES else typed)(frame, kind, name) or walk(frame, books)


def _kept(frame: bytes, kind: str, name: bytes, start: int) -> Kept | None:
    """A frame kept raw, its JSON unseen; None for a name or an end the walk must look at."""
    if not start:
        return Kept(kind, "", frame)
    if not name.isascii() or not name.decode().isprintable() or b"\\" in name or not frame.endswith(b"}"):
        return None
    return Kept(kind, name.decode(), frame[start:-1])


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
        price, size = plain_decimal(body.p), plain_decimal(body.q)
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
