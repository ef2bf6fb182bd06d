"""Channels, positions in them, and the seam between stored history and live data.

A durable record of a channel has an offset: ``seq`` of a trade, ``pos`` of a candle row. A
position is ``epoch:offset``; a reader that names the last one it has seen goes on behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from tapewick.errors import BadRequest
from tapewick.model import CandleBatch, TradeBatch
from tapewick.timeframe import Timeframe, parse

__all__ = ["Batch", "Channel", "Listener", "Page", "Reader", "Seam", "Since", "parse_position", "rest_of", "span"]

HELD_BYTES = 1 << 20  # live data kept for one reader while its history loads
FEW = 64  # rows that Python looks through faster than numpy

Batch: TypeAlias = TradeBatch | CandleBatch


BOOKS = ("book", "book_top", "bbo")


class Channel(NamedTuple):
    """What can be watched: ``trade@ID``, ``candle@ID@TF``, ``ticker@ID``, ``book@ID``, ``book_top@ID``, ``bbo@ID``,
    ``health@ID``, and ``health`` for all instruments (its ``instrument`` is empty)."""

    kind: str
    instrument: str
    tf: Timeframe | None = None

    @property
    def name(self) -> str:
        return self.kind + (f"@{self.instrument}" if self.instrument else "") + (f"@{self.tf.name}" if self.tf else "")

    @property
    def durable(self) -> bool:
        """Whether its records have positions to resume from; other channels only know how things stand."""
        return self.kind in ("trade", "candle")

    @property
    def key(self) -> int:
        """Which of an instrument's live streams it is: a timeframe's index, -1 for trades."""
        return -1 if self.tf is None else self.tf.index

    @classmethod
    def parse(cls, text: str) -> Channel:
        """The channel ``text`` names, its timeframe in canonical spelling.

        Raises ``BadRequest`` for an unknown shape, ``UnknownTimeframe``.
        """
        kind, _, rest = text.partition("@")
        if text in ("health", "health@*"):
            return cls("health", "")
        if kind in ("trade", "health", "ticker", *BOOKS) and rest and "@" not in rest:
            return cls(kind, rest)
        if kind == "candle" and "@" in rest:
            instrument, _, tf = rest.rpartition("@")
            return cls(kind, instrument, parse(tf))
        known = "trade@ID, candle@ID@TF, ticker@ID, book@ID, book_top@ID, bbo@ID, health@ID or health"
        raise BadRequest(f"unknown channel {text[:80]!r}; use {known}", field="ch")


class Since(NamedTuple):
    """Where a reader wants to go on: after ``offset`` of ``epoch`` (None: the current one)."""

    epoch: str | None
    offset: int


def parse_position(text: str, *, name: str = "since") -> Since:
    """A resume token ``epoch:offset``, or a bare offset. Raises ``BadRequest`` naming ``name``."""
    epoch, colon, offset = text.rpartition(":")
    whole = offset.isascii() and offset.isdigit() and len(offset) < 19
    if not whole or len(epoch) > 8 or bool(epoch) != bool(colon):
        raise BadRequest(f"{name}={text[:40]!r} is no position; use epoch:offset as an answer printed it", field=name)
    return Since(epoch or None, int(offset))


class Listener(Protocol):
    """Where a channel's live data goes; called in the event loop, must not wait."""

    def durable(self, batch: Batch) -> None:
        """Committed records in order: trades by contiguous ``seq``, candles by rising ``pos``."""
        ...

    def provisional(self, batch: CandleBatch) -> None:
        """The open candle as of now: one row, superseded by the next."""
        ...

    def restarted(self) -> None:
        """The tape was replaced (another epoch): positions mean nothing any more."""
        ...


class Page(NamedTuple):
    """Part of a channel's history. ``offset``: of its last record; ``more``: read on from there."""

    batch: Batch
    offset: int
    more: bool


def span(batch: Batch) -> tuple[int, int]:
    """First and last offset in a durable batch; (0, -1) when empty."""
    if isinstance(batch, TradeBatch):
        return (0, -1) if batch.seq is None or not len(batch) else (int(batch.seq[0]), int(batch.seq[-1]))
    pos = batch.rows["pos"]
    if len(pos) < FEW:  # as almost always
        few = pos.tolist()
        return (min(few), max(few)) if few else (0, -1)
    return int(pos.min()), int(pos.max())


def rest_of(batch: Batch, offset: int) -> Batch | None:
    """What of ``batch`` comes after ``offset``, None if nothing does."""
    first, last = span(batch)
    if last <= offset:
        return None
    if first > offset:
        return batch
    if isinstance(batch, TradeBatch):
        assert batch.seq is not None
        return batch.select(np.flatnonzero(batch.seq > offset))
    return replace(batch, rows=batch.rows[batch.rows["pos"] > offset])


@dataclass(slots=True)
class Seam:
    """Joins history and live for one reader: nothing missing, nothing twice.

    Attach first, then load the history; hold what arrives meanwhile, and hand on only what the
    history did not have. ``broken``: too much arrived to hold; read on from the store instead.
    ``stale``: an open candle was announced meanwhile, and not passed on.
    """

    held: list[Batch] = field(default_factory=list)
    size: int = 0
    broken: bool = False
    stale: bool = False
    floor: int | None = None

    def live(self, batch: Batch) -> Batch | None:
        """Take in live data; what of it may be passed on now."""
        if self.floor is not None:
            return rest_of(batch, self.floor)
        self.size += batch.nbytes
        self.broken = self.broken or self.size > HELD_BYTES
        if self.broken:
            self.held.clear()
        else:
            self.held.append(batch)
        return None

    def abandon(self) -> None:
        """Hold nothing: history is read on from where it got to."""
        self.broken = True
        self.held.clear()

    def settle(self, offset: int) -> list[Batch]:
        """The history reached ``offset``: what was held beyond it, in order."""
        self.floor = offset
        held, self.held = self.held, []
        return [rest for batch in held if (rest := rest_of(batch, offset)) is not None]


@dataclass(eq=False, slots=True)
class Reader:
    """A ``Listener`` that keeps what has arrived until it is taken, up to ``HELD_BYTES``."""

    seam: Seam = field(default_factory=Seam)
    queue: list[Batch] = field(default_factory=list)
    open: CandleBatch | None = None
    size: int = 0
    overflow: bool = False
    new_epoch: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def durable(self, batch: Batch) -> None:
        rest = self.seam.live(batch)
        if rest is not None:
            self.size += rest.nbytes
            self.overflow = self.overflow or self.size > HELD_BYTES
            if not self.overflow:
                self.queue.append(rest)
            self.ready.set()

    def provisional(self, batch: CandleBatch) -> None:
        self.open = batch
        self.ready.set()

    def restarted(self) -> None:
        self.overflow = self.new_epoch = True
        self.ready.set()

    def rewind(self) -> None:
        """Go back to history."""
        self.seam, self.open, self.size, self.overflow, self.new_epoch = Seam(), None, 0, False, False
        self.queue.clear()

    def settle(self, offset: int) -> None:
        self.queue += self.seam.settle(offset)
        self.ready.set() if self.queue else self.ready.clear()

    async def take(self) -> list[Batch] | None:
        """What arrived, once something has; None when the store must be read again."""
        await self.ready.wait()
        batches, self.queue, self.size = self.queue, [], 0
        if self.overflow:
            return batches or None
        self.ready.clear()
        if self.open is not None:
            batches.append(self.open)
            self.open = None
        return batches
