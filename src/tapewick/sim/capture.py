"""Recorded socket frames, to be served again: recorder lines and capture lines.

``<receive ns> <frame>`` and ``<unix seconds>: <frame>``, plain, ``.gz`` or ``.zst``. Only frames a
combined stream delivered are served; HTTP bodies, what a client sent and blank lines are not.
"""

from __future__ import annotations

import gzip
import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec
import zstandard

from tapewick.decimals import parse_mantissa
from tapewick.errors import BadPayload
from tapewick.sim.market import LISTING, Listing, SimTrade

__all__ = ["CapturedFrame", "Recorded", "captured_trade", "read_capture"]

_LINE = re.compile(rb"^(?:(\d{16,19}) |(\d{9,10}(?:\.\d{1,9})?): )(\{.*\})\s*$", re.DOTALL)
_STREAM = re.compile(rb'^\{"stream":"([^"]{1,200})","data":(.*)\}$', re.DOTALL)


class CapturedFrame(NamedTuple):
    """A frame received at ``recv`` (UTC ns) on ``stream``; ``data`` is what a raw stream would carry."""

    recv: int
    stream: str
    data: bytes
    combined: bytes


class _Trade(msgspec.Struct):
    """The keys of a trade or aggTrade payload."""

    e: str
    s: str
    p: str
    q: str
    T: int
    m: bool
    t: int = -1
    a: int = -1
    f: int = -1
    l: int = -1  # noqa: E741  # the venue's key


class Recorded:
    """The trades of one symbol served so far, with the questions a ``Market`` answers."""

    def __init__(self, symbol: str) -> None:
        self.listing = LISTING.get(symbol) or _guessed(symbol)
        self._trades: list[SimTrade] = []

    def add(self, trade: SimTrade) -> None:
        """Append a trade; one that does not follow in id (a recording's repeat) is left out."""
        if not self._trades or trade.id > self._trades[-1].id:
            self._trades.append(trade)

    def last_id(self, now: int) -> int:
        """Id of the last trade served with a time before ``now`` (UTC ms); 0 if there is none."""
        end = bisect_left(self._trades, now, key=lambda trade: trade.time)
        return self._trades[end - 1].id if end else 0

    def first_id_at(self, time: int) -> int:
        """Id of the first trade at or after ``time`` (UTC ms), else one above the last."""
        start = bisect_left(self._trades, time, key=lambda trade: trade.time)
        if start < len(self._trades):
            return self._trades[start].id
        return self._trades[-1].id + 1 if self._trades else 1

    def trades(self, first_id: int, last_id: int) -> list[SimTrade]:
        """Trades served with ids in [first_id, last_id], ascending."""
        start = bisect_left(self._trades, first_id, key=lambda trade: trade.id)
        return self._trades[start : bisect_right(self._trades, last_id, key=lambda trade: trade.id)]

    def trade_of_agg(self, agg_id: int) -> int:
        """Each recorded trade counts as one aggregate of the same id."""
        return agg_id


def read_capture(path: Path) -> Iterator[CapturedFrame]:
    """The served frames of a file in its order.

    Raises ``BadPayload`` for a file without any such frame.
    """
    found = False
    with closing(_open(path)) as lines:
        for line in lines:
            matched = _LINE.match(line)
            inner = _STREAM.match(matched[3]) if matched else None
            if matched is None or inner is None:
                continue
            found = True
            recv = int(matched[1]) if matched[1] else parse_mantissa(matched[2].decode(), 9)
            yield CapturedFrame(recv, inner[1].decode("utf-8", "replace"), inner[2], matched[3])
    if not found:
        raise BadPayload(f"{path} holds no recorded stream frame; record one, or see the formats in the manual")


def captured_trade(frame: CapturedFrame) -> tuple[str, SimTrade] | None:
    """Symbol and trade of a raw trade frame, None for any other."""
    if not frame.stream.endswith("@trade"):
        return None
    trade = msgspec.json.decode(frame.data, type=_Trade)
    return trade.s, SimTrade(trade.t, trade.p, trade.q, trade.T, trade.m, trade.t, trade.t, trade.t)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
        return io.BufferedReader(cast(io.RawIOBase, reader))
    return path.open("rb")


def _guessed(symbol: str) -> Listing:
    quotes = ("USDT", "USDC", "FDUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "USD")
    quote = next((q for q in quotes if symbol.endswith(q) and symbol != q), "")
    return Listing(symbol, symbol.removesuffix(quote), quote, 8, 8, 1.0, 1.0)
