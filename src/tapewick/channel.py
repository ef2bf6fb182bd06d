"""Channels, positions in them, and the seam between stored history and live data.

A durable record of a channel has an offset: ``seq`` of a trade, ``pos`` of a candle row. A
position is ``epoch:offset``; a reader that names the last one it has seen goes on behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from tapewick.errors import BadRequest
from tapewick.model import CandleBatch, TradeBatch
from tapewick.timeframe import Timeframe, parse

__all__ = ["Batch", "Channel", "Listener", "Page", "Seam", "Since", "parse_position", "rest_of", "span"]

HELD_BYTES = 1 << 20  # live data kept for one reader while its history loads

Batch: TypeAlias = TradeBatch | CandleBatch


class Channel(NamedTuple):
    """What can be watched: ``trade@ID`` or ``candle@ID@TF``."""

    kind: str
    instrument: str
    tf: Timeframe | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.instrument}" + (f"@{self.tf.name}" if self.tf else "")

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
        if kind == "trade" and rest and "@" not in rest:
            return cls(kind, rest)
        if kind == "candle" and "@" in rest:
            instrument, _, tf = rest.rpartition("@")
            return cls(kind, instrument, parse(tf))
        raise BadRequest(f"unknown channel {text[:80]!r}; use trade@INSTRUMENT or candle@INSTRUMENT@TF", field="ch")


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
    return (int(pos.min()), int(pos.max())) if len(pos) else (0, -1)


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

    def settle(self, offset: int) -> list[Batch]:
        """The history reached ``offset``: what was held beyond it, in order."""
        self.floor = offset
        held, self.held = self.held, []
        return [rest for batch in held if (rest := rest_of(batch, offset)) is not None]
