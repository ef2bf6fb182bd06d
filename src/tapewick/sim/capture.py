"""Recorded socket frames, to be served again: recorder lines and capture lines.

``<receive ns> <frame>`` and ``<unix seconds>: <frame>``, plain, ``.gz`` or ``.zst``. Frames a combined
stream delivered are served, recorded depth answers become the book; what a client sent and blank
lines are passed over.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec
import zstandard

from tapewick.decimals import parse_mantissa
from tapewick.errors import BadPayload
from tapewick.sim.market import SimTrade

__all__ = ["CapturedFrame", "captured_trade", "read_capture"]

_LINE = re.compile(rb"^(?:(\d{16,19}) |(\d{9,10}(?:\.\d{1,9})?): )(\{.*\})\s*$", re.DOTALL)
_STREAM = re.compile(rb'^\{"stream":"([^"]{1,200})","data":(.*)\}$', re.DOTALL)


class CapturedFrame(NamedTuple):
    """A frame received at ``recv`` (UTC ns) on ``stream``; ``data`` is what a raw stream would carry.

    A recorded depth answer has no stream; its ``data`` is the body.
    """

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


def read_capture(path: Path) -> Iterator[CapturedFrame]:
    """The served frames of a file in its order.

    Raises ``BadPayload`` for a file without any such frame.
    """
    found = False
    with closing(_open(path)) as lines:
        for line in lines:
            matched = _LINE.match(line)
            if matched is None:
                continue
            inner = _STREAM.match(matched[3])
            recv = int(matched[1]) if matched[1] else parse_mantissa(matched[2].decode(), 9)
            if inner is not None:
                found = True
                yield CapturedFrame(recv, inner[1].decode("utf-8", "replace"), inner[2], matched[3])
            elif matched[3].startswith(b'{"lastUpdateId":'):
                yield CapturedFrame(recv, "", matched[3], matched[3])
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
