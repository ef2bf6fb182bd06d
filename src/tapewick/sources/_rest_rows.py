"""Trades as Binance's REST interface tells them, as columns: whole pages at once, numbers exact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
import numpy as np

from tapewick.decimals import INT64_MAX, split
from tapewick.errors import BadDecimal, BadPayload
from tapewick.model import I8, I64
from tapewick.sources._stamps import to_ns, unit_of

__all__ = ["AggregateRow", "Rows", "TradeRow", "aggregates", "mantissas", "trades"]


class TradeRow(msgspec.Struct, gc=False):
    """A row of ``historicalTrades``."""

    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class AggregateRow(msgspec.Struct, gc=False):
    """A row of ``aggTrades``: ids ``f`` to ``l``, filled by one order at one price."""

    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 (the venue's name)
    T: int
    m: bool


class Rows(NamedTuple):
    """Columns of equal length, ascending by id: lowest and highest id, ns, mantissas, aggressor."""

    first_id: I64
    last_id: I64
    time: I64
    price: I64
    size: I64
    side: I8
    price_scale: int
    size_scale: int

    def pick(self, rows: I64) -> Rows:
        """The same with only ``rows`` (indices)."""
        first, last, time, price, size, side, *scales = self
        return Rows(first[rows], last[rows], time[rows], price[rows], size[rows], side[rows], *scales)


_TRADE = attrgetter("id", "id", "price", "qty", "time", "isBuyerMaker")
_AGGREGATE = attrgetter("f", "l", "p", "q", "T", "m")
_PLAIN = re.compile(r"(?:\d{1,10}\.\d{8},)+", re.ASCII)  # what the venue prints: 18 digits fit 64 bits


def trades(rows: Sequence[TradeRow]) -> Rows:
    """Columns of raw trades. Raises ``BadPayload`` for numbers that are none or ids out of order."""
    return _columns(tuple(zip(*map(_TRADE, rows), strict=True)))


def aggregates(rows: Sequence[AggregateRow]) -> Rows:
    """Columns of aggregates. Raises ``BadPayload`` as ``trades`` does."""
    return _columns(tuple(zip(*map(_AGGREGATE, rows), strict=True)))


def _columns(columns: tuple[Sequence[int], ...]) -> Rows:
    first_text, last_text, prices, sizes, times, maker = columns
    try:
        first, last, stamp = (np.array(column, np.int64) for column in (first_text, last_text, times))
    except OverflowError as error:
        raise BadPayload("an id or a time in the venue's answer does not fit 64 bits") from error
    if (first < 0).any() or (last < first).any() or (first[1:] <= last[:-1]).any():
        raise BadPayload("ids in the venue's answer are not ascending")
    time, sane = to_ns(stamp, unit_of(int(stamp[0])))
    if not sane.all():
        raise BadPayload(f"a time in the venue's answer is out of range: {int(stamp[~sane][0])}")
    price, price_scale = mantissas(prices)  # type: ignore[arg-type]
    size, size_scale = mantissas(sizes)  # type: ignore[arg-type]
    side = np.where(np.array(maker, np.bool_), -1, 1).astype(np.int8)
    return Rows(first, last, time, price, size, side, price_scale, size_scale)


def mantissas(texts: Sequence[str]) -> tuple[I64, int]:
    """Mantissas of decimal texts and the least scale that holds all of them exactly. Raises ``BadPayload``."""
    joined = ",".join(texts) + ","
    if joined.count(",") == len(texts) and _PLAIN.fullmatch(joined):
        values, scale = np.fromstring(joined.replace(".", ""), np.int64, sep=","), 8
    else:
        values, scale = _slowly(texts)
    for spare in range(scale, 0, -1):
        if not (values % 10**spare).any():
            return values // 10**spare, scale - spare
    return values, scale


def _slowly(texts: Sequence[str]) -> tuple[I64, int]:
    try:
        numbers = [split(text) for text in texts]
    except BadDecimal as error:
        raise BadPayload(f"a number in the venue's answer: {error}") from error
    scale = max(scale for _, scale in numbers)
    whole = [mantissa * 10 ** (scale - own) for mantissa, own in numbers]
    if max(map(abs, whole)) > INT64_MAX or scale > 18:
        raise BadPayload("a number in the venue's answer has more digits than 64 bits hold")
    return np.array(whole, np.int64), scale
