"""The JSON texts of a channel of trades or candles: encoded once, the same for every reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from tapewick.channel import Batch, Channel, Page, span
from tapewick.market import Market
from tapewick.model import I64, CandleBatch, Candles, Change, Reason, State, TradeBatch, position

__all__ = ["Frames", "Text"]

KINDS = {Change.CLOSED: "closed", Change.FINAL: "final", Change.REVISED: "revised"}


class Text(NamedTuple):
    """One encoded event: ``late`` trades, from offset ``first`` to ``last``."""

    data: bytes
    late: bool = False
    first: int = 0
    last: int = 0


class Frames:
    """Writes the frames of ``channel``; ``epoch`` is that of its tape."""

    def __init__(self, market: Market, channel: Channel) -> None:
        self._market, self._key = market, msgspec.json.encode(channel.name)
        self.epoch = ""

    def head(self, kind: str, offset: int, extra: bytes = b"") -> bytes:
        pos = position(self.epoch, offset).encode()
        ts = self._market.now() // 1_000_000
        return b'{"type":"%s","ch":%s,"pos":"%s"%s,"ts":%d,"data":' % (kind.encode(), self._key, pos, extra, ts)

    def snapshot(self, page: Page) -> bytes:
        return self.head("snapshot", page.offset) + self._market.encode(page.batch) + b"}"

    def update(self, batch: CandleBatch, rows: Candles, offset: int) -> bytes:
        """Open candles; ``offset`` is where the channel stands durably, which this does not advance."""
        part = CandleBatch(
            instrument=batch.instrument, rows=rows, price_scale=batch.price_scale, size_scale=batch.size_scale
        )
        return self.head("update", offset) + self._market.encode(part) + b"}"

    def events(self, batch: Batch, before: int, *, replay: bool = False) -> Iterator[Text]:
        """The event frames of a durable batch; ``before``: the offset that precedes it."""
        if isinstance(batch, TradeBatch):
            for part in _runs(batch):
                first, last = span(part)
                extra = b',"from":"%s"' % position(self.epoch, first).encode()
                extra += b',"late":true' if part.late else b""
                yield Text(self.head("event", last, extra) + self._market.encode(part) + b"}", part.late, first, last)
            return
        for text in self._candles(batch, before, replay=replay):
            yield Text(text)

    def _candles(self, batch: CandleBatch, before: int, *, replay: bool) -> Iterator[bytes]:
        """One frame per run of rows of the same kind, in order of ``pos``.

        Rows of one commit share a ``pos``. A frame that is not the last of its commit prints the
        position before it: a reader cut off in between must get the whole commit again.
        """
        rows = batch.rows[np.argsort(batch.rows["pos"], kind="stable")]
        changes = _changes(rows)
        if not replay:  # an open row is news on the provisional lane only
            rows, changes = rows[changes != Change.OPEN], changes[changes != Change.OPEN]
        if not len(rows):
            return
        reasons = np.where(changes == Change.REVISED, rows["reason"], 0)
        cuts = (changes[1:] != changes[:-1]) | (reasons[1:] != reasons[:-1])
        starts = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(rows)]
        pos = rows["pos"].tolist()
        for start, end in zip(starts, starts[1:], strict=False):
            part = CandleBatch(
                instrument=batch.instrument,
                rows=rows[start:end],
                price_scale=batch.price_scale,
                size_scale=batch.size_scale,
            )
            offset = pos[end - 1]
            if end < len(rows) and pos[end] == offset:
                offset = next((p for p in reversed(pos[:end]) if p < offset), before)
            data = self._market.encode(part) + b"}"
            change, reason = Change(int(changes[start])), Reason(int(reasons[start]))
            if change == Change.OPEN:
                yield self.head("update", offset) + data
            else:
                because = b"" if reason == Reason.PROOF else b',"reason":"%s"' % reason.name.lower().encode()
                yield self.head("event", offset, b',"kind":"%s"%s' % (KINDS[change].encode(), because)) + data

    def skip(self, first: int, last: int) -> bytes:
        """Late trades from ``first`` to ``last``, told by their number only."""
        text = b'{"type":"skip","ch":%s,"from":"%s","to":"%s","count":%d}'
        ends = (position(self.epoch, offset).encode() for offset in (first, last))
        return text % (self._key, *ends, last - first + 1)


def _runs(batch: TradeBatch) -> list[TradeBatch]:
    """Trades cut where late ones and others follow each other."""
    if batch.seq is None or not len(batch):
        return []
    if batch.late_rows is None or not batch.late_rows.any():
        return [batch]
    late, rows = batch.late_rows, np.arange(len(batch), dtype=np.int64)
    runs = np.split(rows, np.flatnonzero(late[1:] != late[:-1]) + 1)
    return [replace(batch.select(run), late=bool(late[run[0]]), late_rows=None) for run in runs]


def _changes(rows: Candles) -> I64:
    """The ``Change`` of each row; a row read from the store may not tell, its state and ``rev`` do."""
    told = rows["change"].astype(np.int64)
    later = np.where(rows["state"] == State.FINAL, Change.FINAL, Change.REVISED)
    derived = np.where(rows["rev"] == 0, Change.CLOSED, later)
    return np.where(rows["state"] == State.OPEN, Change.OPEN, np.where(told != Change.OPEN, told, derived))
