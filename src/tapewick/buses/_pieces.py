"""Messages cut to what every server takes: brokers refuse more than a megabyte unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tapewick.model import CandleBatch, Message, TradeBatch

__all__ = ["LIMIT", "pieces"]

LIMIT = 512 * 1024
"""Bytes of a piece, roughly."""


def pieces(message: Message, limit: int = LIMIT) -> Iterator[Message]:
    """``message``, or the same rows in several messages of at most about ``limit`` bytes, in order.

    Trades keep what their source vouches for: each piece covers the ids up to its last trade. Trades that
    are not in the order of their ids stay whole if their source vouches for ids, since no part of them proves one.
    """
    if isinstance(message, TradeBatch) and message.nbytes > limit and _divisible(message):
        yield from _trades(message, max(1, limit // 61))
    elif isinstance(message, CandleBatch) and message.nbytes > limit:
        rows = message.rows[np.argsort(message.rows["pos"], kind="stable")]
        step = max(1, limit // rows.dtype.itemsize)
        yield from (replace(message, rows=rows[at : at + step]) for at in range(0, len(rows), step))
    else:
        yield message


def _divisible(batch: TradeBatch) -> bool:
    if len(batch) < 2:
        return False
    return not batch.covers or bool(np.all(batch.trade_id[1:] > batch.trade_id[:-1]))


def _trades(batch: TradeBatch, step: int) -> Iterator[TradeBatch]:
    """Pieces of ``step`` trades; the clock, which may close candles, comes with the last."""
    low = None
    for at in range(0, len(batch), step):
        rows = np.arange(at, min(at + step, len(batch)))
        part = batch.select(rows)
        last = at + step >= len(batch)
        if batch.covers:
            high = None if last else int(part.trade_id[-1])
            part.covers = tuple(_clipped(batch.covers, low, high))
            low = high
        part.clock = batch.clock if last else 0
        yield part


def _clipped(covers: tuple[tuple[int, int], ...], low: int | None, high: int | None) -> Iterator[tuple[int, int]]:
    """The parts of ``covers`` above ``low`` and not above ``high``; None: no bound."""
    for first, last in covers:
        first = first if low is None else max(first, low + 1)
        last = last if high is None else min(last, high)
        if first <= last:
            yield first, last
