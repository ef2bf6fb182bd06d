"""Stream names: which symbol, what of it, how often."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from tapewick.gateways._binance_query import INTERVALS
from tapewick.timeframe import HOUR, Timeframe

__all__ = ["Kind", "Name", "parsed"]

Kind = Literal["trade", "aggTrade", "kline", "depth", "levels", "bookTicker", "mini", "full", "window", "avgPrice"]

PLAIN: dict[str, Kind] = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "bookTicker": "bookTicker",
    "miniTicker": "mini",
    "ticker": "full",
    "avgPrice": "avgPrice",
}
WINDOWS = {"1h": HOUR, "4h": 4 * HOUR, "1d": 24 * HOUR}
ZONE = 8 * HOUR  # the only other zone the venue has klines in
_KLINE = re.compile(r"kline_(\w{2,3})(@\+08:00)?", re.ASCII)
_DEPTH = re.compile(r"depth(5|10|20)?(?:@(100|1000)ms)?", re.ASCII)
_WINDOW = re.compile(r"ticker_(1h|4h|1d)", re.ASCII)


class Name(NamedTuple):
    """What a stream carries. ``symbol`` in lower case, empty for all symbols; ``length`` ns of a window;
    ``every`` seconds between pushes of a book; ``zone`` ns local time is ahead of UTC."""

    kind: Kind
    symbol: str
    tf: Timeframe | None = None
    zone: int = 0
    levels: int = 0
    every: float = 0.0
    window: str = ""
    length: int = 0


def parsed(text: str) -> Name | None:
    """What ``text`` names; None for what the venue does not have, or what no tape can tell."""
    symbol, at, what = text.partition("@")
    if not at:
        return None
    if symbol.startswith("!"):
        return _for_all(symbol[1:]) if what == "arr" else None
    if not symbol or symbol != symbol.lower():
        return None
    if what in PLAIN:
        return Name(PLAIN[what], symbol)
    if match := _KLINE.fullmatch(what):
        tf = INTERVALS.get(match[1])
        return None if tf is None else Name("kline", symbol, tf=tf, zone=ZONE if match[2] else 0)
    if match := _DEPTH.fullmatch(what):
        every = 0.1 if match[2] == "100" else 1.0
        return Name("levels" if match[1] else "depth", symbol, levels=int(match[1] or 0), every=every)
    if match := _WINDOW.fullmatch(what):
        return Name("window", symbol, window=match[1], length=WINDOWS[match[1]])
    return None


def _for_all(what: str) -> Name | None:
    if what == "miniTicker":
        return Name("mini", "")
    if match := _WINDOW.fullmatch(what):
        return Name("window", "", window=match[1], length=WINDOWS[match[1]])
    return None
